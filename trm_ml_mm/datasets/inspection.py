"""A look at the data before training: counts, unreadable files, a picture."""
import textwrap
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.progress import track

from .base import label_matrix, leaf


def labels_of(dataset) -> np.ndarray:
    """What a run sees: ``(N, C)`` in {1, 0, -1}."""
    return dataset.labels if hasattr(dataset, 'labels') else label_matrix(
        dataset)


def image_problem(path: str) -> Optional[str]:
    """Why an image file cannot be used whole, or None."""
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        return 'does not exist'
    except Exception as error:  # Pillow's plugins raise what they like
        return str(error) or type(error).__name__
    return None


def find_unreadable(paths: Sequence[str], threads: int = 8) -> Dict[str, str]:
    """Decode every file; path -> what is wrong, for those that fail."""
    with ThreadPool(threads) as pool:
        problems = track(
            pool.imap(image_problem, paths), 'Reading images', len(paths),
            transient=True)
        return {p: why for p, why in zip(paths, problems) if why is not None}


def image_paths(dataset) -> List[str]:
    """Files of a data set; none, where its pipeline loads no files."""
    first = leaf(dataset, 0).pipeline.transforms[0]
    if type(first).__name__ != 'LoadImageFromFile':
        return []
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def draw_samples(dataset, path: str, indices: Sequence[int]) -> None:
    """Save a picture of images with their known labels.

    Under each image stand its number, what is known to be present (green), to
    be absent (red), and how much is unknown (grey).

    Args:
        dataset: Any with ``get_data_info`` that gives ``gt_score``.
        path: PNG file.
        indices: Of images, at least one.
    """
    load = leaf(dataset, 0).pipeline.transforms[0]
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
        image = load(info)['img'][..., ::-1]
        axis.imshow(image)
        name = Path(str(info.get('img_path', ''))).name
        axis.set_title(f'{index}: {name}', fontsize=10, parse_math=False)
        lines = [
            ('present', _names(classes, score == 1), 'green'),
            ('absent', _names(classes, score == 0), 'firebrick'),
            ('unknown', f'{int((score == -1).sum())} classes', 'dimgray'),
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
