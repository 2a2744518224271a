"""Multi-label metrics as pure functions of tensors.

Scores and targets are ``(N, C)``: N images, C classes. Targets are in
{PRESENT, ABSENT, UNKNOWN}; unknown labels are never counted.
"""
from concurrent.futures import ThreadPoolExecutor
from typing import List, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from trm_ml_mm.labels import PRESENT, UNKNOWN
from trm_ml_mm.utils.precision import as_double, full_precision

_DIVERGED = ('scores have NaN or infinite values: the model diverged; lower '
             'the learning rate.')


def average_precision(scores: Tensor,
                      targets: Tensor,
                      interpolated: bool = False) -> Tensor:
    """Average precision of every class.

    Two definitions are in use. Un-interpolated (scikit-learn, torchmetrics,
    DualCoOp, SCPNet): ``sum_n (R_n - R_{n-1}) P_n`` over distinct thresholds.
    Interpolated (VOC 2012; SST, SARB, HST): P_n is replaced by the largest
    precision at any recall of at least R_n, so it is never smaller.

    Args:
        scores: ``(N, C)`` floats, finite. Logits rank better than sigmoids,
            which tie where they saturate. Tied images enter together.
        targets: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        interpolated: Which definition.

    Returns:
        ``(C,)`` float64 on the CPU, in [0, 1]; NaN for a class without
        positives.

    Raises:
        ValueError: If the shapes differ, or scores are not finite.
    """
    scores, targets = _check(scores, targets)
    scores, targets = (value.cpu().numpy()
                       for value in (scores, targets.to(torch.int8)))

    def ap_of(own: np.ndarray, labels: np.ndarray) -> float:
        known = labels != UNKNOWN
        return class_ap(precision_at_positives(
            own[known], labels[known] == PRESENT), interpolated)

    def ap_of_columns(first: int) -> List[float]:
        # Eight adjacent columns are copied to rows together.
        columns = slice(first, first + 8)
        return list(map(ap_of, np.ascontiguousarray(scores[:, columns].T),
                        np.ascontiguousarray(targets[:, columns].T)))

    # NumPy releases the interpreter's lock while it copies and sorts.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        values = sum(pool.map(ap_of_columns,
                              range(0, scores.shape[1], 8)), [])
    return torch.tensor(values, dtype=torch.double)


def precision_at_positives(scores: np.ndarray,
                           positive: np.ndarray) -> np.ndarray:
    """Precision of one class where recall rises, which is at positives only.

    Negatives below all positives never matter.

    Args:
        scores: ``(K,)`` of its K known labels.
        positive: ``(K,)`` bool, P of them true.

    Returns:
        ``(P,)`` float64, lowest positive first.
    """
    negative = scores[~positive]
    positive = np.sort(scores[positive])
    if not len(positive):
        return np.zeros(0)
    negative = negative[negative >= positive[0]]
    hits = len(positive) - np.searchsorted(positive, positive)
    return hits / (hits + _count_at_least(negative, positive))


def class_ap(precision: np.ndarray, interpolated: bool = False) -> float:
    """:func:`average_precision` of one class; NaN without positives.

    Args:
        precision: Of :func:`precision_at_positives`.
        interpolated: Which definition.
    """
    if not len(precision):
        return float('nan')
    if interpolated:  # lower scores have a larger recall
        precision = np.maximum.accumulate(precision)
    return precision.mean()


def _count_at_least(values: np.ndarray, thresholds: np.ndarray,
                    bins: int = 1 << 14) -> np.ndarray:
    """For each of the ascending thresholds, how many values are at least as
    large. No value is smaller than the first threshold.

    Values are counted in bins, and sorted only in bins that hold a threshold:
    sorting all of them would take most of the time of the whole metric.
    """
    with np.errstate(over='ignore', divide='ignore'):
        scale = (bins - 1) / (thresholds[-1] - thresholds[0])
    if len(values) < bins or not 0 < scale < np.inf:
        return len(values) - np.searchsorted(np.sort(values), thresholds)

    def binned(x):  # rounding keeps the order, and equals equal
        return np.minimum((x - thresholds[0]) * scale,
                          bins - 1).astype(np.int16)

    where, own = binned(values), binned(thresholds)
    counts = np.bincount(where, minlength=bins)
    higher = len(values) - counts.cumsum()[own]
    shared = np.zeros(bins, bool)
    shared[own] = True
    rest = np.sort(np.compress(shared[where], values))
    return higher + np.searchsorted(binned(rest), own, 'right') - (
        np.searchsorted(rest, thresholds))


