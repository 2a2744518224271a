"""The metrics of VAW: attributes of objects, most of them unlabelled."""
from typing import Dict, Optional

from torch import Tensor

from trm_ml_mm.registry import METRICS
from trm_ml_mm.utils.precision import as_double

from .functional import LabelHits, precision_recall_of, predict
from .metrics import MultiLabelMetric, ThresholdCounts


@METRICS.register_module()
class AttributeMetrics(MultiLabelMetric):
    """mR@15, F1@15 and mA over known labels, in percent (Pham et al., "Learning
    to Predict Visual Attributes in the Wild", CVPR 2021; its mAP is that of
    :class:`~trm_ml_mm.evaluation.MultiLabelAP`).

    * ``mR@15``: the 15 best attributes of each object are predicted; mean over
      classes of the recall of their known positives.
    * ``F1@15``: with the same predictions, F1 over the known labels of all
      classes together.
    * ``mA``: a score above 0.5 is predicted; mean over classes of
      (recall of positives + recall of negatives) / 2.

    If the data set has groups of classes (``metainfo['groups']``), each metric
    has ``<metric>_<group>`` too. A class without a known positive (for mA: or
    without a known negative) is left out of the means. (The published evaluator
    then gives -1 for the whole group; VAW's test set has no such class.)

    Args:
        topk: 15, or another number.
        threshold: On sigmoid scores.
        prefix: As in MMEngine.
    """

    def __init__(self, topk: int = 15, threshold: float = 0.5,
                 prefix: Optional[str] = None):
        self.topk, self.threshold = topk, threshold
        super().__init__('skip', prefix)

    def reset(self) -> None:
        self.above = ThresholdCounts()
        self.best = dict(logits=ThresholdCounts(), scores=ThresholdCounts())

    def take(self, rows: Tensor) -> None:
        scores, logits, targets = rows.unbind(1)
        predict(scores, self.threshold)  # refuses NaN
        self.above.add(scores > self.threshold, targets)
        for name, ranked in (('logits', logits), ('scores', scores)):
            self.best[name].add(predict(ranked, topk=self.topk), targets)

    def compute(self) -> Dict[str, float]:
        by = 'logits' if self.own_logits() else 'scores'
        best = self.best[by].of_all_ranks()
        above = self.above.of_all_ranks()
        values = {}
        groups = self.group_members(len(above.hits))
        for suffix, members in (('', slice(None)), *(
                (f'_{name}', chosen) for name, chosen in groups.items())):
            top = precision_recall_of(LabelHits(*(c[members] for c in best)))
            for name, value in (
                    (f'mR@{self.topk}', top.CR), (f'F1@{self.topk}', top.OF1),
                    ('mA', balanced_accuracy(
                        LabelHits(*(c[members] for c in above))).nanmean())):
                values[name + suffix] = 100 * float(value)
        return values


def balanced_accuracy(counts: LabelHits) -> Tensor:
    """Mean of the recall of positives and of negatives, ``(C,)``; NaN for a
    class that lacks either."""
    hits, claims, positives, negatives = map(as_double, counts)
    right = negatives - (claims - hits)
    return (hits / positives + right / negatives) / 2  # 0 / 0 is NaN
