"""Maps over an image: where a category, or the whole image, is looked at."""
from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from .curves import WIDTH, save


def draw_maps(image: np.ndarray, names: Sequence[str],
              maps: Dict[str, Optional[Tensor]], path: Path) -> None:
    """Draw a grid: a row per category, a column per kind of map.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        names: R categories.
        maps: Title of a column -> ``(R, h, w)`` maps over the image; None: the
            image alone.
        path: Picture file.
    """
    figure = Figure(figsize=(WIDTH, 1.95 * len(names)))
    axes = figure.subplots(len(names), len(maps), squeeze=False)
    for column, (title, values) in zip(axes.T, maps.items()):
        column[0].set_title(title, fontsize=9)
        for r, ax in enumerate(column):
            ax.imshow(image)
            if values is not None:
                ax.imshow(enlarged(values[r], image.shape[:2]),
                          cmap='inferno', alpha=0.65)
            ax.set_xticks([])
            ax.set_yticks([])
    for ax, name in zip(axes[:, 0], names):
        ax.set_ylabel(name, fontsize=9, parse_math=False)
    figure.tight_layout(pad=0.4)
    save(figure, path)


def enlarged(values: Tensor, size: Sequence[int]) -> np.ndarray:
    """A ``(h, w)`` map at the size of the image."""
    return F.interpolate(values[None, None], size=tuple(size),
                         mode='bicubic', align_corners=False)[0, 0].numpy()
