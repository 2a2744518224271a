"""Normalise losses so that the number of ranks does not matter."""
import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor


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
