"""A threshold for each class, from known labels.

Classes with enough known labels have a threshold of their own. The others
share one: a cut through their aligned logits, whose values mean the same in
every class. So one cut is another logit in each of them.
"""
from typing import Callable, NamedTuple, Optional

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, summarize_labels
from trm_ml_mm.utils.checks import check_choice

from .probabilities import (
    ProbabilityFit,
    check_scores,
    fit_probabilities,
)
from .risk_control import (
    between,
    least_faultless,
    precision_threshold,
    recall_threshold,
)

# Known positives, and known negatives, that a class needs for its own
# threshold of best F1.
F1_MINIMUM = 5
# F1 counts that many expected labels beside the known ones. Chosen on
# validation scenes (tools/benchmarks/calibration.py --choices).
F1_PRIOR = 1000.
# A test of its own needs that many times the labels with which a faultless
# class passes. With fewer, the test would pass only far above the target.
TEST_MINIMUM = 8


class Thresholds(NamedTuple):
    """Thresholds on logits, ``(C,)`` each."""

    values: np.ndarray  # float64; infinite: the label is never given
    shared: np.ndarray  # bool: too few known labels for its own


def best_f1_thresholds(logits: np.ndarray, labels: np.ndarray,
                       fit: Optional[ProbabilityFit] = None,
                       minimum: int = F1_MINIMUM,
                       prior: float = F1_PRIOR) -> Thresholds:
    """Thresholds of the best F1 of each class.

    The best threshold of a few labels is best by chance. So F1 counts expected
    labels too: the calibrated probabilities of all images of the class, known
    or not, which together weigh as much as :data:`F1_PRIOR` known labels
    (ours; the expectation alone is the plug-in rule of Lipton et al., arXiv
    1402.1892).

    Args:
        logits: ``(N, C)`` floats.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        fit: :func:`~trm_ml_mm.evaluation.probabilities.fit_probabilities` of
            them; None: fitted here.
        minimum: Known positives and known negatives that a class needs for
            its own threshold.
        prior: Weight of the expected labels of a threshold; 0: none.

    Raises:
        ValueError: See ``fit_probabilities``.
    """
    logits, labels = check_scores(logits, labels)
    fit = fit or fit_probabilities(logits, labels)
    aligned = fit.map.aligned(logits)
    probabilities = fit.map.probabilities(logits)
    count = summarize_labels(labels)
    shared = np.minimum(count.positive, count.negative) < minimum
    values = np.full(len(shared), np.inf)

    def best(scores, columns):
        known = labels[:, columns] != UNKNOWN
        return best_f1_threshold(
            scores[:, columns][known],
            labels[:, columns][known] == PRESENT,
            scores[:, columns].ravel(), probabilities[:, columns].ravel(),
            prior)

    for c in np.flatnonzero(~shared):
        values[c] = best(logits, slice(c, c + 1))
    if shared.any():
        cut = best(aligned, shared)
        values[shared] = fit.map.unaligned(cut)[shared]
    return Thresholds(values, shared)


def best_f1_threshold(scores: np.ndarray, present: np.ndarray,
                      expected_scores: np.ndarray = (),
                      expected: np.ndarray = (),
                      prior: float = F1_PRIOR) -> float:
    """The threshold of the best F1 of one group of labels. Every distinct
    score is a candidate; of equally good ones the highest is taken.

    Args:
        scores: ``(M,)`` floats, of known labels.
        present: ``(M,)`` bool.
        expected_scores: ``(E,)`` scores of expected labels.
        expected: ``(E,)`` their probabilities.
        prior: How many known labels the expected ones weigh as much as.

    Returns:
        The threshold, halfway between two scores; inf without a positive.
    """
    weight = prior / max(len(expected), 1)
    joined = np.r_[scores, expected_scores]
    positive = np.r_[present.astype(np.float64),
                     weight * np.asarray(expected, np.float64)]
    claim = np.r_[np.ones(len(scores)), np.full(len(expected), weight)]
    if positive.sum() == 0:
        return float('inf')
    order = np.argsort(-joined, kind='stable')
    ranked = joined[order]
    f1 = 2 * np.cumsum(positive[order]) / (
        np.cumsum(claim[order]) + positive.sum())
    f1[:-1][ranked[:-1] == ranked[1:]] = -1  # equal scores enter together
    return between(ranked, 1 + int(f1.argmax()))


def precision_thresholds(logits: np.ndarray, labels: np.ndarray,
                         target: float, confidence: float = .9,
                         value: int = PRESENT,
                         fit: Optional[ProbabilityFit] = None,
                         minimum: Optional[float] = None) -> Thresholds:
    """Thresholds with a wanted precision, guaranteed.

    The guarantee is per threshold: for a class with its own one, it is about
    that class; for classes that share one, about all of their predictions
    together, where one class may be below the target and another above.

    For classes that share one, labels are ranked by aligned logits of fits
    that did not see them. The exact test takes these labels as independent,
    also those of one image.

    Args:
        logits: See :func:`best_f1_thresholds`.
        labels: See :func:`best_f1_thresholds`.
        fit: See :func:`best_f1_thresholds`.
        target: Wanted precision, in (0, 1).
        confidence: Of the guarantee, in (0, 1).
        value: What is predicted. PRESENT: from the threshold up. ABSENT: from
            the threshold down, so that the precision is that of a no.
        minimum: Known labels of this value that a class needs for its own
            threshold; inf: all classes share one. None:
            :data:`TEST_MINIMUM` times those with which a faultless class
            passes (176 for .9, 360 for .95).

    Returns:
        Thresholds; infinite (for ABSENT minus infinite) where no test passed.

    Raises:
        ValueError: If target or confidence is not in (0, 1), ``value`` is
            neither, and see ``fit_probabilities``.
    """
    check_choice((PRESENT, ABSENT), value=value)
    return _guaranteed(
        lambda scores, present: precision_threshold(
            scores, present, target, confidence),
        logits, labels, value, fit,
        _minimum(minimum, target, confidence))


def recall_thresholds(logits: np.ndarray, labels: np.ndarray, target: float,
                      confidence: float = .9,
                      fit: Optional[ProbabilityFit] = None,
                      minimum: Optional[float] = None) -> Thresholds:
    """Thresholds with a wanted recall, guaranteed; arguments, result and
    errors as :func:`precision_thresholds`."""
    return _guaranteed(
        lambda scores, present: recall_threshold(
            scores, present, target, confidence),
        logits, labels, PRESENT, fit, _minimum(minimum, target, confidence))


def _minimum(minimum: Optional[float], target: float,
             confidence: float) -> float:
    least = least_faultless(target, confidence)
    return TEST_MINIMUM * least if minimum is None else minimum


def _guaranteed(rule: Callable[[np.ndarray, np.ndarray], float],
                logits: np.ndarray, labels: np.ndarray, value: int,
                fit: Optional[ProbabilityFit], minimum: float) -> Thresholds:
    """The rule for each class with enough labels, and once for the others."""
    logits, labels = check_scores(logits, labels)
    sign = 1 if value == PRESENT else -1
    shared = (labels == value).sum(0) < minimum
    values = np.full(len(shared), sign * np.inf)
    for c in np.flatnonzero(~shared):
        known = labels[:, c] != UNKNOWN
        values[c] = sign * rule(sign * logits[known, c],
                                labels[known, c] == value)
    if shared.any():
        known = (labels != UNKNOWN) & shared
        fit = fit or fit_probabilities(logits, labels)
        cut = sign * rule(sign * fit.held_out_aligned[known],
                          labels[known] == value)
        values[shared] = fit.map.unaligned(cut)[shared]
    return Thresholds(values, shared)
