"""An image with its predicted labels, and where each was seen."""
from pathlib import Path
from typing import Union

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .saliency import enlarged

COLUMNS = 4
SIDE, GAP, TITLE = 2.6, .1, .3  # inches: of a panel, around it, above it
MOST = 11  # panels of labels; a picture stays readable
LISTED = 12  # labels in the title of the first panel
LONGEST = 28  # characters of a name in one line


def draw_prediction(image: np.ndarray, result: dict, path: Union[str, Path]
                    ) -> None:
    """Draw the image, and a panel for each present label with its map, its
    peak, its box and its score.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        result: Of :class:`~trm_ml_mm.apis.MultiLabelInferencer`, with maps.
        path: Picture file.
    """
    present = [label for label in result['labels'] if label['present']]
    panels = 1 + min(len(present), MOST)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    height, width = image.shape[:2]
    ratio = min(max(height / width, .5), 2.)
    # Places are computed, which takes a third of the time of a layout engine.
    cell, across = SIDE * ratio + TITLE, SIDE * columns
    figure = Figure(figsize=(across, rows * cell))
    axes = []
    for number in range(panels):
        down, column = divmod(number, columns)
        axes.append(figure.add_axes((
            (column * SIDE + GAP / 2) / across,
            1 - ((down + 1) * cell - GAP / 2) / (rows * cell),
            (SIDE - GAP) / across, (cell - TITLE - GAP) / (rows * cell))))
        axes[-1].set_axis_off()
    axes[0].imshow(image)
    more = len(present) - MOST
    axes[0].set_title(
        f'{len(present)} labels' + (f', {MOST} drawn' if more > 0 else '')
        if present else _best(result), fontsize=9, y=1.)
    for panel, label in zip(axes[1:], present):
        panel.imshow(image)
        values = torch.from_numpy(np.ascontiguousarray(label['map']))
        panel.imshow(enlarged(values / values.max(), image.shape[:2]),
                     cmap='inferno', alpha=.55, vmin=0, vmax=1)
        left, top, right, bottom = label['box']
        panel.add_patch(Rectangle(
            (left - .5, top - .5), right - left, bottom - top, fill=False,
            edgecolor='white', linewidth=1))
        panel.plot(*label['peak'], marker='+', color='cyan', markersize=11,
                   markeredgewidth=2)
        panel.set_xlim(-.5, width - .5)
        panel.set_ylim(height - .5, -.5)
        panel.set_title(f'{shortened(label["name"])}  {label["score"]:.2f}',
                        fontsize=9, y=1., parse_math=False)
    # PNG: little compression takes a third of the time.
    figure.savefig(path, dpi=110, pil_kwargs=dict(compress_level=1))


def _best(result: dict) -> str:
    best = result['labels'][0]
    return (f'no label; highest: {shortened(best["name"])} '
            f'{best["score"]:.2f}')


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name that fits over a panel."""
    return name if len(name) <= longest else f'{name[:longest - 1]}…'
