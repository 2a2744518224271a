"""One interface to the image towers of open_clip.

An image tower gives a dense map in the joint space and the image embedding.
What it knows of itself: the width of the joint space, and which input sizes it
takes. A tower here is a view of open_clip's module, which it does not own.

Shapes: B images, D joint width, H x W places.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from .dense import resnet_dense_map, resnet_pooled, vit_value_path


class ImageTower:
    """A view of open_clip's image tower.

    Args:
        visual: ``model.visual``.
        arch: Its name, for messages.
    """

    takes_any_size = True

    def __init__(self, visual: nn.Module, arch: str):
        self.visual, self.arch = visual, arch

    @property
    def image_size(self) -> Tuple[int, int]:
        """Height and width in pixels that the weights were trained with."""
        return tuple(self.visual.image_size)

    def check_size(self, x: Tensor) -> None:
        """Refuse images of another size than the tower takes.

        Raises:
            ValueError: If it does.
        """
        if not self.takes_any_size and tuple(x.shape[-2:]) != self.image_size:
            raise ValueError(
                f'{self.arch} was built for {self.image_size[0]} px images '
                f'and got {tuple(x.shape[-2:])}: set image_size to the size '
                'of the images.')

    def __call__(self, x: Tensor, pooled: bool = True
                 ) -> Tuple[Tensor, Optional[Tensor]]:
        """``(B, 3, h, w)`` -> dense map ``(B, D, H, W)`` and, if asked for,
        the embedding ``(B, D)``; none is normalised."""
        self.check_size(x)
        return self.encode(x, pooled)

    def encode(self, x: Tensor, pooled: bool
               ) -> Tuple[Tensor, Optional[Tensor]]:
        raise NotImplementedError


class ResNetTower(ImageTower):
    """OpenAI's ResNets: value and output projection of the attention pool at
    every place."""

    def encode(self, x, pooled):
        visual = self.visual
        # As the weights are stored: convolutions are faster.
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in (visual.stem, visual.layer1, visual.layer2,
                      visual.layer3, visual.layer4):
            x = stage(x)
        return resnet_dense_map(visual, x), (
            resnet_pooled(visual, x) if pooled else None)


class ViTTower(ImageTower):
    """open_clip's own ViTs: the value path of the last block (MaskCLIP), and
    the rest of the tower at every place.

    Towers that pool by attention (CoCa) have one more such path: value and
    output projection of the pool.
    """

    takes_any_size = False

    def encode(self, x, pooled):
        visual = self.visual
        x = visual._embeds(x)
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            x = block(x)
        places = vit_value_path(last, x)[:, 1:]
        if visual.attn_pool is not None:
            places = pool_value_path(visual.attn_pool, places)
        places = visual.ln_post(places)
        if visual.proj is not None:
            places = places @ visual.proj
        dense = places.transpose(1, 2).unflatten(2, visual.grid_size)
        if not pooled:
            return dense, None
        embedding = visual._pool(last(x))[0]
        return dense, embedding if visual.proj is None else (
            embedding @ visual.proj)


def image_tower(visual: nn.Module, arch: str) -> ImageTower:
    """The view of an image tower of open_clip.

    Raises:
        ValueError: If it is of a family that is not supported.
    """
    if hasattr(visual, 'trunk'):
        return TrunkTower(visual, arch)
    if hasattr(visual, 'attnpool'):
        return ResNetTower(visual, arch)
    return ViTTower(visual, arch)


def pool_value_path(pool: nn.Module, x: Tensor) -> Tensor:
    """open_clip's ``AttentionalPooler``, each place by itself: value and
    output projection. ``(B, L, width)`` -> ``(B, L, output width)``."""
    attn = pool.attn
    x = pool.ln_k(x)
    if attn.in_proj_weight is not None:
        weight = attn.in_proj_weight[-attn.embed_dim:]
    else:
        weight = attn.v_proj_weight
    bias = attn.in_proj_bias[-attn.embed_dim:]
    return attn.out_proj(nn.functional.linear(x, weight, bias))


class TrunkTower(ImageTower):
    """Towers of timm (ConvNeXt, EVA02, SigLIP, ViTamin, MobileCLIP, PE-Core,
    Swin): the heads, with their norms and pools, at every place.

    A pool over one place is that place: an attention pool becomes its value
    path (TextRegion, arXiv 2505.23769), and an average the place itself
    (FC-CLIP, arXiv 2308.02487).
    """

    def __init__(self, visual, arch):
        super().__init__(visual, arch)
        self.takes_any_size = not hasattr(visual.trunk, 'set_input_size')

    def encode(self, x, pooled):
        visual, trunk = self.visual, self.visual.trunk
        features = trunk.forward_features(x)
        if features.dim() == 3:
            prefix = trunk.num_prefix_tokens
            tokens = features[:, prefix:]
            grid = grid_of(trunk, tokens.shape[1], x)
            # A class token is dropped, or is what the head reads: the place
            # stands for it.
            alone = tokens.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)
        else:
            if features.shape[1] != trunk.num_features:  # NHWC
                alone = features.flatten(0, 2)[:, None, None]
                grid = features.shape[1:3]
            else:
                alone = features.flatten(2).transpose(1, 2).flatten(0, 1)
                alone = alone[..., None, None]
                grid = features.shape[2:]
        places = visual.head(trunk.forward_head(alone))
        dense = places.unflatten(0, (len(x), -1)).transpose(1, 2)
        return dense.unflatten(2, tuple(grid)), (
            visual.head(trunk.forward_head(features)) if pooled else None)


def grid_of(trunk: nn.Module, places: int, x: Tensor) -> Tuple[int, int]:
    """Rows and columns of a token trunk's places."""
    rows = round((places * x.shape[-2] / x.shape[-1])**.5)
    return rows, places // rows
