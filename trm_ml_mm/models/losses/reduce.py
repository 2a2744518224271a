"""Means that do not depend on how a batch is spread over ranks."""
import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor


def mean_over(total: Tensor, *counts: Tensor) -> Tensor:
    """``total / count``, where count is the mean count of all ranks, the
    largest where there are several.

    Ranks average their gradients; with the count of one rank alone, a rank
    with few known labels would weigh each of them more. With this mean, N
    ranks give the gradient of one rank that holds the joined batch.

    Args:
        total: Scalar, this rank's sum of losses.
        counts: Scalars, of this rank. No term on any rank: the sum, which is
            then zero, stays zero.
    """
    count = torch.stack(counts).detach().to(total.dtype)
    if get_world_size() > 1:
        all_reduce(count)
        count = count / get_world_size()
    return total / torch.clamp(count.max(), min=1. / get_world_size())
