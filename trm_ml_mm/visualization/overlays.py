"""An image with its predicted labels, and where each was seen."""
from pathlib import Path
from typing import Optional, Union

import cv2
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
SMALLEST, LARGEST = 480, 1280  # pixels: the longer side of a picture alone


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


def draw_region(image: np.ndarray, label: Optional[dict]) -> np.ndarray:
    """An image with the map, the box and the peak of one label.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        label: Of :class:`~trm_ml_mm.apis.MultiLabelInferencer`, with maps;
            None: the image alone.

    Returns:
        ``(H', W', 3)`` uint8, RGB; its longer side has 480 to 1280 pixels.
    """
    side = max(image.shape[:2])
    scale = min(max(side, SMALLEST), LARGEST) / side
    picture = cv2.resize(
        np.ascontiguousarray(image), None, fx=scale, fy=scale,
        interpolation=cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA)
    if label is None:
        return picture
    values = torch.from_numpy(np.ascontiguousarray(label['map']))
    heat = enlarged(values / values.max(), picture.shape[:2]).clip(0, 1)
    heat = cv2.applyColorMap((255 * heat).astype(np.uint8),
                             cv2.COLORMAP_INFERNO)[..., ::-1]
    picture = cv2.addWeighted(picture, .45, np.ascontiguousarray(heat), .55, 0)
    left, top, right, bottom = (round(scale * value) for value in label['box'])
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1),
                  (255, 255, 255), 2)
    peak = [round(scale * (value + .5)) for value in label['peak']]
    return cv2.drawMarker(picture, peak, (0, 255, 255), cv2.MARKER_CROSS, 24,
                          3)


def _best(result: dict) -> str:
    best = result['labels'][0]
    return (f'no label; highest: {shortened(best["name"])} '
            f'{best["score"]:.2f}')


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name that fits over a panel."""
    return name if len(name) <= longest else f'{name[:longest - 1]}…'
