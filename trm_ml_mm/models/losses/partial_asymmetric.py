"""Asymmetric loss over known labels."""
from typing import Optional

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from trm_ml_mm.registry import MODELS

from .reduce import mean_over


def partial_asymmetric_loss(logits: Tensor,
                            targets: Tensor,
                            gamma_pos: float = 1.,
                            gamma_neg: float = 2.,
                            clip: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021, arXiv 2009.14119, eq. 4-7)
    of every known label; zero for unknown ones.

    A positive costs ``-(1 - p)^gamma_pos log p``, a negative
    ``-p_m^gamma_neg log(1 - p_m)`` with ``p_m = max(p - clip, 0)``. Focusing
    weights are constants for the gradient, as in the paper's own training.

    Args:
        logits: ``(B, C)``; computed in fp32 whatever they come in.
        targets: ``(B, C)`` in {1, 0, -1}: present, absent, unknown.
        gamma_pos, gamma_neg: Focusing of positives and negatives.
        clip: Probability margin of negatives, in [0, 1).

    Returns:
        ``(B, C)`` fp32.
    """
    logits = logits.float()
    log_p = F.logsigmoid(logits)
    p = log_p.exp()
    if clip:
        shifted = (p - clip).clamp(min=0)
        log_not_p = torch.log1p(-shifted)
    else:
        shifted, log_not_p = p, F.logsigmoid(-logits)
    positive = -(1 - p).detach()**gamma_pos * log_p
    negative = -shifted.detach()**gamma_neg * log_not_p
    zero = torch.zeros_like(logits)
    return torch.where(targets == 1, positive,
                       torch.where(targets == 0, negative, zero))


@MODELS.register_module()
class PartialAsymmetricLoss(BaseModule):
    """:func:`partial_asymmetric_loss`, summed over known labels, divided by
    the number of known labels in the batch of all ranks, times C.

    Times C: the loss of an image's C labels, as the field sums it, whatever
    share of them is known.

    Args:
        gamma_pos, gamma_neg, clip: See there.
        loss_weight: Weight in the total.
    """

    def __init__(self,
                 gamma_pos: float = 1.,
                 gamma_neg: float = 2.,
                 clip: float = 0.05,
                 loss_weight: float = 1.):
        super().__init__()
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, targets: Tensor,
                among: Optional[Tensor] = None) -> Tensor:
        """Scalar loss of ``(B, C)`` logits.

        Args:
            logits: ``(B, C)``.
            targets: ``(B, C)`` in {1, 0, -1}.
            among: ``(B, C)`` bool: divide by the number of these labels where
                they are more, lest a few of another kind weigh as much as all.
        """
        loss = partial_asymmetric_loss(logits, targets, self.gamma_pos,
                                       self.gamma_neg, self.clip)
        counts = [(targets != -1).sum()]
        if among is not None:
            counts.append(among.sum())
        return self.loss_weight * logits.shape[1] * mean_over(
            loss.sum(), *counts)
