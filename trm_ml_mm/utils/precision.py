"""Double precision where there is any."""
from torch import Tensor


def as_double(values: Tensor) -> Tensor:
    """fp64; fp32 on Apple's GPUs, which have no fp64."""
    return values.float() if values.device.type == 'mps' else values.double()
