"""Dense maps: every location of an image in CLIP's joint space.

Shapes: B images, D joint width, H x W locations.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def resnet_dense_map(visual: nn.Module, x: Tensor) -> Tensor:
    """Every location of layer4 in the joint space: value and output
    projection of the attention pool, without pooling and position embedding.

    Args:
        visual: open_clip's ``ModifiedResNet``.
        x: ``(B, width, H, W)``, the output of layer4.

    Returns:
        ``(B, D, H, W)``.
    """
    pool = visual.attnpool
    # Two linear maps in a row are one, four times narrower to compute.
    weight = pool.c_proj.weight @ pool.v_proj.weight
    bias = pool.c_proj.weight @ pool.v_proj.bias + pool.c_proj.bias
    return F.conv2d(x, weight[..., None, None], bias)


def resnet_pooled(visual: nn.Module, x: Tensor) -> Tensor:
    """The attention pool's embedding at any input size: the position
    embedding is resized to that of the map. ``(B, width, H, W)`` ->
    ``(B, D)``."""
    positions = visual.attnpool.positional_embedding
    side = round((len(positions) - 1)**0.5)
    if x.shape[-2:] != (side, side):
        grid = positions[1:].T.reshape(1, -1, side, side)
        grid = F.interpolate(
            grid, x.shape[-2:], mode='bicubic', align_corners=False)
        positions = torch.cat([positions[:1], grid[0].flatten(1).T])
    return torch.func.functional_call(
        visual.attnpool, {'positional_embedding': positions}, (x, ))


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
