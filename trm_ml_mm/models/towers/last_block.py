"""The last transformer block of a tower, changed so that its locations stay
local.

CLIP trains the last block to gather the image in its class token. There a
location attends to others as that token does, and loses what is at its own
place in the image. Without any training the same weights give better maps if
locations attend by their likeness to each other.

Everything here is attention among locations only: class and register tokens
take part in all blocks before, and are dropped at the entrance of this one.
(The published programs let locations attend to the class token too.)

Shapes: B images, L = H W locations, h heads of width d, ``width`` = h d.
"""
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

BLOCK_OPTIONS = ('value', 'sclip', 'clearclip', 'naclip')
# Options whose block is its attention alone: no residual, no MLP.
_BARE = ('clearclip', 'naclip')
NACLIP_STD = 5.  # locations; the paper's


def attend(option: str, query: Tensor, key: Tensor, value: Tensor,
           grid: Sequence[int], std: float = NACLIP_STD) -> Tensor:
    """Attention among locations, in each head by itself.

    With ``s = 1 / sqrt(d)``, the weights are

    * 'value': the identity; each location keeps its value (MaskCLIP,
      arXiv 2112.01071),
    * 'sclip': ``softmax(s q q^T) + softmax(s k k^T)``, which sum to 2 (SCLIP,
      arXiv 2312.01597, equation 6),
    * 'clearclip': ``softmax(s q q^T)`` (ClearCLIP, arXiv 2407.12442),
    * 'naclip': ``softmax(s k k^T + w)`` with the Gaussian window ``w``
      (NACLIP, arXiv 2404.08181).

    Args:
        option: One of :data:`BLOCK_OPTIONS`.
        query: ``(B, h, L, d)``.
        key: ``(B, h, L, d)``.
        value: ``(B, h, L, d)``.
        grid: H and W.
        std: Of the window of 'naclip', in locations.

    Returns:
        ``(B, h, L, d)``.
    """
    if option == 'value':
        return value
    attention = F.scaled_dot_product_attention
    if option == 'sclip':
        return attention(query, query, value) + attention(key, key, value)
    if option == 'clearclip':
        return attention(query, query, value)
    window = gaussian_window(grid, std, value.device).to(value.dtype)
    return attention(key, key, value, attn_mask=window)


def gaussian_window(grid: Sequence[int], std: float,
                    device: Union[None, str, torch.device] = None) -> Tensor:
    """``exp(-r^2 / (2 std^2))`` of all pairs of locations at the distance r:
    ``(L, L)`` for a grid of (H, W)."""
    rows, columns = (torch.exp(-(step[:, None] - step)**2 / (2 * std**2))
                     for step in (torch.arange(float(side), device=device)
                                  for side in grid))
    # A Gaussian of both axes is the product of one for each.
    return (rows[:, None, :, None] * columns[None, :, None, :]).flatten(
        2, 3).flatten(0, 1)


def local_block(block: 'LastBlock', x: Tensor, option: str,
                grid: Sequence[int], rope: Optional[Tensor] = None) -> Tensor:
    """The block with :func:`attend` in place of its own attention.

    'value' and 'sclip' keep residual and MLP; 'clearclip' and 'naclip' are
    the attention branch alone (with its layer scale, where there is one).

    Args:
        block: See :func:`last_block`.
        x: ``(B, L, width)`` locations, without prefix tokens.
        option: One of :data:`BLOCK_OPTIONS`.
        grid: H and W.
        rope: Rotary position embedding of the locations, if the tower has
            one.

    Returns:
        ``(B, L, width)``.
    """
    normed = block.norm(x)
    found = attend(option, *block.project(normed, rope), grid)
    branch = block.output(found.transpose(1, 2).flatten(2), normed)
    if option in _BARE:
        return branch
    x = x + branch
    return x + block.mlp(x)


class LastBlock:
    """One set of names for the parts of any transformer block."""

    def __init__(self, block: nn.Module):
        self.block = block

    def norm(self, x: Tensor) -> Tensor:
        """The norm before the attention."""
        return self.block.norm1(x)

    def project(self, x: Tensor, rope: Optional[Tensor] = None
                ) -> Tuple[Tensor, Tensor, Tensor]:
        """``(B, L, width)`` -> query, key, value ``(B, h, L, d)``."""
        raise NotImplementedError

    def output(self, found: Tensor, x: Tensor) -> Tensor:
        """What the block adds to its input: output projection and layer
        scale of what the heads found.

        Args:
            found: ``(B, L, width)``.
            x: ``(B, L, width)``, the input of :meth:`project`.
        """
        raise NotImplementedError

    def mlp(self, x: Tensor) -> Tensor:
        """What the block adds next: norm, MLP and layer scale."""
        raise NotImplementedError


class OpenCLIPBlock(LastBlock):
    """open_clip's ``ResidualAttentionBlock``."""

    def norm(self, x):
        return self.block.ln_1(x)

    def project(self, x, rope=None):
        attn = self.block.attn
        found = F.linear(x, attn.in_proj_weight, attn.in_proj_bias)
        return tuple(part.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
                     for part in found.chunk(3, -1))

    def output(self, found, x):
        return self.block.ls_1(self.block.attn.out_proj(found))

    def mlp(self, x):
        return self.block.ls_2(self.block.mlp(self.block.ln_2(x)))


class TimmBlock(LastBlock):
    """timm's ``Block`` (SigLIP, ViTamin, MobileCLIP-B)."""

    def project(self, x, rope=None):
        attn = self.block.attn
        if attn.qkv is None:
            parts = [layer(x) for layer in (
                attn.q_proj, attn.k_proj, attn.v_proj)]
        else:
            bias = attn.qkv.bias
            if getattr(attn, 'q_bias', None) is not None:
                bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
            parts = F.linear(x, attn.qkv.weight, bias).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (attn.num_heads, -1))
                             .transpose(1, 2) for part in parts)
        query, key = attn.q_norm(query), attn.k_norm(key)
        if rope is not None:
            half = getattr(attn, 'rotate_half', False)
            query, key = (
                apply_rot_embed_cat(part, rope, half=half).type_as(value)
                for part in (query, key))
        return query, key, value

    def output(self, found, x):
        attn = self.block.attn
        found = attn.norm(found)
        if getattr(attn, 'gate', None) is not None:
            found = found * attn.gate(x).sigmoid()
        return self.attention_scale(attn.proj(found))

    def attention_scale(self, x: Tensor) -> Tensor:
        return self.block.ls1(x)

    def mlp(self, x):
        return self.block.ls2(self.block.mlp(self.block.norm2(x)))


class TimmEvaBlock(TimmBlock):
    """timm's ``EvaBlock`` (EVA02, PE-Core)."""

    def attention_scale(self, x):
        gamma = self.block.gamma_1
        return x if gamma is None else gamma * x

    def mlp(self, x):
        found, gamma = self.block.mlp(self.block.norm2(x)), self.block.gamma_2
        return found if gamma is None else gamma * found


def last_block(block: nn.Module) -> Optional[LastBlock]:
    """The view of a transformer block; None of a kind that is not known."""
    if type(block) is ResidualAttentionBlock:
        return OpenCLIPBlock(block)
    attn = type(getattr(block, 'attn', None))
    if type(block) is Block and attn is Attention:
        return TimmBlock(block)
    if type(block) is EvaBlock and attn in (EvaAttention, AttentionRope) and (
            # Grouped queries: fewer keys than queries.
            getattr(block.attn, 'num_kv_groups', 1) == 1):
        return TimmEvaBlock(block)
    return None
