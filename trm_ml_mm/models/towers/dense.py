"""Dense maps: every location of an image in CLIP's joint space.

Shapes: B images, D joint width, H x W locations, L = H W.
"""
from types import SimpleNamespace
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# How sharply a location's region ends: its weights are the softmax of cosines
# times this. Ours; `tools/inspect_tower.py` measures what comes of it.
REGION_SCALE = 5.


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
    positions = _positions_at(pool, x)
    # The pool with these positions. (torch.func.functional_call does the same,
    # but cannot be traced.)
    resized = SimpleNamespace(
        q_proj=pool.q_proj, k_proj=pool.k_proj, v_proj=pool.v_proj,
        c_proj=pool.c_proj, num_heads=pool.num_heads,
        positional_embedding=positions, training=False)
    return type(pool).forward(resized, x)


def _positions_at(pool: nn.Module, x: Tensor) -> Tensor:
    """The position embedding of an attention pool, of the size of the map
    ``x``: ``(1 + L, width)``."""
    positions = pool.positional_embedding
    side = round((len(positions) - 1)**0.5)
    if x.shape[-2:] == (side, side):
        return positions
    grid = positions[1:].T.reshape(1, -1, side, side)
    grid = F.interpolate(
        grid, x.shape[-2:], mode='bicubic', align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T])


def pool_value_path(pool: nn.Module, x: Tensor, region: bool = False
                    ) -> Tensor:
    """open_clip's ``AttentionalPooler``, each location by itself: value and
    output projection.

    Args:
        pool: The pool.
        x: ``(B, L, width)``.
        region: Each location is first replaced by :func:`region_average`.

    Returns:
        ``(B, L, output width)``.
    """
    attn = pool.attn
    x = pool.ln_k(x)
    if region:
        x = region_average(x)
    if attn.in_proj_weight is not None:
        weight = attn.in_proj_weight[-attn.embed_dim:]
    else:
        weight = attn.v_proj_weight
    bias = attn.in_proj_bias[-attn.embed_dim:]
    return attn.out_proj(F.linear(x, weight, bias))


def region_average(x: Tensor, scale: float = REGION_SCALE) -> Tensor:
    """Each location replaced by the average of its region.

    The region of a location is soft: the softmax, over all locations, of
    their cosines to it times ``scale``. ``x`` is what an attention pool reads.
    Its values are linear in that, so pooling the average is pooling the values
    with the weights of the region instead of those of the pool's query.

    After TextRegion (arXiv 2505.23769), which pools under the masks of a
    segmentation model; regions from the tower's own tokens are ours.

    ``(B, L, width)`` -> ``(B, L, width)``.
    """
    unit = F.normalize(x, dim=-1)
    return F.scaled_dot_product_attention(unit, unit, x, scale=scale)


def resnet_attention(visual: nn.Module, x: Tensor) -> Tensor:
    """Where the attention pool of a ResNet looks, mean over heads.

    Args:
        visual: open_clip's ``ModifiedResNet``.
        x: ``(B, width, H, W)``, the output of layer4.

    Returns:
        ``(B, L)``.
    """
    pool = visual.attnpool
    positions = _positions_at(pool, x)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + positions
    return head_weights(pool.q_proj(x[:, :1]), pool.k_proj(x),
                        pool.num_heads)[:, 1:]


def latent_attention(pool: nn.Module, x: Tensor) -> Tensor:
    """Where timm's ``AttentionPoolLatent`` looks, mean over heads:
    ``(B, N, width)`` -> ``(B, N)``."""
    if pool.pos_embed is not None:
        x = x + pool.pos_embed
    query = pool.q(pool.latent).unflatten(-1, (pool.num_heads, -1))
    key = pool.kv(x).chunk(2, -1)[0].unflatten(-1, (pool.num_heads, -1))
    return head_weights(pool.q_norm(query).flatten(2),
                        pool.k_norm(key).flatten(2), pool.num_heads)


def head_weights(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Attention weights of one query, mean over heads.

    Args:
        query: ``(B or 1, 1, width)``.
        key: ``(B, N, width)``.
        heads: Of the attention.

    Returns:
        ``(B, N)``.
    """
    query, key = (part.unflatten(-1, (heads, -1)) for part in (query, key))
    logits = (query * key).sum(-1) / key.shape[-1]**.5  # B N h
    return logits.softmax(1).mean(-1)
