"""Registered metrics: MMPretrain's plumbing around functional.py."""
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    is_main_process,
)
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from trm_ml_mm.labels import ABSENT, PRESENT
from trm_ml_mm.registry import METRICS
from trm_ml_mm.utils.checks import check_choice

from .entries import KnownEntries
from .functional import (
    LabelHits,
    check_finite,
    class_ap,
    mean_over_classes,
    precision_at_positives,
    precision_recall_of,
    predict,
)

MEMORY = 1 << 30  # bytes of scores that a rank keeps in memory


class MultiLabelMetric(BaseMetric):
    """Collects scores and labels of all images on all ranks, batch by batch.

    A subclass implements :meth:`take`, :meth:`compute` and :meth:`reset`.

    Args:
        empty: 'skip' (and log how many classes were skipped) or 'zero'; see
            :func:`~trm_ml_mm.evaluation.functional.mean_over_classes`.
        prefix: As in MMEngine.

    Raises:
        ValueError: If ``empty`` is neither.
    """

    default_prefix = 'multi-label'

    def __init__(self, empty: str = 'skip', prefix: Optional[str] = None):
        super().__init__(prefix=prefix)
        check_choice(('skip', 'zero'), empty=empty)
        self.empty = empty
        self._restart()

    def take(self, rows: Tensor) -> None:
        """Take in a batch: ``(B, 3, C)`` fp32 of scores, logits, labels."""
        raise NotImplementedError

    def compute(self) -> Optional[Dict[str, float]]:
        """Metrics over all ranks, on the main rank. Called on every rank."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget what was taken in."""
        raise NotImplementedError

    def compute_metrics(self, results: list) -> dict:
        """Not used: see :meth:`compute`."""
        raise NotImplementedError

    def _restart(self) -> None:
        self.count = 0  # images of this rank
        # The last batch, which may have padding.
        self.held: Optional[Tensor] = None
        self.belongs = [True, True]  # logits to scores; see own_logits()
        self.reset()

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Take in a batch, one later: the last one may have to be cut."""
        scores = torch.stack([s['pred_score'] for s in data_samples])
        logits = scores
        if 'pred_logit' in data_samples[0]:
            logits = torch.stack([s['pred_logit'] for s in data_samples])
        targets = torch.stack([_target(s) for s in data_samples])
        rows = torch.stack([
            scores.float(), logits.float(), targets.to(scores.device).float()
        ], 1).cpu()  # one transfer a batch
        if self.held is not None:
            self._take(self.held)
        self.held = rows
        self.count += len(rows)

    def _take(self, rows: Tensor) -> None:
        scores, logits = rows[:, 0], rows[:, 1]
        # Cosines are their own logits.
        for i, own in enumerate((logits.sigmoid(), logits)):
            self.belongs[i] = self.belongs[i] and nearly_equal(own, scores)
        self.take(rows)

    def evaluate(self, size: int) -> Dict[str, float]:
        """Metrics over the images of all ranks, the same on every rank.

        (MMEngine's own method writes a folder into the current directory and
        handles every image's scores one by one.)

        Args:
            size: Number of images in the data set. Samples that pad the ranks
                beyond it are not counted.

        Raises:
            ValueError: If there are no results, or ranks were padded with more
                than a batch.
        """
        if not self.count:
            raise ValueError(f'{type(self).__name__} has no results: the data '
                             'set is empty, or was not run.')
        try:
            kept = rows_to_keep(all_gather_object(self.count), get_rank(), size)
            last = kept - self.count + len(self.held)
            if last < 0:
                raise ValueError(
                    f'The sampler gives this rank {self.count - kept} images '
                    'beyond the data set, more than a batch of '
                    f'{len(self.held)}: take DefaultSampler.')
            if last:
                self._take(self.held[:last])
            values = self.compute()
        finally:
            self._restart()
        metrics = [None]
        if is_main_process():
            metrics = [{f'{self.prefix}/{k}' if self.prefix else k: v
                        for k, v in values.items()}]
        broadcast_object_list(metrics)
        return metrics[0]

    def own_logits(self) -> bool:
        """Whether the logits belong to the scores, on all ranks.

        Whoever merges predictions and changes ``pred_score`` alone, as
        MMPretrain's ``AverageClsScoreTTA`` does, leaves the ``pred_logit`` of
        one of them.
        """
        found = all_gather_object(self.belongs)
        if all(one[0] for one in found) or all(one[1] for one in found):
            return True
        print_log('pred_logit of the predictions does not belong to their '
                  'pred_score: ranked by pred_score.', logger='current',
                  level=logging.WARNING)
        return False

    def group_members(self, classes: int) -> Dict[str, Tensor]:
        """The groups of classes of the data set, if it has any: name ->
        ``(C,)`` bool.

        Raises:
            ValueError: If a group has a class that the data set has not.
        """
        meta = self.dataset_meta or {}
        names = {name: c for c, name in enumerate(meta.get('classes') or ())}
        found = {}
        for group, members in (meta.get('groups') or {}).items():
            found[group] = torch.zeros(classes, dtype=torch.bool)
            for one in members:
                number = names.get(one, one)
                if not isinstance(number, Integral) or not (
                        0 <= number < classes):
                    raise ValueError(
                        f'The group "{group}" of the data set has the class '
                        f'{one!r}, which is none of its {classes} classes.')
                found[group][number] = True
        return found


class KnownLabelMetric(MultiLabelMetric):
    """Keeps the scores of known labels until their class is measured, in memory
    or, if they are more, in temporary files.

    Args:
        empty: See :class:`MultiLabelMetric`.
        prefix: See :class:`MultiLabelMetric`.
        max_memory: Bytes of scores that each rank keeps in memory.
    """

    def __init__(self, empty: str = 'skip', prefix: Optional[str] = None,
                 max_memory: int = MEMORY):
        self.entries = KnownEntries(max_memory)
        super().__init__(empty, prefix)

    def reset(self) -> None:
        self.entries.close()
        self.finite = [True, True]  # scores, logits

    def take(self, rows: Tensor) -> None:
        for i in range(2):
            self.finite[i] = self.finite[i] and bool(
                torch.stack(rows[:, i].aminmax()).isfinite().all())
        self.entries.add(rows)

    def of_every_class(self, measure: Callable[[np.ndarray, np.ndarray], Any]
                       ) -> list:
        """``measure(scores, positive)`` of the known labels of every class, on
        the main rank. Called on every rank.

        Raises:
            ValueError: If scores are not finite.
        """
        by_logits = self.own_logits()
        check_finite(all(one[by_logits]
                         for one in all_gather_object(self.finite)))
        found = []
        # NumPy releases the interpreter's lock while it sorts.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for entries in self.entries.blocks():
                if entries is not None:
                    found += pool.map(
                        lambda c, own=entries: measure(*own.of_class(
                            c, by_logits)), range(len(entries.offsets) - 1))
        return found


def nearly_equal(values: Tensor, others: Tensor) -> bool:
    """Within 1e-3, or 1e-5 of the value; NaN equals NaN."""
    # One difference decides the usual case, at a tenth of the time.
    return bool((values - others).abs_().max() <= 1e-3) or torch.allclose(
        values, others, atol=1e-3, equal_nan=True)


def rows_to_keep(counts: Sequence[int], rank: int, size: int) -> int:
    """How many of a rank's images, the first ones, are of the data set.

    Args:
        counts: Images of each rank. Equal ones: the sampler dealt images out in
            turn, and padded. Others: one part after the other.
        rank: Which rank.
        size: Images of the data set.
    """
    if len(set(counts)) == 1:
        return min(max(-(-(size - rank) // len(counts)), 0), counts[rank])
    return min(max(size - sum(counts[:rank]), 0), counts[rank])


def in_data_order(gathered: List[Tensor]) -> Tensor:
    """The rows of all ranks in the order of the data set: the sampler deals
    images out to the ranks in turn."""
    counts = [len(rows) for rows in gathered]
    if counts[0] - counts[-1] <= 1 and counts == sorted(counts, reverse=True):
        rows = gathered[0].new_empty(sum(counts), *gathered[0].shape[1:])
        for rank, own in enumerate(gathered):
            rows[rank::len(gathered)] = own
        return rows
    return torch.cat(gathered)  # another sampler, which does not pad


def _target(sample: dict) -> Tensor:
    if 'gt_score' in sample:
        return sample['gt_score']
    target = torch.full_like(sample['pred_score'], ABSENT)
    target[sample['gt_label'].to(target.device)] = PRESENT
    return target


class PerClass(NamedTuple):
    """Metrics of every class, each ``(C,)``."""

    AP: Tensor  # in [0, 1]; NaN without positives
    AP_voc12: Tensor
    positives: Tensor  # images with a known positive label
    known: Tensor  # images with a known label

    def without_unscored(self, scored: str) -> 'PerClass':
        """No AP for classes without a known negative, if 'both' are needed."""
        if scored == 'positive':
            return self
        lacking = self.positives == self.known
        nan = torch.full_like(self.AP, float('nan'))
        return self._replace(AP=torch.where(lacking, nan, self.AP),
                             AP_voc12=torch.where(lacking, nan, self.AP_voc12))


@METRICS.register_module()
class MultiLabelAP(KnownLabelMetric):
    """Mean average precision over known labels, in percent, by both
    definitions.

    ``mAP`` is un-interpolated (scikit-learn's), ``mAP_voc12`` interpolated.
    Images are ranked by fp32 logits if the head gives them. If the data set
    has groups of classes (``metainfo['groups']``), each has an ``mAP_<group>``.
    Afterwards ``per_class`` has the metrics of each class, on the main rank.

    Args:
        scored: Which classes are scored: 'positive', those with a known
            positive; or 'both', those with a known positive and a known
            negative, as CSL does (arXiv 2110.10955).
        max_memory: See :class:`KnownLabelMetric`.
        empty: See :class:`MultiLabelMetric`.
        prefix: See :class:`MultiLabelMetric`.

    Raises:
        ValueError: If ``scored`` or ``empty`` is none of these.
    """

    per_class: Optional[PerClass] = None

    def __init__(self, empty: str = 'skip', prefix: Optional[str] = None,
                 scored: str = 'positive', max_memory: int = MEMORY):
        check_choice(('positive', 'both'), scored=scored)
        self.scored = scored
        super().__init__(empty, prefix, max_memory)

    @property
    def lacking(self) -> str:
        """What a class lacks that is not scored."""
        return 'no known positive' + ' or no known negative' * (
            self.scored == 'both')

    def compute(self) -> Optional[Dict[str, float]]:
        rows = self.of_every_class(ap_and_counts)
        if not is_main_process():
            return None
        kinds = torch.double, torch.double, torch.long, torch.long
        table = PerClass(*(torch.tensor(column, dtype=kind)
                           for column, kind in zip(zip(*rows), kinds)))
        self.per_class = table = table.without_unscored(self.scored)
        self._log_empty_classes(table.AP)
        values = {}
        groups = self.group_members(len(table.AP))
        for suffix, members in (('', slice(None)), *(
                (f'_{name}', chosen) for name, chosen in groups.items())):
            for name in ('AP', 'AP_voc12'):
                if name == 'AP' or not suffix:
                    values[f'm{name}{suffix}'] = 100 * float(mean_over_classes(
                        getattr(table, name)[members], self.empty))
        return values

    def _log_empty_classes(self, ap: Tensor) -> None:
        count = int(ap.isnan().sum())
        if count:
            how = 'left out of' if self.empty == 'skip' else 'counted as 0 in'
            print_log(f'{count} of {len(ap)} classes have {self.lacking} here '
                      f'and are {how} the means over classes.',
                      logger='current')


def ap_and_counts(scores: np.ndarray, positive: np.ndarray) -> tuple:
    """AP, interpolated AP, positives and known labels of one class."""
    precision = precision_at_positives(scores, positive)
    return (class_ap(precision), class_ap(precision, True),
            len(precision), len(positive))


class ThresholdCounts:
    """Known labels that were predicted, by one rule, class by class.

    The counts are exact, so their sums do not depend on batches or ranks.
    """

    def __init__(self):
        self.counts: Optional[Tensor] = None  # (4, C)

    def add(self, predicted: Tensor, targets: Tensor) -> None:
        """Take ``(B, C)`` bool and labels."""
        positive, negative = targets == PRESENT, targets == ABSENT
        counts = torch.stack([(predicted & positive).sum(0),
                              (predicted & negative).sum(0),
                              positive.sum(0), negative.sum(0)])
        self.counts = counts if self.counts is None else self.counts + counts

    def of_all_ranks(self) -> LabelHits:
        """Over all ranks, on every rank."""
        hits, false, positives, negatives = sum(
            one for one in all_gather_object(self.counts) if one is not None)
        return LabelHits(hits, hits + false, positives, negatives)


@METRICS.register_module()
class MultiLabelF1(MultiLabelMetric):
    """CP, CR, CF1, OP, OR, OF1 in percent, at a threshold and at top-k.

    ``CF1`` is ``2 CP CR / (CP + CR)``; ``CF1_mean`` is the mean of per-class
    F1. Two top-k rules are in use. Metrics that end in ``_top3`` (for k = 3)
    predict the k best classes of each image, as MMPretrain does. Metrics that
    end in ``_top3_thr`` predict those of them that reach the threshold, as SST
    and SARB do.

    Args:
        threshold: On sigmoid scores.
        topk: k, or None for no top-k metrics.
        empty: See :class:`MultiLabelMetric`.
        prefix: See :class:`MultiLabelMetric`.
    """

    def __init__(self,
                 threshold: float = 0.5,
                 topk: Optional[int] = 3,
                 empty: str = 'skip',
                 prefix: Optional[str] = None):
        self.threshold = threshold
        self.topk = topk
        super().__init__(empty, prefix)

    def reset(self) -> None:
        self.counts = defaultdict(ThresholdCounts)

    def take(self, rows: Tensor) -> None:
        scores, logits, targets = rows.unbind(1)
        found = {'': predict(scores, self.threshold)}
        if self.topk is not None:
            # Rank by logits, because sigmoids may tie; cut by scores. Whether
            # the logits belong to the scores is known at the end alone.
            for rank_by, ranked in (('logits', logits), ('scores', scores)):
                best = predict(ranked, topk=self.topk)
                found[f'_top{self.topk}', rank_by] = best
                found[f'_top{self.topk}_thr', rank_by] = best & found['']
        for key, predicted in found.items():
            self.counts[key].add(predicted, targets)

    def compute(self) -> Dict[str, float]:
        keys = {'': ''}
        if self.topk is not None:
            by = 'logits' if self.own_logits() else 'scores'
            for suffix in (f'_top{self.topk}', f'_top{self.topk}_thr'):
                keys[suffix] = suffix, by
        return {
            f'{name}{suffix}': 100 * float(value)
            for suffix, key in keys.items()
            for name, value in precision_recall_of(
                self.counts[key].of_all_ranks(), self.empty)._asdict().items()
        }
