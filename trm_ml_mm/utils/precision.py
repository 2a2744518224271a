"""Full and double precision."""
import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """fp32; fp64 stays fp64, so that gradients can be checked. Losses and
    softmaxes are never computed in half precision."""
    return values if values.dtype == torch.double else values.float()


def as_double(values: Tensor) -> Tensor:
    """fp64; fp32 on Apple's GPUs, which have no fp64."""
    return values.float() if values.device.type == 'mps' else values.double()
