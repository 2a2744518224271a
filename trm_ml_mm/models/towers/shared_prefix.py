"""Text features of prompts that share a prefix, over no more positions than
needed.

Shapes: P prompts, C classes, S positions of the shared prefix, R of each
suffix, D joint width.
"""
from typing import Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def kept_positions(end: Tensor, shared: int, own: int) -> Tensor:
    """Which suffix positions are not beyond an end token: indices
    ``c * R + r`` of position r of class c's suffix, ``(T,)``.

    Args:
        end: ``(C,)`` positions of the end tokens, in the whole prompt.
        shared: S, number of positions that all prompts share as a prefix.
        own: R, number of positions of the padded suffixes.
    """
    positions = torch.arange(own, device=end.device)
    return (positions <= (end - shared)[:, None]).flatten().nonzero()[:, 0]


def encode_prompts(text: nn.Module, prefix: Tensor, suffix: Tensor,
                   end: Tensor, kept: Tensor) -> Tensor:
    """Text features of embedded prompts.

    The same function as ``encode_text``, but from token embeddings, and
    over no more positions than needed. The tower is causal, so the prefix that
    all prompts share is computed once, and positions beyond an end token are
    not computed at all.

    Args:
        text: open_clip's text tower, for which
            :func:`~trm_ml_mm.models.towers.text.can_be_cut` holds.
        prefix: ``(P, S, width)`` embeddings that all C prompts share.
        suffix: ``(P, C, R, width)`` the rest of each; S + R <= 77.
        end: ``(C,)`` position of each prompt's end token, at least S.
        kept: ``(T,)``, of :func:`kept_positions`.

    Returns:
        ``(P, C, D)``, not normalised.
    """
    groups, classes, own, width = suffix.shape
    shared = prefix.shape[1]
    positions = text.positional_embedding[:shared + own]
    x = prefix + positions[:shared]  # P S w
    y = (suffix + positions[shared:]).flatten(1, 2)[:, kept]  # P T w
    # A suffix position sees the whole prefix, and the suffix up to itself.
    visible = torch.ones(own, shared + own, dtype=torch.bool, device=x.device
                         ).tril(shared)

    def padded(value):  # P T w -> PC R w
        whole = value.new_zeros(groups, classes * own, value.shape[-1])
        whole = whole.index_copy(1, kept, value)
        return whole.view(groups * classes, own, -1)

    for block in text.transformer.resblocks:
        query, key, value = _heads(block, _projections(block, x))
        attended = F.scaled_dot_product_attention(
            query, key, value, is_causal=True)
        x = _after_attention(block, x, _joined(attended))
        query, *pair = _heads(block, padded(_projections(block, y)))
        key, value = (
            torch.cat([_repeat(a, classes), b], 2)
            for a, b in zip((key, value), pair))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=visible)
        attended = _joined(attended).reshape(groups, classes * own, width)
        y = _after_attention(block, y, attended[:, kept])
    # The last position kept of each class is that of its end token.
    last = torch.cumsum(end - shared + 1, 0) - 1
    return text.ln_final(y[:, last]) @ text.text_projection


def _projections(block: nn.Module, x: Tensor) -> Tensor:
    """Queries, keys and values, ``(..., 3 width)``."""
    attn = block.attn
    return F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)


def _heads(block: nn.Module, qkv: Tensor) -> Tuple[Tensor, ...]:
    """``(N, L, 3 width)`` -> three ``(N, heads, L, d)``."""
    return tuple(
        part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
        for part in qkv.chunk(3, -1))


def _joined(attended: Tensor) -> Tensor:
    """``(N, heads, L, d)`` -> ``(N, L, width)``."""
    return attended.transpose(1, 2).flatten(2)


def _after_attention(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block: output projection, residuals, MLP."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _repeat(x: Tensor, times: int) -> Tensor:
    """``(P, h, S, d)`` -> ``(P * times, h, S, d)``, each repeated in a row."""
    return x[:, None].expand(-1, times, -1, -1, -1).flatten(0, 1)
