"""Registered metrics: MMPretrain's plumbing around functional.py."""
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

from trm_ml_mm.registry import METRICS

from .functional import (
    average_precision,
    mean_over_classes,
    precision_recall,
    predict,
)


class MultiLabelMetric(BaseMetric):
    """Collects scores and labels of every image, on all ranks.

    Args:
        empty: 'skip' (the number of skipped classes is logged) or 'zero'; see
            :func:`~trm_ml_mm.evaluation.functional.mean_over_classes`.
        prefix: As in MMEngine.
    """

    default_prefix = 'multi-label'

    def __init__(self, empty: str = 'skip', prefix: Optional[str] = None):
        super().__init__(prefix=prefix)
        if empty not in ('skip', 'zero'):
            raise ValueError(f"empty is 'skip' or 'zero', got {empty!r}.")
        self.empty = empty

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep a batch's (scores, logits, targets), ``(B, 3, C)``."""
        scores = torch.stack([s['pred_score'] for s in data_samples])
        logits = scores
        if 'pred_logit' in data_samples[0]:
            logits = torch.stack([s['pred_logit'] for s in data_samples])
        targets = torch.stack([_target(s) for s in data_samples])
        self.results.append(torch.stack([
            scores.float(), logits.float(), targets.to(scores.device).float()
        ], 1).cpu())  # one transfer a batch

    def evaluate(self, size: int) -> Dict[str, float]:
        """Metrics over all ranks' images, the same on every rank.

        MMEngine's own way would write a folder into the current one, and
        take every image's scores apart.

        Args:
            size: Images of the data set; what ranks were padded with beyond
                it is not counted.
        """
        if not self.results:
            raise ValueError(f'{type(self).__name__} has no results: the data '
                             'set is empty, or was not run.')
        parts = gather_object(torch.cat(self.results))
        self.results.clear()
        metrics = None
        if is_main_process():
            values = self.compute_metrics(joined(parts)[:size])
            metrics = {f'{self.prefix}/{k}' if self.prefix else k: v
                       for k, v in values.items()}
        metrics = [metrics]
        broadcast_object_list(metrics)
        return metrics[0]

    def _say_empty(self, targets: Tensor) -> None:
        count = int(((targets == 1).sum(0) == 0).sum())
        if count:
            how = 'left out of' if self.empty == 'skip' else 'counted 0 in'
            print_log(
                f'{count} of {targets.shape[1]} classes have no positive '
                f'here and are {how} the means over classes.',
                logger='current')


def joined(parts: List[Tensor]) -> Tensor:
    """All ranks' rows in the order of the data set: a sampler deals images
    out to ranks in turn."""
    if len({len(part) for part in parts}) == 1:
        return torch.stack(parts, 1).flatten(0, 1)
    return torch.cat(parts)  # dealt otherwise, and then not padded


def _target(sample: dict) -> Tensor:
    if 'gt_score' in sample:
        return sample['gt_score']
    target = torch.zeros_like(sample['pred_score'])
    target[sample['gt_label'].to(target.device)] = 1
    return target


class PerClass(NamedTuple):
    """Figures of every class, each ``(C,)``."""

    AP: Tensor  # in [0, 1]; NaN without positives
    AP_voc12: Tensor
    positives: Tensor  # images with a known positive label
    known: Tensor  # images with a known label


@METRICS.register_module()
class MultiLabelAP(MultiLabelMetric):
    """Mean average precision, in percent, by both definitions.

    ``mAP`` is un-interpolated (scikit-learn's), ``mAP_voc12`` interpolated.
    Ranks by fp32 logits where the head gives them. What each class has is in
    ``per_class`` afterwards, on the main rank.
    """

    per_class: Optional[PerClass] = None

    def compute_metrics(self, results: Tensor) -> Dict[str, float]:
        _, logits, targets = results.unbind(1)
        self._say_empty(targets)
        ap = average_precision(logits, targets)
        ap_voc12 = average_precision(logits, targets, interpolated=True)
        self.per_class = PerClass(ap, ap_voc12, (targets == 1).sum(0),
                                  (targets != -1).sum(0))
        return {
            'mAP': 100 * float(mean_over_classes(ap, self.empty)),
            'mAP_voc12': 100 * float(mean_over_classes(ap_voc12, self.empty)),
        }


@METRICS.register_module()
class MultiLabelF1(MultiLabelMetric):
    """CP, CR, CF1, OP, OR, OF1 in percent, at a threshold and at top-k.

    ``CF1`` is ``2 CP CR / (CP + CR)``; ``CF1_mean`` the mean of per-class F1.
    Two rules of top-k are in use: figures that end in ``_top3`` (for k = 3)
    predict the k best classes of every image, as MMPretrain does; in
    ``_top3_thr`` they must also reach the threshold, as in SST and SARB.

    Args:
        threshold: On sigmoid scores.
        topk: k, or None for no top-k figures.
        empty, prefix: See :class:`MultiLabelMetric`.
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
            # Ranked by logits, cut by scores: sigmoids may tie.
            best = predict(logits, topk=self.topk)
            found[f'_top{self.topk}'] = best
            found[f'_top{self.topk}_thr'] = best & found['']
        return {
            f'{name}{suffix}': 100 * float(value)
            for suffix, predicted in found.items()
            for name, value in precision_recall(predicted, targets,
                                                self.empty)._asdict().items()
        }
