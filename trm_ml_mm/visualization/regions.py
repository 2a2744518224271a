"""From a map over an image to a peak and a box in its pixels."""
from typing import NamedTuple, Sequence, Tuple

import cv2
import numpy as np

# A box goes around the part of a map that is at least this high, relative to
# the peak (Zhou et al., arXiv 1512.04150, take a fifth).
LEVEL = 0.2
# A map is enlarged to at least this many cells a side before it is cut.
FINE = 96


class Area(NamedTuple):
    """A part of an image, in pixels."""

    left: float
    top: float
    right: float
    bottom: float


def seen_area(steps: Sequence[dict], width: int, height: int) -> Area:
    """The part of an image that a pipeline shows to the model.

    Args:
        steps: Of :class:`~trm_ml_mm.engine.ModelDescription`: resizing, which
            keeps the whole image, and crops of the centre.
        width: Width of the image in pixels.
        height: Its height.
    """
    scaled_width, scaled_height = float(width), float(height)
    left, top, right, bottom = 0., 0., float(width), float(height)
    for step in steps:
        if step['type'] == 'Resize':
            scaled_width, scaled_height = _resized(step, scaled_width,
                                                   scaled_height)
        elif step['type'] == 'ResizeEdge':
            factor = step['scale'] / _edge(step.get('edge', 'short'),
                                           scaled_width, scaled_height)
            scaled_width *= factor
            scaled_height *= factor
        elif step['type'] == 'CenterCrop':
            crop = step['crop_size']
            crop = crop if isinstance(crop, (list, tuple)) else (crop, crop)
            ratio_x = min(crop[0] / scaled_width, 1.)
            ratio_y = min(crop[1] / scaled_height, 1.)
            x, y = (left + right) / 2, (top + bottom) / 2
            half_x = ratio_x * (right - left) / 2
            half_y = ratio_y * (bottom - top) / 2
            left, right, top, bottom = (x - half_x, x + half_x, y - half_y,
                                        y + half_y)
            scaled_width *= ratio_x
            scaled_height *= ratio_y
    return Area(left, top, right, bottom)


def peak_of(values: np.ndarray, area: Area) -> Tuple[int, int]:
    """Pixel ``(x, y)`` of a map's peak.

    A cell may be larger than an object. So the peak is the centre of mass of
    the highest cell and its neighbours, weighted by the roots of their values
    (the root of a softmax is the softmax at half its scale). This rule is
    ours; tools/benchmarks/pointing.py measures it.

    Args:
        values: ``(h, w)``, not negative.
        area: Which part of the image the map covers.
    """
    height, width = values.shape
    row, column = np.unravel_index(values.argmax(), values.shape)
    rows = np.arange(max(row - 1, 0), min(row + 2, height))
    columns = np.arange(max(column - 1, 0), min(column + 2, width))
    weights = np.sqrt(values[np.ix_(rows, columns)].astype(np.float64))
    weights /= weights.sum()
    x, y = _position(area, weights.sum(0) @ (columns + .5) / width,
                     weights.sum(1) @ (rows + .5) / height)
    return int(x), int(y)


def box_of(values: np.ndarray, area: Area, level: float = LEVEL
           ) -> Tuple[int, int, int, int]:
    """Box ``(left, top, right, bottom)``, in pixels, around the part of a map
    that has the peak and is at least ``level`` times as high.

    Args:
        values: ``(h, w)``, not negative.
        area: Which part of the image the map covers.
        level: Relative to the peak.
    """
    factor = max(1, -(-FINE // max(values.shape)))
    fine = cv2.resize(values.astype(np.float32), None, fx=factor, fy=factor,
                      interpolation=cv2.INTER_LINEAR)
    _, parts = cv2.connectedComponents(
        (fine >= level * fine.max()).astype(np.uint8), connectivity=4)
    rows, columns = np.nonzero(parts == parts.flat[fine.argmax()])
    left, top = _position(area, columns.min() / fine.shape[1],
                          rows.min() / fine.shape[0])
    right, bottom = _position(area, (columns.max() + 1) / fine.shape[1],
                              (rows.max() + 1) / fine.shape[0])
    return int(left), int(top), round(right), round(bottom)


def _position(area: Area, x: float, y: float) -> Tuple[float, float]:
    return (area.left + x * (area.right - area.left),
            area.top + y * (area.bottom - area.top))


def _resized(step: dict, width: float, height: float) -> Tuple[float, float]:
    if step.get('scale') is None:
        factor = step.get('scale_factor', 1.)
        pair = factor if isinstance(factor, (list, tuple)) else (factor, ) * 2
        return width * pair[0], height * pair[1]
    scale = step['scale']
    scale = scale if isinstance(scale, (list, tuple)) else (scale, scale)
    if not step.get('keep_ratio'):
        return float(scale[0]), float(scale[1])
    factor = min(max(scale) / max(width, height),
                 min(scale) / min(width, height))
    return width * factor, height * factor


def _edge(edge: str, width: float, height: float) -> float:
    return dict(short=min(width, height), long=max(width, height),
                width=width, height=height)[edge]
