"""CLIPs of 1.8 million values, for machines without a GPU or a download.

They have the classes of the real one (open_clip's ``CLIP`` with a
``ModifiedResNet`` or a ViT), but are small. ``tools/pretrain_mini_clip.py``
trains their weights on rendered scenes and their captions; they are in
``trm_ml_mm/assets``. 'mini' has the narrow joint space of a real CLIP;
'mini-wide', which it was made from, a wide one, and so has 'mini-vit'.
"""
from copy import deepcopy
from pathlib import Path
from typing import Dict, Optional

import open_clip
import torch
from torch import nn

ASSETS = Path(__file__).parents[2] / 'assets'
MINI_CLIPS = {'mini': ASSETS / 'mini_clip.pth',
              'mini-wide': ASSETS / 'mini_clip_wide.pth',
              'mini-vit': ASSETS / 'mini_clip_vit.pth'}
MINI_CLIP_CONFIG = dict(
    embed_dim=128,
    quick_gelu=True,
    # The attention pool's position embedding has (image_size / 32)^2
    # locations: 192 gives the 6 x 6 of a 96 px image with a layer4 of stride 1.
    vision_cfg=dict(layers=[1, 1, 1, 1], width=16, image_size=192),
    text_cfg=dict(
        context_length=24, vocab_size=49408, width=128, heads=4, layers=2))
MINI_VIT_CONFIG = dict(
    MINI_CLIP_CONFIG,
    vision_cfg=dict(
        layers=6, width=128, head_width=32, patch_size=12, image_size=96))
MINI_CONFIGS = {'mini': MINI_CLIP_CONFIG, 'mini-wide': MINI_CLIP_CONFIG,
                'mini-vit': MINI_VIT_CONFIG}


def build_mini(arch: str, vocab_size: Optional[int] = None) -> nn.Module:
    """One of them with random values.

    Args:
        arch: One of :data:`MINI_CLIPS`.
        vocab_size: Number of tokens; None: all of CLIP's.
    """
    config = deepcopy(MINI_CONFIGS[arch])
    if vocab_size is not None:
        config['text_cfg']['vocab_size'] = vocab_size
    model = open_clip.model.CLIP(**config)
    if isinstance(config['vision_cfg']['layers'], list):
        remove_layer4_stride(model.visual)
    return model


def remove_layer4_stride(visual: nn.Module) -> None:
    """Let the last stage of a CLIP ResNet keep the grid of the one before.

    CLIP's bottlenecks stride by average pooling, so no weight changes shape.
    """
    block = visual.layer4[0]
    block.avgpool = nn.Identity()
    block.downsample[0] = nn.Identity()


def pack_state(state: Dict[str, torch.Tensor],
               used_tokens: torch.Tensor) -> Dict[str, torch.Tensor]:
    """Half precision, and only the rows of the token embedding that were
    learned, those of ``used_tokens``."""
    packed = {
        k: v.half() if v.is_floating_point() else v
        for k, v in state.items() if k != 'token_embedding.weight'
    }
    packed['token_embedding.used'] = used_tokens
    packed['token_embedding.rows'] = state['token_embedding.weight'].half()
    return packed


def unpack_state(packed: Dict[str, torch.Tensor],
                 vocab_size: int) -> Dict[str, torch.Tensor]:
    """Undo :func:`pack_state`: unlearned words get zero embeddings."""
    state = {
        k: v.float() if v.is_floating_point() else v
        for k, v in packed.items() if not k.startswith('token_embedding.')
    }
    rows = packed['token_embedding.rows'].float()
    table = torch.zeros(vocab_size, rows.shape[1])
    table[packed['token_embedding.used']] = rows
    state['token_embedding.weight'] = table
    return state
