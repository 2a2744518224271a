"""From a loss of every label or image to one number."""
from typing import Optional

import torch
from mmengine.dist import all_reduce, get_world_size
from mmpretrain.models.losses.utils import weight_reduce_loss
from torch import Tensor

from trm_ml_mm.utils.checks import check_choice


def normalize_by_global_count(total: Tensor, *counts: Tensor) -> Tensor:
    """``total / count``, where count is the mean count over all ranks; the
    largest one if several are given.

    Ranks average their gradients. If each rank divided by its own count, a
    rank with few known labels would weight each of them more. This way, N
    ranks compute the gradient of one rank with the joined batch.

    Args:
        total: Scalar, this rank's sum of losses.
        counts: Scalars, of this rank. If all are zero on all ranks, the sum is
            zero too, and stays zero.
    """
    count = torch.stack(counts).detach().to(total.dtype)
    if get_world_size() > 1:
        all_reduce(count)
        count = count / get_world_size()
    return total / torch.clamp(count.max(), min=1. / get_world_size())


def reduce_loss(loss: Tensor, *counts: Tensor,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
    """The sum of a loss over its global count, unless a caller asks for another
    reduction, as OpenMMLab's heads do.

    Args:
        loss: ``(B,)`` of images or ``(B, C)`` of labels, weighted already.
        counts: See :func:`normalize_by_global_count`.
        avg_factor: Divide the sum by this number alone.
        reduction_override: 'none' gives the loss as it is, 'sum' its sum,
            'mean' the mean.

    Raises:
        ValueError: If ``reduction_override`` is none of these, or is 'sum'
            together with ``avg_factor``.
    """
    if reduction_override is not None:
        check_choice(('none', 'sum', 'mean'),
                     reduction_override=reduction_override)
    if avg_factor is not None or reduction_override in ('none', 'sum'):
        return weight_reduce_loss(loss, reduction=reduction_override or 'mean',
                                  avg_factor=avg_factor)
    return normalize_by_global_count(loss.sum(), *counts)


def weighted(loss: Tensor, weight: Optional[Tensor]) -> Tensor:
    """A loss of images or labels times a weight of either."""
    if weight is None:
        return loss
    return loss * (weight if weight.dim() == loss.dim()
                   else weight.reshape(len(loss), -1))
