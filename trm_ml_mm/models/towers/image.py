"""One interface to the image towers of open_clip.

An image tower gives a dense map in the joint space and the image embedding.
What it knows of itself: which dense maps it can make, which input sizes it
takes, where its pooling looks. A tower here is a view of open_clip's module,
which it does not own. No other part of the package knows the inside of that
module.

Shapes: B images, D joint width, H x W locations, L = H W.
"""
from typing import Optional, Tuple

import torch
from timm.layers import AttentionPoolLatent
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .dense import (
    dense_projection,
    latent_attention,
    pool_value_path,
    region_average,
    resnet_attention,
    resnet_dense_map,
    resnet_pooled,
)
from .last_block import BLOCK_OPTIONS, last_block, local_block


class ImageTower:
    """A view of open_clip's image tower.

    Args:
        visual: ``model.visual``.
        arch: Its name, for messages.
        dense: How the dense map is made, one of :attr:`dense_options`; None:
            the family's default, the first of them.

    Raises:
        ValueError: If the tower does not have this dense map.
    """

    takes_any_size = True

    def __init__(self, visual: nn.Module, arch: str,
                 dense: Optional[str] = None):
        self.visual, self.arch = visual, arch
        self.dense = self.default if dense is None else dense
        if self.dense not in self.dense_options:
            raise ValueError(
                f'{arch} cannot make the dense map {dense!r}: set dense to '
                f'one of {", ".join(map(repr, self.dense_options))}.')

    @property
    def dense_options(self) -> Tuple[str, ...]:
        """The dense maps that it can make, the default first."""
        raise NotImplementedError

    @property
    def default(self) -> str:
        return self.dense_options[0]

    @property
    def variant(self) -> str:
        """What features depend on beside weights and precision; '' for the
        default."""
        return '' if self.dense == self.default else f'dense={self.dense}'

    @property
    def image_size(self) -> Tuple[int, int]:
        """Height and width in pixels that the weights were trained with."""
        size = self.visual.image_size
        return (size, size) if isinstance(size, int) else tuple(size)

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

    def attention(self, x: Tensor) -> Tensor:
        """Where the tower looks to make its image embedding, mean over heads.

        Args:
            x: ``(B, 3, h, w)``.

        Returns:
            ``(B, L)``; what is missing to 1 goes to class and register
            tokens.

        Raises:
            ValueError: If it does not pool by attention.
        """
        raise ValueError(f'{self.arch} does not pool by attention, so it '
                         'looks everywhere alike: draw no map of it.')

    def fold(self) -> None:
        """Reduce the module itself, for good, to what the dense map needs.
        The tower has no embedding then."""


class ResNetTower(ImageTower):
    """OpenAI's ResNets: value and output projection of the attention pool at
    every location, or under the location's region."""

    dense_options = ('value', 'region')

    def trunk(self, x: Tensor) -> Tensor:
        """``(B, 3, h, w)`` -> ``(B, width, H, W)``, the output of layer4."""
        visual = self.visual
        # As the weights are stored: convolutions are faster.
        x = x.contiguous(memory_format=torch.channels_last)
        for stage in (visual.stem, visual.layer1, visual.layer2,
                      visual.layer3, visual.layer4):
            x = stage(x)
        return x

    def encode(self, x, pooled):
        x = locations = self.trunk(x)
        if self.dense == 'region':
            locations = region_average(x.flatten(2).transpose(1, 2))
            locations = locations.transpose(1, 2).unflatten(2, x.shape[-2:])
        return resnet_dense_map(self.visual, locations), (
            resnet_pooled(self.visual, x) if pooled else None)

    def attention(self, x):
        return resnet_attention(self.visual, self.trunk(x))

    def fold(self):
        pool = self.visual.attnpool
        if not isinstance(pool, nn.Conv2d):
            self.visual.attnpool = dense_projection(pool.float())


class ViTTower(ImageTower):
    """open_clip's own ViTs: the last block with another attention, and the
    rest of the tower at every location.

    Towers that pool by attention (CoCa) have a value path for it too: value
    and output projection of the pool.
    """

    takes_any_size = False

    @property
    def dense_options(self):
        blocks = BLOCK_OPTIONS if last_block(
            self.visual.transformer.resblocks[-1]) else ()
        pools = () if self.visual.attn_pool is None else ('region', )
        return (*blocks, 'heads', *pools)

    def tokens(self, x: Tensor) -> Tensor:
        """``(B, 3, h, w)`` -> ``(B, 1 + L, width)`` before the last block."""
        x = self.visual._embeds(x)
        for block in self.visual.transformer.resblocks[:-1]:
            x = block(x)
        return x

    def encode(self, x, pooled):
        visual, grid = self.visual, self.visual.grid_size
        last = visual.transformer.resblocks[-1]
        x = self.tokens(x)
        whole = last(x) if pooled or self.dense in ('heads', 'region') else None
        if self.dense in BLOCK_OPTIONS:
            locations = local_block(last_block(last), x[:, 1:], self.dense,
                                    grid)
        else:
            locations = whole[:, 1:]
        if visual.attn_pool is not None:
            locations = pool_value_path(visual.attn_pool, locations,
                                        self.dense == 'region')
        locations = visual.ln_post(locations)
        if visual.proj is not None:
            locations = locations @ visual.proj
        dense = locations.transpose(1, 2).unflatten(2, grid)
        if not pooled:
            return dense, None
        embedding = visual._pool(whole)[0]
        return dense, embedding if visual.proj is None else (
            embedding @ visual.proj)

    def attention(self, x):
        visual = self.visual
        last = visual.transformer.resblocks[-1]
        if visual.pool_type != 'tok' or (
                visual.attn_pool is None and last_block(last) is None):
            return super().attention(x)
        self.check_size(x)
        x = self.tokens(x)
        if visual.attn_pool is None:  # the class token, in the last block
            x, attn = last.ln_1(x), last.attn
            query = x[:, :1]
        else:
            pool, attn = visual.attn_pool, visual.attn_pool.attn
            x = pool.ln_k(last(x))
            query = pool.ln_q(pool.query[:1]).expand(len(x), -1, -1)
        return attn(query, x, x)[1][:, 0, 1:]


