"""Larger images in windows: the tower sees each at the size that it was
trained with.

A ViT at twice its size has position embeddings that were resized, and fewer of
its heads find what they know. Windows keep both. They overlap, so that an
object at the border of one is in the middle of another. (Sliding windows are
usual in open-vocabulary segmentation, as in SCLIP, arXiv 2312.01597.)

Shapes: B images, N windows, D joint width, H x W locations of the whole map,
h x w of a window.
"""
from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .image import ImageTower


def window_starts(length: int, size: int, stride: int) -> List[int]:
    """Where windows begin along one axis. The last one ends at the border.

    >>> window_starts(448, 224, 112), window_starts(300, 224, 112)
    ([0, 112, 224], [0, 76])
    """
    return [*range(0, length - size, stride), length - size]


def cut(x: Tensor, size: int, rows: Sequence[int], columns: Sequence[int]
        ) -> Tensor:
    """``(B, 3, height, width)`` -> ``(N B, 3, size, size)``, line by line."""
    return torch.cat([x[..., top:top + size, left:left + size]
                      for top in rows for left in columns])


def merge(maps: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """One map from those of the windows, averaged where these overlap.

    Args:
        maps: ``(N B, D, h, w)`` in the order of :func:`cut`.
        rows: First row of each line of windows, in locations.
        columns: First column of each window in a line.

    Returns:
        ``(B, D, H, W)``.
    """
    *_, h, w = maps.shape
    height, width = rows[-1] + h, columns[-1] + w
    where = [(top, left) for top in rows for left in columns]

    def put(values: Tensor, top: int, left: int) -> Tensor:
        return F.pad(values, (left, width - left - w, top, height - top - h))

    total = sum(put(one, *start) for one, start in zip(
        maps.unflatten(0, (len(where), -1)), where))
    count = sum(put(maps.new_ones(h, w), *start) for start in where)
    return total / count


class WindowedTower:
    """An image tower that sees images in overlapping windows.

    The dense map is that of all windows, computed as one batch. The embedding
    is that of the whole image, resized to one window.

    Args:
        tower: Built for ``size``.
        size: Side of a window in pixels.
        stride: From one window to the next, in pixels.

    Raises:
        ValueError: If size or stride are no positive integers, or windows
            would leave gaps.
    """

    def __init__(self, tower: ImageTower, size: int, stride: int):
        check_windows(dict(size=size, stride=stride))
        self.tower, self.size, self.stride = tower, size, stride

    @property
    def dense_options(self) -> Tuple[str, ...]:
        return self.tower.dense_options

    @property
    def dense(self) -> str:
        return self.tower.dense

    @property
    def default(self) -> str:
        return self.tower.default

    @property
    def visual(self) -> nn.Module:
        return self.tower.visual

    @property
    def variant(self) -> str:
        """See :attr:`ImageTower.variant`."""
        return f'{self.tower.variant} windows={self.size}/{self.stride}'.strip()

    def __call__(self, x: Tensor, pooled: bool = True
                 ) -> Tuple[Tensor, Optional[Tensor]]:
        """``(B, 3, height, width)`` -> dense map ``(B, D, H, W)`` and, if
        asked for, the embedding ``(B, D)``; none is normalised.

        Raises:
            ValueError: If the image is smaller than a window, or windows do
                not begin at locations.
        """
        height, width = x.shape[-2:]
        if min(height, width) < self.size:
            raise ValueError(
                f'windows.size is {self.size} px and the images have '
                f'{height} x {width}: set image_size to at least '
                f'{self.size}, or take smaller windows.')
        rows, columns = (window_starts(side, self.size, self.stride)
                         for side in (height, width))
        maps, _ = self.tower(cut(x, self.size, rows, columns), pooled=False)
        step = self.step(maps)
        if len(rows) + len(columns) > 2 and self.stride % step:
            raise ValueError(
                f'windows.stride is {self.stride} px, and a location of '
                f'{self.tower.arch} has {step} px: set a multiple of {step}.')
        if (height - self.size) % step or (width - self.size) % step:
            raise ValueError(
                f'The images have {height} x {width} px, and the last window '
                f'of {self.size} px does not begin at a location of '
                f'{self.tower.arch}, which has {step} px: set image_size to '
                f'{self.size} plus a multiple of {step}.')
        dense = merge(maps, *([start // step for start in starts]
                              for starts in (rows, columns)))
        return dense, self.embedding(x) if pooled else None

    def step(self, maps: Tensor) -> int:
        """Side of a location in pixels.

        Raises:
            ValueError: If it is no whole number.
        """
        side = maps.shape[-1]
        if maps.shape[-2] != side or self.size % side:
            raise ValueError(
                f'A window of {self.size} px has {maps.shape[-2]} x {side} '
                f'locations in {self.tower.arch}, which are no whole pixels: '
                'set windows.size to a multiple of the patch.')
        return self.size // side

    def embedding(self, x: Tensor) -> Tensor:
        """Of the whole image at the size of one window; ``(B, D)``."""
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x.float(), (self.size, self.size),
                              mode='bicubic', antialias=True,
                              align_corners=False).to(x.dtype)
        return self.tower(x)[1]

    def attention(self, x: Tensor) -> Tensor:
        """Not of windows, which have an embedding of their own each.

        Raises:
            ValueError: Always.
        """
        raise ValueError('The embedding of a tower with windows is not that '
                         'of its map: build it without windows to see where '
                         'it looks.')

    def fold(self) -> None:
        """See :meth:`ImageTower.fold`."""
        self.tower.fold()


def check_windows(windows: dict) -> None:
    """Refuse what are no windows.

    Raises:
        ValueError: Says what to set.
    """
    if not isinstance(windows, dict) or set(windows) != {'size', 'stride'}:
        raise ValueError(
            f'windows is dict(size=..., stride=...) in pixels, got {windows}. '
            'In a command, set model.backbone.windows.size=224 '
            'model.backbone.windows.stride=112.')
    size, stride = windows['size'], windows['stride']
    for name, value in windows.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f'windows.{name} must be a positive integer '
                             f'(pixels), got {value!r}.')
    if stride > size:
        raise ValueError(
            f'windows.stride={stride} is larger than windows.size={size}, '
            'which leaves gaps between windows: set at most the size.')
