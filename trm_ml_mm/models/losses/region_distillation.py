"""Distillation from the region level (teacher) to the query level (student)."""
from typing import Optional

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from trm_ml_mm.labels import UNKNOWN
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_not_negative, check_positive
from trm_ml_mm.utils.precision import full_precision

from .reduce import reduce_loss, weighted


def region_distillation_loss(student: Tensor,
                             teacher: Tensor,
                             temperature: float = 1.,
                             per_class: bool = False) -> Tensor:
    """``T^2 KL(teacher || student)`` per image; the teacher gets no gradient.

    The paper states that region knowledge is distilled into the query level.
    The form (Hinton et al., arXiv 1503.02531) is ours.

    Args:
        student: ``(B, C)`` query-level logits.
        teacher: ``(B, C)`` region-level logits.
        temperature: T.
        per_class: Sum over one Bernoulli distribution per class, instead of
            a softmax over classes.

    Returns:
        ``(B,)`` fp32 (fp64 for fp64 logits).
    """
    student = full_precision(student) / temperature
    teacher = full_precision(teacher.detach()) / temperature
    if per_class:
        p = torch.sigmoid(teacher)
        kl = (p * (F.logsigmoid(teacher) - F.logsigmoid(student)) +
              (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student)))
    else:
        log_p = F.log_softmax(teacher, -1)
        kl = log_p.exp() * (log_p - F.log_softmax(student, -1))
    return temperature**2 * kl.sum(-1)


@MODELS.register_module()
class RegionDistillationLoss(BaseModule):
    """Mean of :func:`region_distillation_loss` over images, each weighted by
    its ratio of unknown labels.

    Pseudo-labels count as known: where there are labels, they teach, and
    distillation is not needed.

    Args:
        temperature: See :func:`region_distillation_loss`.
        per_class: See :func:`region_distillation_loss`.
        loss_weight: Weight in the total.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(self,
                 temperature: float = 1.,
                 per_class: bool = False,
                 loss_weight: float = 1.):
        super().__init__()
        check_positive(temperature=temperature)
        check_not_negative(loss_weight=loss_weight)
        self.temperature = temperature
        self.per_class = per_class
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Scalar loss.

        Args:
            student: ``(B, C)`` logits of the query level.
            teacher: ``(B, C)`` logits of the region level.
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}; only which ones
                are unknown matters.
            weight: ``(B,)`` of images.
            avg_factor: See
                :func:`~trm_ml_mm.models.losses.reduce.reduce_loss`.
            reduction_override: See
                :func:`~trm_ml_mm.models.losses.reduce.reduce_loss`.
        """
        loss = region_distillation_loss(student, teacher, self.temperature,
                                        self.per_class)
        loss = loss * (targets == UNKNOWN).float().mean(1)
        return self.loss_weight * reduce_loss(
            weighted(loss, weight),
            torch.tensor(float(len(loss)), device=loss.device),
            avg_factor=avg_factor, reduction_override=reduction_override)
