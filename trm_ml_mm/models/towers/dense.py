"""Dense maps: every location of an image in CLIP's joint space.

Shapes: B images, D joint width, H x W locations.
"""
from types import SimpleNamespace
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resnet_dense_map(visual: nn.Module, x: Tensor) -> Tensor:
    """Every location of layer4 in the joint space: value and output
    projection of the attention pool, without pooling and position embedding.

    Args:
        visual: open_clip's ``ModifiedResNet``; its ``attnpool`` may be
            :func:`dense_projection`.
        x: ``(B, width, H, W)``, the output of layer4.

    Returns:
        ``(B, D, H, W)``.
    """
    pool = visual.attnpool
    if isinstance(pool, nn.Conv2d):
        return pool(x)
    return F.conv2d(x, *_dense_weights(pool))


def dense_projection(pool: nn.Module) -> nn.Conv2d:
    """All of an attention pool that the dense map needs, computed once."""
    weight, bias = _dense_weights(pool)
    projection = nn.Conv2d(weight.shape[1], weight.shape[0], 1,
                           device=weight.device, dtype=weight.dtype)
    projection.weight.data, projection.bias.data = weight.data, bias.data
    return projection


def _dense_weights(pool: nn.Module) -> Tuple[Tensor, Tensor]:
    """Two linear maps in a row as one, four times narrower to compute:
    ``(D, width, 1, 1)`` and ``(D,)``."""
    weight = pool.c_proj.weight @ pool.v_proj.weight
    bias = pool.c_proj.weight @ pool.v_proj.bias + pool.c_proj.bias
    return weight[..., None, None], bias


def resnet_pooled(visual: nn.Module, x: Tensor) -> Tensor:
    """The attention pool's embedding at any input size: the position
    embedding is resized to that of the map. ``(B, width, H, W)`` ->
    ``(B, D)``."""
    pool = visual.attnpool
    positions = pool.positional_embedding
    side = round((len(positions) - 1)**0.5)
    if x.shape[-2:] != (side, side):
        grid = positions[1:].T.reshape(1, -1, side, side)
        grid = F.interpolate(
            grid, x.shape[-2:], mode='bicubic', align_corners=False)
        positions = torch.cat([positions[:1], grid[0].flatten(1).T])
    # The pool with these positions. (torch.func.functional_call does the same,
    # but cannot be traced.)
    resized = SimpleNamespace(
        q_proj=pool.q_proj, k_proj=pool.k_proj, v_proj=pool.v_proj,
        c_proj=pool.c_proj, num_heads=pool.num_heads,
        positional_embedding=positions, training=False)
    return type(pool).forward(resized, x)


def vit_value_path(block: nn.Module, x: Tensor) -> Tensor:
    """The last transformer block, each location attending to itself only: its
    value path (MaskCLIP, arXiv 2112.01071), residuals and MLP.

    ``(B, N, width)`` -> ``(B, N, width)``.
    """
    attn = block.attn
    width = attn.embed_dim
    value = F.linear(
        block.ln_1(x), attn.in_proj_weight[-width:], attn.in_proj_bias[-width:])
    x = x + block.ls_1(attn.out_proj(value))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
