"""An image with its predicted labels, and where each was seen."""
from pathlib import Path
from typing import Union

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .saliency import enlarged

COLUMNS = 4
SIDE, GAP, TITLE = 2.6, .1, .25  # inches: of a panel, between two, above it
MOST = 11  # panels of labels; a picture stays readable
LISTED = 12  # labels in the title of the first panel
LONGEST = 24  # characters of a name in one line


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
    height, width = image.shape[:2]
    down = SIDE * min(height / width, 2.)
    across = down * width / height
    size = SIDE * columns, -(-panels // columns) * (down + TITLE + GAP)
    figure = Figure(figsize=size)
    # All panels in one frame, in inches: frames take most of the time.
    frame = figure.add_axes((0, 0, 1, 1))
    frame.set_axis_off()
    more = len(present) - MOST
    count = f'{len(present)} label{"s" * (len(present) > 1)}'
    titles = [count + (f', {MOST} drawn' if more > 0 else '')
              if present else _best(result)]
    titles += [f'{shortened(label["name"])}  {label["score"]:.2f}'
               for label in present[:MOST]]
    for number, title in enumerate(titles):
        row, column = divmod(number, columns)
        left = (column + .5) * SIDE - (across - GAP) / 2
        top = row * (down + TITLE + GAP) + TITLE
        scale = (across - GAP) / width  # inches of a pixel
        place = left, left + width * scale, top + height * scale, top
        frame.imshow(image, extent=place, aspect='auto')
        frame.text((column + .5) * SIDE, top - .06, title, fontsize=9,
                   ha='center', parse_math=False)
        if not number:
            continue
        label = present[number - 1]
        values = torch.from_numpy(np.ascontiguousarray(label['map']))
        frame.imshow(enlarged(values / values.max(), image.shape[:2]),
                     cmap='inferno', alpha=.55, vmin=0, vmax=1, extent=place,
                     aspect='auto')
        x, y, right, bottom = (scale * side for side in label['box'])
        frame.add_patch(Rectangle((left + x, top + y), right - x, bottom - y,
                                  fill=False, edgecolor='white', linewidth=1))
        x, y = (scale * (side + .5) for side in label['peak'])
        frame.plot(left + x, top + y, marker='+', color='cyan', markersize=11,
                   markeredgewidth=2)
    frame.set_xlim(0, size[0])
    frame.set_ylim(size[1], 0)
    # PNG: little compression takes a third of the time.
    figure.savefig(path, dpi=110, pil_kwargs=dict(compress_level=1))


def _best(result: dict) -> str:
    best = result['labels'][0]
    return (f'no label; highest: {shortened(best["name"])} '
            f'{best["score"]:.2f}')


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name that fits over a panel."""
    return name if len(name) <= longest else f'{name[:longest - 1]}…'
