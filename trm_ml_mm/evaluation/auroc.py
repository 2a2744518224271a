"""Area under the ROC curve, as CheXpert is measured."""
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from trm_ml_mm.registry import METRICS

from .metrics import MEMORY, KnownLabelMetric


def class_auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of one class: the ratio of pairs of a positive
    and a negative in which the positive has the higher score; a tie counts half
    (Mann and Whitney, 1947).

    Args:
        scores: ``(K,)`` of its K known labels.
        positive: ``(K,)`` bool.

    Returns:
        In [0, 1]; NaN without a positive or without a negative.
    """
    negative = np.sort(scores[~positive])
    positive = scores[positive]
    if not len(positive) or not len(negative):
        return float('nan')
    below = np.searchsorted(negative, positive)
    not_above = np.searchsorted(negative, positive, 'right')
    pairs = len(positive) * len(negative)
    return (int(below.sum()) + int(not_above.sum())) / 2 / pairs


@METRICS.register_module()
class MultiLabelAUROC(KnownLabelMetric):
    """Mean area under the ROC curve over known labels, in percent.

    ``AUROC`` is the mean over ``classes`` that have a known positive and a
    known negative. ``AUROC_<class>`` is that of each named class. Afterwards
    ``per_class_auroc`` has every class, on the main rank.

    Args:
        classes: Names of the classes to average; None: all.
        prefix: As in MMEngine.
        max_memory: See
            :class:`~trm_ml_mm.evaluation.metrics.KnownLabelMetric`.

    Raises:
        ValueError: If the data set has no class of such a name.
    """

    per_class_auroc: Optional[Tensor] = None

    def __init__(self, classes: Optional[Sequence[str]] = None,
                 prefix: Optional[str] = None, max_memory: int = MEMORY):
        self.classes = None if classes is None else list(classes)
        super().__init__('skip', prefix, max_memory)

    def compute(self) -> Optional[Dict[str, float]]:
        found = self.of_every_class(class_auroc)
        if not is_main_process():
            return None
        self.per_class_auroc = area = torch.tensor(found, dtype=torch.double)
        chosen = self._numbers()
        lacking = int(area[chosen].isnan().sum())
        if lacking:
            print_log(f'{lacking} of {len(chosen)} classes have no known '
                      'positive or no known negative here and are left out of '
                      'the mean AUROC.', logger='current')
        values = dict(AUROC=100 * float(area[chosen].nanmean()))
        for name, c in zip(self.classes or (), chosen):
            values[f'AUROC_{name}'] = 100 * float(area[c])
        return values

    def _numbers(self) -> List[int]:
        names = list((self.dataset_meta or {}).get('classes') or ())
        if self.classes is None:
            return list(range(len(self.per_class_auroc)))
        for name in self.classes:
            if name not in names:
                raise ValueError(f'MultiLabelAUROC averages the class "{name}",'
                                 ' and the data set has no such class.')
        return [names.index(name) for name in self.classes]
