"""Distil the region level into the query level."""
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from trm_ml_mm.registry import MODELS

from .reduce import mean_over


def region_distillation_loss(student: Tensor,
                             teacher: Tensor,
                             temperature: float = 1.,
                             per_class: bool = False) -> Tensor:
    """``T^2 KL(teacher || student)`` per image; the teacher is a constant.

    That region knowledge is distilled into the query level is the paper's;
    the form (Hinton et al., arXiv 1503.02531) is ours.

    Args:
        student: ``(B, C)`` query-level logits.
        teacher: ``(B, C)`` region-level logits.
        temperature: T.
        per_class: One Bernoulli per class, summed, instead of a softmax over
            classes.

    Returns:
        ``(B,)`` fp32.
    """
    student = student.float() / temperature
    teacher = teacher.detach().float() / temperature
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
    """:func:`region_distillation_loss`, mean over images, each weighted by
    its share of labels that are still unknown, pseudo-labels counted as
    known: where labels are, they teach.

    Args:
        temperature, per_class: See there.
        loss_weight: Weight in the total.
    """

    def __init__(self,
                 temperature: float = 1.,
                 per_class: bool = False,
                 loss_weight: float = 1.):
        super().__init__()
        self.temperature = temperature
        self.per_class = per_class
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor,
                targets: Tensor) -> Tensor:
        """Scalar loss of two levels' logits, both ``(B, C)``; of the targets
        ``(B, C)`` in {1, 0, -1} it asks only which are unknown."""
        loss = region_distillation_loss(student, teacher, self.temperature,
                                        self.per_class)
        loss = loss * (targets == -1).float().mean(1)
        return self.loss_weight * mean_over(
            loss.sum(), torch.tensor(float(len(loss)), device=loss.device))