def mean_over_classes(values: Tensor, empty: str = 'skip') -> Tensor:
    """Mean of per-class values, where NaN marks a class without positives.

    Args:
        values: ``(C,)``.
        empty: 'skip' leaves such classes out; 'zero' counts them as 0, as the
            code of most papers does.
    """
    if empty == 'zero':
        return values.nan_to_num(0.).mean()
    return values.nanmean()


class PrecisionRecall(NamedTuple):
    """The field's six metrics, and the second definition of CF1."""

    CP: Tensor
    CR: Tensor
    CF1: Tensor  # 2 CP CR / (CP + CR), as SST, SARB, HST
    OP: Tensor
    OR: Tensor
    OF1: Tensor
    CF1_mean: Tensor  # mean of per-class F1, as DualCoOp, MMPretrain


def predict(scores: Tensor,
            threshold: Optional[float] = None,
            topk: Optional[int] = None) -> Tensor:
    """Which classes are predicted, ``(N, C)`` bool.

    Args:
        scores: ``(N, C)``.
        threshold: The score is at least this.
        topk: The class is among the k best of its image. If ``threshold`` is
            given too, both must hold (as in SST's and SARB's top-3);
            MMPretrain's top-k has no threshold.

    Raises:
        ValueError: If a score is NaN, which reaches no threshold.
    """
    if scores.isnan().any():
        raise ValueError(_DIVERGED)
    chosen = torch.ones_like(scores, dtype=torch.bool)
    if threshold is not None:
        chosen &= scores >= threshold
    if topk is not None:
        best = scores.topk(min(topk, scores.shape[1]), dim=1).indices
        chosen &= torch.zeros_like(chosen).scatter_(1, best, True)
    return chosen


def precision_recall(predicted: Tensor,
                     targets: Tensor,
                     empty: str = 'skip') -> PrecisionRecall:
    """Per-class and overall precision, recall and F1, in [0, 1].

    Args:
        predicted: ``(N, C)`` bool.
        targets: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        empty: How classes without positives enter the per-class means; see
            :func:`mean_over_classes`. A class that is never predicted has
            precision 0.
    """
    known, positive = targets != UNKNOWN, targets == PRESENT
    return precision_recall_of(LabelHits(
        (predicted & positive).sum(0), (predicted & known).sum(0),
        positive.sum(0), (known & ~positive).sum(0)), empty)


class LabelHits(NamedTuple):
    """What was predicted of the known labels of each class, each ``(C,)``."""

    hits: Tensor  # positives that were predicted
    claims: Tensor  # labels that were predicted
    positives: Tensor
    negatives: Tensor


def precision_recall_of(counts: LabelHits,
                        empty: str = 'skip') -> PrecisionRecall:
    """:func:`precision_recall` of counts."""
    hits, claims, truths = map(as_double, counts[:3])
    nan = torch.full_like(truths, float('nan'))

    def per_class(value):
        return mean_over_classes(torch.where(truths > 0, value, nan), empty)

    cp = per_class(hits / claims.clamp(min=1))
    cr = per_class(hits / truths.clamp(min=1))
    op = hits.sum() / claims.sum().clamp(min=1)
    overall = hits.sum() / truths.sum().clamp(min=1)
    mean_f1 = per_class(2 * hits / (claims + truths).clamp(min=1))
    return PrecisionRecall(cp, cr, _f1(cp, cr), op, overall,
                           _f1(op, overall), mean_f1)


def _f1(precision: Tensor, recall: Tensor) -> Tensor:
    total = precision + recall
    return torch.where(total > 0, 2 * precision * recall / total, total)


def _check(scores: Tensor, targets: Tensor):
    scores, targets = torch.as_tensor(scores), torch.as_tensor(targets)
    if scores.shape != targets.shape or scores.dim() != 2:
        raise ValueError('scores and targets must both be (N, C), got '
                         f'{tuple(scores.shape)} and '
                         f'{tuple(targets.shape)}.')
    scores = (full_precision(scores) if scores.is_floating_point() else
              as_double(scores))
    check_finite(not scores.numel() or bool(
        torch.stack(scores.aminmax()).isfinite().all()))
    return scores, targets


def check_finite(finite: bool) -> None:
    """Refuse scores that are not all finite.

    Raises:
        ValueError: Says what happened.
    """
    if not finite:
        raise ValueError(_DIVERGED)
