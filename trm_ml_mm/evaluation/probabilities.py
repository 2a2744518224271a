"""From logits to probabilities: losses for missing labels, and few known
labels, give logits whose sigmoid is no frequency.

A logit of class c is first *aligned*, ``scale * logit + bias[c]``, so that
equal values mean the same in every class. The probability is the sigmoid of
that, or a piecewise linear curve through a few points (isotonic regression).
Everything is fitted to known labels alone.
"""
from typing import Dict, NamedTuple, Optional, Sequence

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

# One scale and one bias for all classes; a bias of each class; each of them
# without and with a curve.
METHODS = ('temperature', 'class_bias', 'isotonic', 'class_bias_isotonic')
FOLDS = 5
# Precision (1 / variance) of a class's own bias around the common one: as if
# its labels were known to be off by a factor of e^.5 in their odds.
BIAS_PRECISION = 4.
# A point of the curve counts this many labels more, at the frequency that the
# sigmoid says.
CURVE_PRIOR = 5.


class ProbabilityMap(NamedTuple):
    """What turns logits into probabilities.

    It rises with the logit, so it changes no ranking within a class.
    """

    method: str  # one of METHODS
    scale: float  # above 0
    bias: np.ndarray  # (C,) float64
    # The curve: aligned logits, rising, and logits of probabilities there.
    curve_x: Optional[np.ndarray] = None
    curve_y: Optional[np.ndarray] = None

    def aligned(self, logits: np.ndarray) -> np.ndarray:
        """Logits that mean the same in every class, ``(..., C)``."""
        return self.scale * np.asarray(logits, np.float64) + self.bias

    def unaligned(self, aligned: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`aligned`; infinities stay what they are."""
        return (np.asarray(aligned, np.float64) - self.bias) / self.scale

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probability that a class is present, ``(..., C)`` in (0, 1)."""
        return sigmoid(self.on_curve(self.aligned(logits)))

    def on_curve(self, aligned: np.ndarray) -> np.ndarray:
        """Logits of probabilities, from aligned logits. Beyond the ends of
        the curve no label says more than at its ends."""
        if self.curve_x is None:
            return aligned
        return np.interp(aligned, self.curve_x, self.curve_y)


class ProbabilityFit(NamedTuple):
    """A fitted map, and what says how good it is."""

    map: ProbabilityMap
    # (N, C) float64, NaN where the label is unknown. Each label was left out
    # of the fit that gave its value.
    held_out_aligned: np.ndarray
    held_out_probabilities: np.ndarray
    log_loss: Dict[str, float]  # of held-out labels, by method


def fit_probabilities(logits: np.ndarray, labels: np.ndarray,
                      methods: Sequence[str] = METHODS,
                      seed: int = 0) -> ProbabilityFit:
    """Fit probabilities to known labels.

    The method with the smallest log loss in a cross-validation over images
    is taken.

    * 'temperature': one scale and one bias for all classes (Platt, 1999; with
      Guo et al., arXiv 1706.04599, for the name).
    * 'class_bias': a bias of each class, drawn toward the common one.
    * 'isotonic', 'class_bias_isotonic': the same with isotonic regression
      (Zadrozny and Elkan, 2002) over all classes together. Two changes are
      ours: points are joined by lines, and each point is drawn toward the
      sigmoid, so that no probability is 0 or 1.

    Args:
        logits: ``(N, C)`` floats, or other scores that rise with presence.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        methods: Of :data:`METHODS`, those to compare.
        seed: Deals images out to the folds.

    Raises:
        ValueError: If shapes differ, logits are not finite, no positive or no
            negative is known, there is only one image, or logits do not rise
            with presence.
    """
    logits, labels = check_scores(logits, labels)
    rows, classes = np.nonzero(labels != UNKNOWN)
    known = KnownLabels(logits[rows, classes], labels[rows, classes] ==
                        PRESENT, classes, logits.shape[1])
    check_both_values(known.present)
    if len(logits) < 2:
        raise ValueError('Probabilities cannot be fitted to one image: give '
                         'more labelled images.')
    # Labels of one image are not independent: they stay together.
    folds = np.random.RandomState(seed).permutation(len(logits)) % FOLDS
    folds = folds[rows]
    aligned = {m: np.empty(len(rows)) for m in methods}
    outcome = {m: np.empty(len(rows)) for m in methods}
    for fold in np.unique(folds):
        out = folds == fold
        part = known.where(out)
        for method, fitted in _fit(known.where(~out), methods).items():
            aligned[method][out] = (fitted.scale * part.logits
                                    + fitted.bias[part.classes])
            outcome[method][out] = fitted.on_curve(aligned[method][out])
    losses = {m: log_loss(outcome[m], known.present) for m in methods}
    best = min(methods, key=losses.__getitem__)
    fitted = _fit(known, [best])[best]
    if fitted.scale <= 0:
        raise ValueError(
            'Higher logits do not go with more known positives: the model has '
            'learned nothing that holds for images it was not trained on, or '
            'the labels are not those of the images. Compare its mAP with '
            "that of CLIP without training (zero-shot) in the training's "
            'last table.')
    held_out = np.full((2, *logits.shape), np.nan)
    held_out[0, rows, classes] = aligned[best]
    held_out[1, rows, classes] = sigmoid(outcome[best])
    return ProbabilityFit(fitted, *held_out, losses)


class KnownLabels(NamedTuple):
    """The M known labels of a matrix."""

    logits: np.ndarray  # (M,) float64
    present: np.ndarray  # (M,) bool
    classes: np.ndarray  # (M,) index of the class
    num_classes: int

    def where(self, chosen: np.ndarray) -> 'KnownLabels':
        """Some of them, ``(M,)`` bool."""
        return self._replace(**{name: getattr(self, name)[chosen] for name in
                                ('logits', 'present', 'classes')})


def _fit(known: KnownLabels, methods: Sequence[str]
         ) -> Dict[str, ProbabilityMap]:
    """One map for each method."""
    lines, maps = {}, {}
    for method in methods:
        own = method.startswith('class_bias')
        if own not in lines:
            lines[own] = _fit_line(known, BIAS_PRECISION if own else np.inf)
        scale, bias = lines[own]
        curve = ()
        if method.endswith('isotonic'):
            curve = _fit_curve(scale * known.logits + bias[known.classes],
                               known.present)
        maps[method] = ProbabilityMap(method, scale, bias, *curve)
    return maps


def _fit_line(known: KnownLabels, bias_precision: float):
    """Logistic regression on the logit, by Newton's method.

    Args:
        known: The labels.
        bias_precision: Of a class's own bias around the common one; inf: no
            class has its own.

    Returns:
        Scale, and bias ``(C,)``.
    """
    c, num_classes = known.classes, known.num_classes
    mean, spread = known.logits.mean(), known.logits.std() or 1.
    x, y = (known.logits - mean) / spread, known.present.astype(np.float64)
    # Weights: scale, common bias, own biases. The small numbers keep them
    # finite where a threshold parts the labels without an error.
    precision = np.r_[1e-2, 1e-4, np.full(num_classes,
                                          min(bias_precision, 1e12))]
    rate = (y.sum() + .5) / (len(y) + 1)
    weights = np.r_[0., np.log(rate / (1 - rate)), np.zeros(num_classes)]

    def objective(weights):
        """What is smallest at the fit, and the probabilities."""
        z = weights[0] * x + weights[1] + weights[2:][c]
        small = np.exp(-np.abs(z))
        loss = np.maximum(z, 0) + np.log1p(small) - y * z
        return (loss.sum() + (precision * weights**2).sum() / 2,
                np.where(z > 0, 1., small) / (1 + small))

    def sums(values):
        """Over all labels, and over those of each class: ``(1 + C,)``."""
        each = np.bincount(c, values, num_classes)
        return np.r_[each.sum(), each]

    value, p = objective(weights)
    for _ in range(100):
        curvature = p * (1 - p)
        gradient = precision * weights + np.r_[
            ((p - y) * x).sum(), sums(p - y)]
        hessian = np.diag(precision)
        hessian[0, 0] += (curvature * x * x).sum()
        hessian[0, 1:] = hessian[1:, 0] = sums(curvature * x)
        by_class = sums(curvature)
        hessian[1, 2:] = hessian[2:, 1] = by_class[1:]
        hessian[range(1, 2 + num_classes), range(1, 2 + num_classes)] += (
            by_class)
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-9 * max(value, 1):  # nothing left to gain
            break
        moved, p = objective(weights - step)
        while moved > value and np.abs(step).max() > 1e-9:
            step /= 2
            moved, p = objective(weights - step)
        weights, value = weights - step, moved
    bias = weights[1] + weights[2:] - weights[0] / spread * mean
    if bias_precision == np.inf:
        bias[:] = bias.mean()
    return float(weights[0] / spread), bias


def _fit_curve(aligned: np.ndarray, present: np.ndarray):
    """Isotonic regression as points to join.

    Args:
        aligned: ``(M,)`` aligned logits.
        present: ``(M,)`` bool.

    Returns:
        Aligned logits and logits of probabilities of the points, both rising.
    """
    blocks = isotonic_blocks(aligned, present)
    x, frequency = blocks.x, sigmoid(blocks.x)
    frequency = (blocks.positives + CURVE_PRIOR * frequency) / (
        blocks.count + CURVE_PRIOR)
    frequency = np.maximum.accumulate(frequency)
    # The sigmoid of a far point may round to 0 or 1.
    frequency = np.clip(frequency, 1e-12, 1 - 1e-12)
    return x, np.log(frequency / (1 - frequency))


class Blocks(NamedTuple):
    """Isotonic regression is constant on blocks; each ``(B,)``, rising."""

    x: np.ndarray  # mean score
    positives: np.ndarray
    count: np.ndarray


def isotonic_blocks(scores: np.ndarray, present: np.ndarray) -> Blocks:
    """Isotonic regression of presence on scores, by pooling adjacent
    violators (Ayer et al., 1955).

    Args:
        scores: ``(M,)``.
        present: ``(M,)`` bool.
    """
    values, place, count = np.unique(scores, return_inverse=True,
                                     return_counts=True)
    positives = np.bincount(place, present)
    total = values * count
    while True:
        frequency = positives / count
        # Neighbours whose frequencies fall, or are equal, are one block.
        first = np.flatnonzero(np.r_[True, frequency[1:] > frequency[:-1]])
        if len(first) == len(count):
            return Blocks(total / count, positives, count)
        total, positives, count = (np.add.reduceat(v, first)
                                   for v in (total, positives, count))


def calibration_error(probabilities: np.ndarray, labels: np.ndarray,
                      bins: int = 15) -> float:
    """Expected calibration error over known labels of all classes together.

    Labels are counted in bins of equal width of their probability. In a bin,
    mean probability and frequency of positives differ; the mean of that over
    labels (Naeini et al., 2015, for one class against the rest).

    Args:
        probabilities: ``(N, C)`` in [0, 1]; NaN only where labels are unknown.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        bins: How many.

    Returns:
        In [0, 1]; NaN without a known label.
    """
    known = np.asarray(labels) != UNKNOWN
    p = np.asarray(probabilities, np.float64)[known]
    if not len(p):
        return float('nan')
    present = np.asarray(labels)[known] == PRESENT
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.searchsorted(edges, p, side='right')
    gaps = np.bincount(place, p - present, bins)
    return float(np.abs(gaps).sum() / len(p))


def log_loss(logits: np.ndarray, present: np.ndarray) -> float:
    """Mean log loss of logits, in nats.

    Args:
        logits: Of any shape.
        present: Bool, of the same shape.
    """
    return float(np.mean(np.logaddexp(0, logits) - present * logits))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Without overflow."""
    return np.exp(-np.logaddexp(0, -logits))


def check_scores(scores: np.ndarray, labels: np.ndarray):
    """Scores as float64 and labels as int8, both ``(N, C)``.

    Raises:
        ValueError: If shapes differ, a score is not finite, or a label is
            none of the three values.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(f'scores and labels must both be (N, C), got '
                         f'{scores.shape} and {labels.shape}.')
    if not np.isin(labels, (PRESENT, ABSENT, UNKNOWN)).all():
        raise ValueError(f'Labels must be {PRESENT}, {ABSENT} or {UNKNOWN}.')
    scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        raise ValueError('scores have NaN or infinite values: the model '
                         'diverged; use an earlier checkpoint.')
    return scores, labels.astype(np.int8)


def check_both_values(present: np.ndarray) -> None:
    """Refuse known labels, ``(M,)`` bool, that are all equal.

    Raises:
        ValueError: Says which value is missing.
    """
    for missing, what in ((not present.any(), 'positive'),
                          (present.all(), 'negative')):
        if missing:
            raise ValueError(
                f'No {what} label is known: thresholds and probabilities need '
                'known positives and known negatives.')
