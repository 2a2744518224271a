"""Import label files of Open Images into sparse rows."""
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
import pyarrow as pa
from rich.progress import Progress

from trm_ml_mm.labels import ContradictingLabels, SparseLabels
from trm_ml_mm.labels.matrix import label_keys
from trm_ml_mm.utils.io import existing
from trm_ml_mm.utils.screen import console

from .classes import Hierarchy, implied_labels
from .entries import image_id
from .label_files import Labels, find_lines, read_label_file


def import_labels(paths: Sequence[Path], known_mids: Sequence[str],
                  mids: Sequence[str], images: Optional[np.ndarray] = None,
                  unlisted: str = 'raise', machine: Optional[float] = None,
                  hierarchy: Optional[Hierarchy] = None
                  ) -> Tuple[np.ndarray, SparseLabels]:
    """Read label files into sparse rows.

    Args:
        paths: Label files.
        known_mids: Of all classes.
        mids: Of the C classes to take; labels of the others are left out.
        images: ``(N,)`` ascending numbers of images; None: those with labels.
        unlisted: See :class:`OpenImages`.
        machine: See :class:`OpenImages`.
        hierarchy: Of the C classes; None: labels stay as they are.

    Returns:
        ``(N,)`` numbers of images, and their labels.

    Raises:
        ValueError: See :class:`OpenImages`.
    """
    found = _read_all(paths, known_mids, mids, machine)
    if images is None:
        images = np.unique(found.images)
        rows = np.searchsorted(images, found.images)
    else:
        rows = np.searchsorted(images, found.images)
        listed = images[np.minimum(rows, len(images) - 1)] == found.images
        if not listed.all():
            if unlisted == 'raise':
                image = found.images[(~listed).argmax()]
                raise ValueError(
                    f'{find_lines(paths, image)[0]}: the image '
                    f'{image_id(image)} is not in the image list: take the '
                    "list of this split, or set unlisted='ignore' to use the "
                    'listed images alone.')
            found, rows = (_chosen(found, listed), rows[listed])
    found, human = found._replace(images=None), found.human
    keys = label_keys(rows, found.classes, found.values)
    del rows, found  # each column has half a gigabyte
    try:
        if human.all() and hierarchy is None:
            return images, SparseLabels.of_keys(keys, (len(images), len(mids)))
        # What people say comes first, then machines, then what follows.
        labels = SparseLabels.of_keys(keys[human], (len(images), len(mids)))
        keys = _added(labels, np.unique(keys[~human]))
        if hierarchy is not None:
            implied, values = implied_labels(
                (keys >> 32) << 32 | (keys & 0xffffffff) >> 1,
                (keys & 1).astype(np.int8), hierarchy)
            keys = np.concatenate([keys, label_keys(
                implied >> 32, implied & 0xffffffff, values)])
        return images, SparseLabels.of_keys(keys, labels.shape)
    except ContradictingLabels as error:
        image, mid = images[error.row], mids[error.number]
        raise ValueError(
            f'{" and ".join(find_lines(paths, image, mid)[:2])}: the labels '
            f'of image {image_id(image)} and class {mid} contradict each '
            'other: correct one of them.') from error


def _read_all(paths: Sequence[Path], known_mids: Sequence[str],
              mids: Sequence[str], machine: Optional[float]) -> Labels:
    """All labels of the files, with a bar of the bytes that were read."""
    number = {mid: c for c, mid in enumerate(mids)}
    chosen = np.array([number.get(mid, -1) for mid in known_mids], np.int32)
    parts: List[Labels] = []
    total = sum(existing(path, 'Label file', 'set data_root and ann_file'
                         ).stat().st_size for path in paths)
    place = console()
    with Progress(console=place, transient=True,
                  disable=not place.is_terminal) as bar:
        task, done = bar.add_task('Labels', total=total), 0
        for path in paths:
            parts += read_label_file(path, pa.array(known_mids), chosen,
                                     machine, _shown(bar, task, done))
            done += path.stat().st_size
    kinds = np.uint64, np.int32, np.int8, bool
    columns = [[np.empty(0, kind), *(part[i] for part in parts)]
               for i, kind in enumerate(kinds)]
    parts.clear()
    joined = []
    while columns:  # what is joined takes no memory twice
        joined.append(np.concatenate(columns.pop(0)))
    return Labels(*joined)


def _shown(bar: Progress, task: int, done: int) -> Callable[[int], None]:
    return lambda read: bar.update(task, completed=done + read)


def _chosen(labels: Labels, which: np.ndarray) -> Labels:
    return Labels(*(column[which] for column in labels))


def _added(labels: SparseLabels, keys: np.ndarray) -> np.ndarray:
    """Keys of labels, and of those among ``keys`` whose pairs have none."""
    rows = np.repeat(np.arange(len(labels)), np.diff(labels.offsets))
    own = label_keys(rows, labels.codes >> 1, labels.codes & 1)
    return np.concatenate([own, keys[~np.isin(keys >> 1, own >> 1)]])
