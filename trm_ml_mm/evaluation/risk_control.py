"""Thresholds that reach a wanted precision or recall with a guarantee.

Learn-then-Test (Angelopoulos et al., arXiv 2110.01052) with fixed-sequence
testing: candidate thresholds are tested one after another, from the safest
on, and the last one before the first failure is taken. Each test may use the
whole permitted error, because nothing is tested after a failure. Precision and
recall are frequencies, so the test is the exact binomial one.

The guarantee: with the wanted confidence over draws of the known labels, the
threshold has at least the wanted precision (or recall) on new images of the
same kind. It needs known labels that are a random sample of all labels; see
:mod:`~trm_ml_mm.evaluation.known_labels`.

All functions here take the known labels of one group, which is a class or
several classes together.
"""
import math

import numpy as np

# The first test of precision is at a third of the known positives, but not
# before a faultless selection can pass, nor after 4 times that. So one early
# error ends nothing, and a group with few labels still has a test. A sequence
# of tests must not follow from the labels that it tests: this one follows from
# scores, and from how many positives there are.
START_RATIO, START_LIMIT = 3, 4
# Later tests are at .5% more images each.
GROWTH = 1.005


def precision_threshold(scores: np.ndarray, present: np.ndarray,
                        target: float, confidence: float = .9) -> float:
    """The lowest threshold whose precision is at least the target.

    Args:
        scores: ``(M,)`` floats, of known labels. Predicted are those with at
            least the threshold.
        present: ``(M,)`` bool.
        target: Wanted precision, in (0, 1).
        confidence: Of the guarantee, in (0, 1).

    Returns:
        The threshold, halfway between two scores; inf if no test passed.

    Raises:
        ValueError: If target or confidence is not in (0, 1).
    """
    order = np.argsort(-scores, kind='stable')
    ranked, hits = scores[order], np.cumsum(present[order])
    passed = 0
    for count in candidate_counts(ranked, int(present.sum()), target,
                                  confidence):
        errors = count - int(hits[count - 1])
        if binomial_cdf(errors, count, 1 - target) > 1 - confidence:
            break
        passed = count
    return between(ranked, passed)


def candidate_counts(ranked: np.ndarray, positives: int, target: float,
                     confidence: float) -> np.ndarray:
    """How many labels the candidate thresholds select, in the order of the
    tests. Equal scores enter together.

    Args:
        ranked: ``(M,)`` scores, falling.
        positives: Number of known positives.
        target: See :func:`precision_threshold`.
        confidence: See :func:`precision_threshold`.
    """
    least = least_faultless(target, confidence)
    start = min(max(positives // START_RATIO, least), START_LIMIT * least)
    if len(ranked) < start:
        return np.empty(0, int)
    steps = 1 + int(math.log(len(ranked) / start) / math.log(GROWTH))
    wanted = np.ceil(start * GROWTH**np.arange(steps + 1)).astype(int)
    wanted = np.minimum(wanted, len(ranked))
    return np.unique(np.searchsorted(-ranked, -ranked[wanted - 1], 'right'))


def recall_threshold(scores: np.ndarray, present: np.ndarray, target: float,
                     confidence: float = .9) -> float:
    """The highest threshold whose recall is at least the target.

    Candidates are tested from the lowest on; see :func:`precision_threshold`
    for arguments, result and errors.
    """
    positives = np.sort(scores[present])
    if len(positives) < least_faultless(target, confidence):
        return math.inf
    # The most positives that may be missed: the test is monotone in them.
    low, high = 0, len(positives)
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_cdf(middle, len(positives),
                        1 - target) <= 1 - confidence:
            low = middle
        else:
            high = middle
    ranked = np.sort(scores)[::-1]
    return between(ranked, int((ranked >= positives[low]).sum()))


def least_faultless(target: float, confidence: float) -> int:
    """How many labels without an error show that a frequency is at least the
    target: 22 for .9 at confidence .9, 45 for .95.

    Raises:
        ValueError: If one of them is not in (0, 1).
    """
    for name, value in (('target', target), ('confidence', confidence)):
        if not 0 < value < 1:
            raise ValueError(f'{name} must be above 0 and below 1, got '
                             f'{value!r}.')
    count = max(int(math.log(1 - confidence) / math.log(target)) - 1, 1)
    while target**count > 1 - confidence:
        count += 1
    return count


def binomial_cdf(errors: int, count: int, rate: float) -> float:
    """Probability of at most ``errors`` in ``count`` draws, each wrong with
    probability ``rate`` in (0, 1).

    This is the p-value of the hypothesis that errors are at least as frequent
    as ``rate``.
    """
    if errors >= count:
        return 1.
    # From the last term down. Each term has this ratio to the one above it.
    # Beyond 40 standard deviations nothing is left.
    width = int(40 * math.sqrt(count * rate * (1 - rate)) + 40)
    errors = min(errors, int(count * rate) + width)
    j = np.arange(errors, max(0, errors - 2 * width), -1, dtype=np.float64)
    ratios = j * (1 - rate) / ((count - j + 1) * rate)
    last = (math.lgamma(count + 1) - math.lgamma(errors + 1)
            - math.lgamma(count - errors + 1) + errors * math.log(rate)
            + (count - errors) * math.log1p(-rate))
    # Above the mean, ratios exceed 1: add logarithms.
    terms = last + np.cumsum(np.r_[0., np.log(ratios)])
    top = terms.max()
    return min(1., math.exp(top) * float(np.exp(terms - top).sum()))


def between(ranked: np.ndarray, count: int) -> float:
    """A threshold that selects the first ``count`` of falling scores: halfway
    to the next score. inf if there are none to select."""
    if count == 0:
        return math.inf
    last = float(ranked[count - 1])
    if count == len(ranked):
        return last
    middle = (last + float(ranked[count])) / 2
    return middle if middle > ranked[count] else last  # next to each other
