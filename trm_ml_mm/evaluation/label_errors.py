"""Which known labels are probably wrong: confident learning.

Northcutt et al., arXiv 1911.00068. Their rule is applied to each class as a
task of its own with two values, present and absent, as in their package
cleanlab.
"""
import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

# A threshold that no probability reaches, for a value that no label has.
NEVER = 2.
# Probabilities this close to a threshold reach it, as in cleanlab.
TOLERANCE = 1e-6


def suspicious_labels(labels: np.ndarray,
                      probabilities: np.ndarray) -> np.ndarray:
    """Known labels that are probably wrong, the most suspicious first.

    Args:
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        probabilities: ``(N, C)`` that a label is present, by a model that was
            not trained on it; NaN: nobody knows.

    Returns:
        ``(K, 2)`` int, image and class of each. They are ordered by the
        probability that the label is right (the "self-confidence").
    """
    wrong = np.zeros(labels.shape, bool)
    for c in range(labels.shape[1]):
        judged = (labels[:, c] != UNKNOWN) & ~np.isnan(probabilities[:, c])
        wrong[judged, c] = confident_errors(labels[judged, c] == PRESENT,
                                            probabilities[judged, c])
    right = np.where(labels == PRESENT, probabilities, 1 - probabilities)
    found = np.argwhere(wrong)
    return found[np.argsort(right[wrong], kind='stable')]


def confident_errors(present: np.ndarray,
                     probabilities: np.ndarray) -> np.ndarray:
    """The labels of one class that confident learning counts as errors.

    A probability is confident if it is at least the mean probability of
    that value among the labels that have it. A label is an error if its model
    is confident of the other value, and holds it for more likely.

    Args:
        present: ``(M,)`` bool, known labels.
        probabilities: ``(M,)`` that they are present.

    Returns:
        ``(M,)`` bool.
    """
    of_value = np.stack([1 - probabilities, probabilities])
    thresholds = np.array([
        of_value[value][present == value].mean() if (present == value).any()
        else NEVER for value in (ABSENT, PRESENT)])
    confident = of_value >= thresholds[:, None] - TOLERANCE
    likely = of_value[PRESENT] > of_value[ABSENT]
    # Confident of the other value, and that is the likelier one: whether it
    # is confident of the given value too no longer matters.
    other = np.where(present, confident[ABSENT], confident[PRESENT])
    return other & (likely != present)
