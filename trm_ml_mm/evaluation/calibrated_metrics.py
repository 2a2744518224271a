"""Metrics at the thresholds of a calibration."""
from typing import Dict, List, Optional, Sequence

import torch
from mmengine.dist import gather_object, is_main_process
from torch import Tensor

from trm_ml_mm.registry import METRICS

from .calibration import Calibration
from .functional import precision_recall
from .metrics import MultiLabelMetric, in_data_order
from .probabilities import calibration_error, sigmoid


@METRICS.register_module()
class CalibratedMetrics(MultiLabelMetric):
    """CP, CR, CF1, OP, OR, OF1 at calibrated thresholds, in percent.

    ``ECE`` and ``ECE_sigmoid`` are the expected calibration errors of
    calibrated probabilities and of the sigmoids of logits, in percent. A test
    of a calibrated checkpoint has this metric without being asked.

    Args:
        calibration: Of :meth:`Calibration.to_dict`.
        where: What holds it, for error messages.
        empty: See :class:`~trm_ml_mm.evaluation.MultiLabelF1`.
        prefix: See :class:`~trm_ml_mm.evaluation.MultiLabelF1`.

    Raises:
        ValueError: If the calibration is damaged.
    """

    default_prefix = 'calibrated'

    def __init__(self, calibration: dict, where: str = 'The calibration',
                 empty: str = 'skip', prefix: Optional[str] = None):
        super().__init__(empty, prefix)
        self.content, self.where = calibration, where
        self.calibration = Calibration.from_dict(calibration, where)

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """As of the other metrics; thresholds are on logits, so a head that
        gives scores alone gets theirs."""
        super().process(data_batch, [
            sample if 'pred_logit' in sample else dict(
                sample, pred_logit=torch.logit(sample['pred_score'].float(),
                                               eps=1e-6))
            for sample in data_samples])

    def reset(self) -> None:
        self.rows: List[Tensor] = []

    def take(self, rows: Tensor) -> None:
        self.rows.append(rows)

    def compute(self) -> Optional[Dict[str, float]]:
        """Raises ValueError if the data has other classes."""
        column = 1 if self.own_logits() else 0
        gathered = gather_object(torch.cat(self.rows))
        if not is_main_process():
            return None
        results = in_data_order(gathered)
        classes = (self.dataset_meta or {}).get('classes')
        if classes is not None:
            Calibration.from_dict(self.content, self.where, classes)
        logits, targets = results[:, column], results[:, 2]
        logits, labels = logits.numpy(), targets.numpy()
        found = precision_recall(
            torch.from_numpy(self.calibration.predict(logits)), targets,
            self.empty)._asdict()
        probabilities = self.calibration.probabilities.probabilities(logits)
        found.update(
            ECE=calibration_error(probabilities, labels),
            ECE_sigmoid=calibration_error(sigmoid(logits), labels))
        return {name: 100 * float(value) for name, value in found.items()}
