"""The layout of one image's kept features: the only place that knows it.

A row is ``(1 + L, D)``: the image embedding, then the L = H W locations of the
dense map, line by line.
"""
from typing import Sequence, Tuple

import torch
from torch import Tensor


def row_shape(grid: Sequence[int], dim: int) -> Tuple[int, int]:
    """(1 + L, D) for a grid of (H, W) locations."""
    return 1 + grid[0] * grid[1], dim


def pack_rows(dense: Tensor, pooled: Tensor) -> Tensor:
    """``(B, D, H, W)`` and ``(B, D)`` -> ``(B, 1 + L, D)``."""
    return torch.cat([pooled[:, None], dense.flatten(2).transpose(1, 2)], 1)


def unpack_rows(rows: Tensor, grid: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """``(B, 1 + L, D)`` -> dense map ``(B, D, H, W)``, embedding ``(B, D)``."""
    return rows[:, 1:].transpose(1, 2).unflatten(2, tuple(grid)), rows[:, 0]
