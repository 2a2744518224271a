"""Means that do not depend on how a batch is spread over ranks."""
import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor


def mean_over(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``, where count is the mean count of all ranks.

    Ranks average their gradients; with the count of one rank alone, a rank
    with few known labels would weigh each of them more. With this mean, N
    ranks give the gradient of one rank that holds the joined batch.

    Args:
        total: Scalar, this rank's sum of losses.
        count: Scalar, this rank's number of terms. No term on any rank: the
            sum, which is then zero, stays zero.
    """
    count = count.detach().to(total.dtype).clone()
    if get_world_size() > 1:
        all_reduce(count)
        count = count / get_world_size()
    return total / torch.clamp(count, min=1. / get_world_size())
