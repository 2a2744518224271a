"""A picture of images with their known labels."""
import textwrap
from pathlib import Path
from typing import Sequence

import numpy as np
from matplotlib.figure import Figure

from trm_ml_mm.datasets.base import resolve_dataset
from trm_ml_mm.datasets.crops import load_object
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN


def draw_samples(dataset, path: str, indices: Sequence[int]) -> None:
    """Save a picture of images with their known labels.

    Each image has its number, the classes known to be present (green) and
    absent (red), and the number of unknown labels (grey).

    Args:
        dataset: Any with ``get_data_info`` that gives ``gt_score``.
        path: PNG file.
        indices: Of images, at least one.
    """
    transforms = resolve_dataset(dataset, 0).pipeline.transforms
    classes = dataset.metainfo['classes']
    columns = min(4, len(indices))
    rows = -(-len(indices) // columns)
    figure = Figure(figsize=(4.4 * columns, 5.4 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    figure.subplots_adjust(left=.02, right=.98, top=1 - .3 / (5.4 * rows),
                           bottom=1.1 / (5.4 * rows), wspace=.08, hspace=.32)
    for axis in axes:
        axis.axis('off')
    for axis, index in zip(axes, indices):
        info = dataset.get_data_info(index)
        score = np.asarray(info['gt_score'])
        image = load_object(transforms, info)['img'][..., ::-1]
        axis.imshow(image)
        name = Path(str(info.get('img_path', ''))).name
        axis.set_title(f'{index}: {name}', fontsize=10, parse_math=False)
        lines = [
            ('present', _names(classes, score == PRESENT), 'green'),
            ('absent', _names(classes, score == ABSENT), 'firebrick'),
            ('unknown', f'{int((score == UNKNOWN).sum())} classes', 'dimgray'),
        ]
        down = 4.
        for kind, words, color in lines:
            text = textwrap.fill(f'{kind}: {words}', 56)
            axis.annotate(text, (0, 0), (0, -down), color=color, fontsize=9,
                          va='top', xycoords='axes fraction',
                          textcoords='offset points', parse_math=False)
            down += 12.5 * (text.count('\n') + 1)  # points a line
    figure.savefig(path, dpi=90)


def _names(classes: Sequence[str], chosen: np.ndarray, most: int = 5) -> str:
    found = [classes[c] for c in np.flatnonzero(chosen)]
    more = f', and {len(found) - most} more' if len(found) > most else ''
    return (', '.join(found[:most]) + more) or '-'