class TrunkTower(ImageTower):
    """Towers of timm (ConvNeXt, EVA02, SigLIP, ViTamin, MobileCLIP, PE-Core,
    Swin): the heads, with their norms and pools, at every location.

    A pool over one location is that location: an attention pool becomes its
    value path, and an average the location itself (FC-CLIP, arXiv 2308.02487).
    A class token is dropped, or is what the head reads: then the location
    stands for it.
    """

    def __init__(self, visual, arch, dense=None):
        super().__init__(visual, arch, dense)
        self.takes_any_size = not hasattr(visual.trunk, 'set_input_size')

    @property
    def dense_options(self):
        trunk = self.visual.trunk
        blocks = pools = ()
        if type(trunk) in (VisionTransformer, Eva):
            # Mixed rotary embeddings differ from block to block.
            if last_block(trunk.blocks[-1]) and not getattr(
                    trunk, 'rope_mixed', False):
                blocks = BLOCK_OPTIONS
            if isinstance(trunk.attn_pool, AttentionPoolLatent):
                pools = ('region', )
        return ('heads', *blocks, *pools)

    def encode(self, x, pooled):
        if self.dense in BLOCK_OPTIONS:
            return self.encode_by_blocks(x, pooled)
        trunk = self.visual.trunk
        features = trunk.forward_features(x)
        if features.dim() == 3:
            locations = features[:, trunk.num_prefix_tokens:]
            grid = grid_of(locations.shape[1], x)
            if self.dense == 'region':
                locations = region_average(locations)
            dense = self.heads_of_tokens(locations)
        else:
            if features.shape[1] != trunk.num_features:  # NHWC
                alone = features.flatten(0, 2)[:, None, None]
                grid = features.shape[1:3]
            else:
                alone = features.flatten(2).transpose(1, 2).flatten(0, 1)
                alone = alone[..., None, None]
                grid = features.shape[2:]
            dense = self.heads(alone).unflatten(0, (len(x), -1))
        return dense.transpose(1, 2).unflatten(2, tuple(grid)), (
            self.heads(features) if pooled else None)

    def encode_by_blocks(self, x: Tensor, pooled: bool
                         ) -> Tuple[Tensor, Optional[Tensor]]:
        """With another attention in the last block."""
        trunk, image = self.visual.trunk, x
        x = trunk._pos_embed(trunk.patch_embed(x))
        x, rope = x if isinstance(x, tuple) else (x, None)
        x = trunk.norm_pre(x)
        where = {} if rope is None else dict(rope=rope)
        for block in trunk.blocks[:-1]:
            x = block(x, **where)
        locations = x[:, trunk.num_prefix_tokens:]
        grid = grid_of(locations.shape[1], image)
        locations = trunk.norm(local_block(
            last_block(trunk.blocks[-1]), locations, self.dense, grid, rope))
        dense = self.heads_of_tokens(locations).transpose(1, 2)
        return dense.unflatten(2, grid), (self.heads(trunk.norm(
            trunk.blocks[-1](x, **where))) if pooled else None)

    def heads(self, features: Tensor) -> Tensor:
        """Features of N images, or of N locations as if each was an image ->
        ``(N, D)``."""
        return self.visual.head(self.visual.trunk.forward_head(features))

    def heads_of_tokens(self, locations: Tensor) -> Tensor:
        """``(B, L, width)``, normalised by the trunk -> ``(B, L, D)``."""
        prefix = self.visual.trunk.num_prefix_tokens
        alone = locations.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)
        return self.heads(alone).unflatten(0, locations.shape[:2])

    def attention(self, x):
        trunk = self.visual.trunk
        pool = getattr(trunk, 'attn_pool', None)
        if not isinstance(pool, AttentionPoolLatent):
            return super().attention(x)
        features, prefix = trunk.forward_features(x), trunk.num_prefix_tokens
        if not getattr(trunk, 'pool_include_prefix', True):
            features, prefix = features[:, prefix:], 0
        return latent_attention(pool, features)[:, prefix:]


def image_tower(visual: nn.Module, arch: str, dense: Optional[str] = None
                ) -> ImageTower:
    """The view of an image tower of open_clip.

    Raises:
        ValueError: If it cannot make this dense map.
    """
    if hasattr(visual, 'trunk'):
        return TrunkTower(visual, arch, dense)
    if hasattr(visual, 'attnpool'):
        return ResNetTower(visual, arch, dense)
    return ViTTower(visual, arch, dense)


def grid_of(locations: int, x: Tensor) -> Tuple[int, int]:
    """Rows and columns of a token trunk's locations."""
    rows = round((locations * x.shape[-2] / x.shape[-1])**.5)
    return rows, locations // rows
