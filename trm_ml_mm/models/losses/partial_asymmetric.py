"""Asymmetric loss over known labels."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_not_negative
from trm_ml_mm.utils.precision import full_precision

from .reduce import reduce_loss, weighted


def partial_asymmetric_loss(logits: Tensor,
                            targets: Tensor,
                            gamma_pos: float = 1.,
                            gamma_neg: float = 2.,
                            clip: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021, arXiv 2009.14119, eq. 4-7)
    of every known label; zero for unknown labels.

    The loss of a positive is ``-(1 - p)^gamma_pos log p``, of a negative
    ``-p_m^gamma_neg log(1 - p_m)`` with ``p_m = max(p - clip, 0)``. No gradient
    flows through the focusing weights, as in that paper's own training.

    Args:
        logits: ``(B, C)`` of any float type.
        targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        gamma_pos: Focusing of positives.
        gamma_neg: Focusing of negatives.
        clip: Probability margin of negatives, in [0, 1).

    Returns:
        ``(B, C)`` fp32 (fp64 for fp64 logits).
    """
    logits = full_precision(logits)
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
    return torch.where(targets == PRESENT, positive,
                       torch.where(targets == ABSENT, negative, zero))


@MODELS.register_module()
class PartialAsymmetricLoss(BaseModule):
    """Mean of :func:`partial_asymmetric_loss` over the known labels in the
    batches of all ranks, times C.

    Times C, because the field sums the loss over an image's C labels; the
    result does not depend on how many of them are known.

    Args:
        gamma_pos: See :func:`partial_asymmetric_loss`.
        gamma_neg: See :func:`partial_asymmetric_loss`.
        clip: See :func:`partial_asymmetric_loss`.
        loss_weight: Weight in the total.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(self,
                 gamma_pos: float = 1.,
                 gamma_neg: float = 2.,
                 clip: float = 0.05,
                 loss_weight: float = 1.):
        super().__init__()
        check_not_negative(gamma_pos=gamma_pos, gamma_neg=gamma_neg,
                           loss_weight=loss_weight)
        if not 0 <= clip < 1:
            raise ValueError(f'clip must lie in [0, 1), got {clip!r}.')
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.clip = clip
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, targets: Tensor,
                among: Optional[Tensor] = None,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Scalar loss of ``(B, C)`` logits.

        The last three arguments are OpenMMLab's, so that the loss serves its
        heads too: they divide by the number of images.

        Args:
            logits: ``(B, C)``.
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
            among: ``(B, C)`` bool. If given, ``targets`` are some of the
                labels only, such as pseudo-labels. Divide by max(number of
                known labels, number in ``among``), so that a handful of them
                cannot outweigh the known labels.
            weight: ``(B,)`` of images or ``(B, C)`` of labels.
            avg_factor: See
                :func:`~trm_ml_mm.models.losses.reduce.reduce_loss`.
            reduction_override: See
                :func:`~trm_ml_mm.models.losses.reduce.reduce_loss`.
        """
        loss, counted = self.label_losses(logits, targets, among is not None)
        # The mean over these labels is taken times C; see the class.
        own_mean = avg_factor is None and reduction_override in (None, 'mean')
        counts = [counted.sum()]
        if among is not None:
            counts.append(among.sum())
        loss = reduce_loss(weighted(loss, weight), *counts,
                           avg_factor=avg_factor,
                           reduction_override=reduction_override)
        return self.loss_weight * (logits.shape[1] if own_mean else 1) * loss

    def label_losses(self, logits: Tensor, targets: Tensor,
                     partial: bool) -> Tuple[Tensor, Tensor]:
        """The loss of each label, and which labels the mean is taken over:
        the known ones. ``(B, C)`` both.

        Args:
            logits: ``(B, C)``.
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
            partial: ``targets`` are some of the labels only, such as
                pseudo-labels. Not used here.
        """
        return partial_asymmetric_loss(
            logits, targets, self.gamma_pos, self.gamma_neg,
            self.clip), targets != UNKNOWN
