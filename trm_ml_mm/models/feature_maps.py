"""What other backbones give, as a list of places."""
from typing import Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .region import as_locations


def feature_places(feats: Union[Tensor, Sequence[Tensor]],
                   channels: int,
                   extra_tokens: Optional[int] = None,
                   one_place: bool = False) -> Tensor:
    """The last feature map of a backbone, ``(B, L, channels)``. (This function
    is ours; the paper has one backbone.)

    ``channels`` tells the layouts apart: ``(B, C, H, W)``, ``(B, H, W, C)``
    (TIMM's Swin), ``(B, L, C)`` and ``(B, C, L)`` (MLP-Mixer).

    Args:
        feats: A map, or several of which the last is taken.
        channels: C, as the config says it.
        extra_tokens: How many of the L tokens, the first ones, are no places:
            class, distillation and register tokens. Nobody can see that from
            a shape, so tokens need the number.
        one_place: Take a vector ``(B, C)`` as an image of one place.

    Raises:
        ValueError: If this is not one map of C channels; names the option to
            set.
    """
    last = feats[-1] if isinstance(feats, (tuple, list)) else feats
    if not isinstance(last, Tensor):
        many = len(last) if isinstance(last, (tuple, list)) else 'no'
        raise ValueError(
            f'The backbone gave {many} features for its last stage '
            f'({_shapes(last)}) and the head needs one map (B, C, H, W): set '
            "out_type='featmap' in the backbone, or take another one.")
    shape = tuple(last.shape)
    if last.dim() == 2 and not one_place:
        raise ValueError(
            f'The backbone gave one vector per image {shape} and the head '
            'needs a map (B, C, H, W). Take the map before it is pooled: '
            'remove GlobalAveragePooling from neck; set out_type=\'featmap\' '
            '(ViT, DeiT, BEiT and their like) or gap_before_final_norm=False '
            '(ConvNeXt, EdgeNeXt, HorNet, TinyViT) in the backbone. A '
            'backbone without such an option cannot carry this head.')
    if last.dim() not in (2, 3, 4):
        raise ValueError(f'The backbone gave features of shape {shape} and '
                         'the head needs a map (B, C, H, W).')
    axes = [axis for axis in (1, last.dim() - 1) if shape[axis] == channels]
    if last.dim() == 4 and axes == [3] and shape[2] == shape[3]:
        axes = []  # a square map with other channels, and not (B, H, W, C)
    if not axes:
        found = dict.fromkeys((shape[1], shape[-1]))
        if last.dim() == 4 and shape[2] in shape[1::2]:  # a square map
            found = [shape[1] if shape[2] == shape[3] else shape[3]]
        raise ValueError(
            f'The backbone gave features of shape {shape}, and the head has '
            f'in_channels={channels}: set in_channels to '
            f'{" or ".join(map(str, found))}, the channels of the last map.')
    if last.dim() == 2:
        return last[:, None]
    if last.dim() == 4:
        return as_locations(last) if axes[0] == 1 else last.flatten(1, 2)
    if len(set(axes)) == 2:
        raise ValueError(
            f'The backbone gave features of shape {shape}: as many tokens as '
            'channels, so the head cannot tell which is which. Take another '
            'image size.')
    places = last if axes[0] == 2 else last.transpose(1, 2)
    if extra_tokens is None:
        raise ValueError(
            f'The backbone gave {places.shape[1]} tokens and the head cannot '
            'see which of them are places: set extra_tokens in the head to '
            'the number of class, distillation and register tokens (1 for '
            "most ViTs, 0 for a mixer), or out_type='featmap' in the backbone "
            'where it has that option.')
    if not 0 <= extra_tokens < places.shape[1]:
        raise ValueError(
            f'extra_tokens={extra_tokens} leaves no place of the '
            f'{places.shape[1]} tokens of the backbone.')
    return places[:, extra_tokens:]


def map_size(feats: Union[Tensor, Sequence[Tensor]], places: int
             ) -> Tuple[int, int]:
    """Height and width of the last feature map.

    Args:
        feats: See :func:`feature_places`.
        places: L, their product.

    Raises:
        ValueError: If tokens are no square.
    """
    last = feats[-1] if isinstance(feats, (tuple, list)) else feats
    if last.dim() == 4:
        _, *sides = last.shape
        for size in (sides[1:], sides[:2]):  # (B, C, H, W), (B, H, W, C)
            if size[0] * size[1] == places:
                return tuple(size)
    side = round(places**.5)
    if side * side != places:
        raise ValueError(f'The backbone gave {places} tokens, which are no '
                         'square map: maps need images of equal sides.')
    return side, side


def _shapes(feats) -> str:
    if not isinstance(feats, (tuple, list)):
        return type(feats).__name__
    return ', '.join(str(tuple(f.shape)) if torch.is_tensor(f) else '...'
                     for f in feats)
