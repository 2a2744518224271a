"""From logits to scores, inside a file."""
from typing import Optional

import numpy as np
import torch
from torch import Tensor, nn

from trm_ml_mm.evaluation import Calibration


class Scores(nn.Module):
    """Logits -> the scores that ``MultiLabelInferencer.judge`` gives: ``(B,
    C)``. The only place of a file where they are made.

    Args:
        calibration: Of the model; None: the sigmoid of the logits.
    """

    def __init__(self, calibration: Optional[Calibration]):
        super().__init__()
        self.calibrated = calibration is not None
        self.has_curve = False
        if calibration is None:
            return
        found = calibration.probabilities
        self.scale = float(found.scale)
        self._keep('bias', found.bias)
        if found.curve_x is None:
            return
        self.has_curve = True
        width = np.diff(found.curve_x)
        step = np.diff(found.curve_y)
        self._keep('start', found.curve_x[:-1])
        self._keep('width', width)
        self._keep('slope', np.divide(step, width, where=width > 0,
                                      out=np.zeros_like(step)))
        self.first = float(found.curve_y[0])

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float))

    def forward(self, logits: Tensor) -> Tensor:
        if not self.calibrated:
            return logits.sigmoid()
        x = self.scale * logits + self.bias
        if self.has_curve:
            # Linear between points: how far x is in each piece, times its
            # slope. (Searching for the piece is no operator of ONNX.)
            way = (x[..., None] - self.start).clamp(min=0)
            x = self.first + (torch.minimum(way, self.width)
                              * self.slope).sum(-1)
        return x.sigmoid()
