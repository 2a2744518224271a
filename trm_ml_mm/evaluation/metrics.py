"""Registered metrics: MMPretrain's plumbing around functional.py."""
import logging
from typing import Dict, List, NamedTuple, Optional, Sequence

import torch
from mmengine.dist import (
    broadcast_object_list,
    gather_object,
    is_main_process,
)
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN
from trm_ml_mm.registry import METRICS
from trm_ml_mm.utils.checks import check_choice

from .functional import (
    average_precision,
    mean_over_classes,
    precision_recall,
    predict,
)


class MultiLabelMetric(BaseMetric):
    """Collects scores and labels of all images on all ranks.

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

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the (scores, logits, targets) of a batch, ``(B, 3, C)``."""
        scores = torch.stack([s['pred_score'] for s in data_samples])
        logits = scores
        if 'pred_logit' in data_samples[0]:
            logits = torch.stack([s['pred_logit'] for s in data_samples])
        targets = torch.stack([_target(s) for s in data_samples])
        self.results.append(torch.stack([
            scores.float(), logits.float(), targets.to(scores.device).float()
        ], 1).cpu())  # one transfer a batch

    def evaluate(self, size: int) -> Dict[str, float]:
        """Metrics over the images of all ranks, the same on every rank.

        (MMEngine's own method writes a folder into the current directory and
        handles every image's scores one by one.)

        Args:
            size: Number of images in the data set. Samples that pad the ranks
                beyond it are not counted.
        """
        if not self.results:
            raise ValueError(f'{type(self).__name__} has no results: the data '
                             'set is empty, or was not run.')
        gathered = gather_object(torch.cat(self.results))
        self.results.clear()
        metrics = None
        if is_main_process():
            values = self.compute_metrics(
                with_own_logits(in_data_order(gathered)[:size]))
            metrics = {f'{self.prefix}/{k}' if self.prefix else k: v
                       for k, v in values.items()}
        metrics = [metrics]
        broadcast_object_list(metrics)
        return metrics[0]

    def _log_empty_classes(self, targets: Tensor) -> None:
        count = int(((targets == PRESENT).sum(0) == 0).sum())
        if count:
            how = 'left out of' if self.empty == 'skip' else 'counted as 0 in'
            print_log(
                f'{count} of {targets.shape[1]} classes have no positive '
                f'here and are {how} the means over classes.',
                logger='current')


def with_own_logits(results: Tensor) -> Tensor:
    """Replace logits that do not belong to the scores by the scores.

    Whoever merges predictions and changes ``pred_score`` alone, as MMPretrain's
    ``AverageClsScoreTTA`` does, leaves the ``pred_logit`` of one of them.

    Args:
        results: ``(N, 3, C)`` of scores, logits, targets.
    """
    scores, logits, targets = results.unbind(1)
    for belong in (logits.sigmoid(), logits):  # cosines are their own logits
        if torch.allclose(belong, scores, atol=1e-3, equal_nan=True):
            return results
    print_log('pred_logit of the predictions does not belong to their '
              'pred_score: ranked by pred_score.', logger='current',
              level=logging.WARNING)
    return torch.stack([scores, scores, targets], 1)


def in_data_order(gathered: List[Tensor]) -> Tensor:
    """The rows of all ranks in the order of the data set: the sampler deals
    images out to the ranks in turn."""
    if len({len(rows) for rows in gathered}) == 1:
        return torch.stack(gathered, 1).flatten(0, 1)
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


@METRICS.register_module()
class MultiLabelAP(MultiLabelMetric):
    """Mean average precision, in percent, by both definitions.

    ``mAP`` is un-interpolated (scikit-learn's), ``mAP_voc12`` interpolated.
    Images are ranked by fp32 logits if the head gives them. Afterwards
    ``per_class`` has the metrics of each class, on the main rank.
    """

    per_class: Optional[PerClass] = None

    def compute_metrics(self, results: Tensor) -> Dict[str, float]:
        _, logits, targets = results.unbind(1)
        self._log_empty_classes(targets)
        ap = average_precision(logits, targets)
        ap_voc12 = average_precision(logits, targets, interpolated=True)
        self.per_class = PerClass(ap, ap_voc12,
                                  (targets == PRESENT).sum(0),
                                  (targets != UNKNOWN).sum(0))
        return {
            'mAP': 100 * float(mean_over_classes(ap, self.empty)),
            'mAP_voc12': 100 * float(mean_over_classes(ap_voc12, self.empty)),
        }


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
        super().__init__(empty, prefix)
        self.threshold = threshold
        self.topk = topk

    def compute_metrics(self, results: Tensor) -> Dict[str, float]:
        scores, logits, targets = results.unbind(1)
        found = {'': predict(scores, self.threshold)}
        if self.topk is not None:
            # Rank by logits, because sigmoids may tie; cut by scores.
            best = predict(logits, topk=self.topk)
            found[f'_top{self.topk}'] = best
            found[f'_top{self.topk}_thr'] = best & found['']
        return {
            f'{name}{suffix}': 100 * float(value)
            for suffix, predicted in found.items()
            for name, value in precision_recall(predicted, targets,
                                                self.empty)._asdict().items()
        }
