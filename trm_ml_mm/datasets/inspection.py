"""Inspect data before training: labels, tables, and files that cannot be
read."""
import hashlib
import os
from io import BytesIO
from itertools import combinations
from multiprocessing.pool import ThreadPool
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmengine.fileio import BaseStorageBackend
from PIL import Image

from trm_ml_mm.labels import LabelSummary
from trm_ml_mm.labels.table import VALUES
from trm_ml_mm.utils.screen import track

from .base import (
    LOCAL,
    UnreadableImage,
    backend_of,
    is_readable,
    resolve_dataset,
)
from .images import find_images
from .shards import ShardBackend
from .splits import RawTable

ERROR, WARNING, NOTE = 'Error', 'Warning', 'Note'
SHOWN = 5  # names in one finding


class Finding(NamedTuple):
    """Something to know before training."""

    level: str  # ERROR: training stops; WARNING: it should be mended; NOTE
    text: str


def some(names: Sequence[str]) -> str:
    """The first names of many, and how many there are besides."""
    more = len(names) - SHOWN
    return ', '.join(map(str, names[:SHOWN])) + (
        f' and {more} more' if more > 0 else '')


# Labels


def judge_labels(counts: LabelSummary, classes: Sequence[str],
                 training: bool) -> List[Finding]:
    """What labels lack, for training or for a test.

    Args:
        counts: Of the labels that training sees.
        classes: C names.
        training: Whether they are of the training set.
    """
    none = counts.known == 0
    no_positive = (counts.positive == 0) & ~none
    no_negative = (counts.negative == 0) & ~none

    def judged(level: str, lacking: np.ndarray, what: str) -> List[Finding]:
        text = f'{int(lacking.sum())} of {len(classes)} classes have {what}: '
        return [Finding(level, text + _names(classes, lacking))
                ] if lacking.any() else []

    if training:
        return [
            *judged(WARNING, none, 'no known label at all, so nothing is '
                    'learned about them'),
            *judged(WARNING, no_positive, 'no image that is known to have '
                    'them'),
            *judged(NOTE, no_negative, 'no known negative, so in training '
                    'their unknown labels count as absent')]
    if not counts.positive.any():
        return [Finding(WARNING, 'no class has a known positive, so there is '
                        'no mAP')]
    return [
        *judged(NOTE, none | no_positive, 'no known positive, so mAP is '
                'without them'),
        *judged(NOTE, no_negative, 'no known negative, so their AP is 100 '
                "whatever a model says (scored='both' leaves them out)")]


def _names(classes: Sequence[str], chosen: np.ndarray) -> str:
    return some([f'"{classes[c]}"' for c in np.flatnonzero(chosen)])


# Tables


def stray_columns(table: RawTable) -> Dict[str, str]:
    """Columns whose cells are no labels, and what they seem to be. (A few
    wrong cells are slips, which the data set names.)"""
    found = {}
    for name in class_columns(table):
        filled = [cell for cell in table.column(name) if cell]
        wrong = [cell for cell in filled if cell not in VALUES]
        if len(wrong) > len(filled) / 2:
            found[name] = kind_of(wrong)
    return found


def class_columns(table: RawTable) -> List[str]:
    """The columns of a table that are taken for classes; none if it has
    lists."""
    others = {table.columns.image, *table.columns.ignored}
    return [] if table.has_lists else [
        name for name in table.header if name not in others]


def constant_columns(table: RawTable) -> List[str]:
    """Columns with the same value in every row, and no blank."""
    if len(table.rows) < 2:
        return []
    cells = {name: set(table.column(name)) for name in class_columns(table)}
    return [name for name, values in cells.items()
            if len(values) == 1 and '' not in values]


def judge_columns(table: RawTable, is_train: bool = True) -> List[Finding]:
    """Find columns that are probably no classes.

    Args:
        table: Of a split.
        is_train: A class of the training may well have one value in another
            split.
    """
    stray, found = stray_columns(table), []
    constant = [name for name in constant_columns(table)
                if is_train and name not in stray]
    ignored = table.columns.ignored
    if stray:
        words = [f'"{name}" ({what})' for name, what in stray.items()]
        found.append(Finding(
            ERROR, f'{table.path} has columns that are no labels: '
            f'{some(words)}. If they are no classes: '
            f'ignore_columns={",".join([*ignored, *stray])}'))
    if constant:
        words = [f'"{name}"' for name in constant]
        found.append(Finding(
            WARNING, f'{table.path} has columns with the same value in every '
            f'row: {some(words)}. If they are no classes: '
            f'ignore_columns={",".join([*ignored, *stray, *constant])}'))
    return found


def kind_of(cells: Sequence[str]) -> str:
    """What cells that are no labels seem to be."""
    try:
        what = 'numbers' if [float(cell) for cell in cells] else ''
    except ValueError:
        what = 'text'
    different = len(set(cells))
    often = 'different in nearly every row' if (
        different > .9 * len(cells)) else f'{different} values'
    return f'{what}, {often}, such as "{cells[0][:20]}"'


# Files


def image_problem(path: str, is_loaded: Callable[[str], bool] = is_readable,
                  backend: BaseStorageBackend = LOCAL) -> Optional[str]:
    """Why an image file cannot be used whole, or None.

    What training's own decoder says counts. Pillow says why.

    Args:
        path: The file.
        is_loaded: Whether the decoder of the training gets an image from it.
        backend: Where it is read from.
    """
    if not backend.isfile(path):
        return 'does not exist'
    loaded = is_loaded(path)
    why = _pillow_says(path, backend)
    if loaded:
        # Old versions of OpenCV fill up what is cut off.
        return why if why and ('truncated' in why or 'black' in why) else None
    return why or ('cannot be decoded by the loader of the config, although '
                   'Pillow can: save it as JPEG or PNG')


def _pillow_says(path: str, backend: BaseStorageBackend) -> Optional[str]:
    try:
        with Image.open(BytesIO(backend.get(path))) as image:
            image.load()
            if image.mode.startswith('I') and image.getextrema()[1] < 2**12:
                return ('has 16 bits and uses at most 12 of them: training '
                        'divides by 256, so it is black; scale its values to '
                        '0..65535')
    except Image.DecompressionBombError:  # Pillow's limit, not training's
        return None
    except Exception as error:  # Pillow's plugins raise what they like
        return str(error) or type(error).__name__
    return None


def find_unreadable(paths: Sequence[str],
                    is_loaded: Callable[[str], bool] = is_readable,
                    threads: int = 8,
                    backend: BaseStorageBackend = LOCAL) -> Dict[str, str]:
    """Decode every file; path -> what is wrong with it, for those that
    fail."""
    with ThreadPool(threads) as pool:
        problems = track(
            pool.imap(lambda path: image_problem(path, is_loaded, backend),
                      paths),
            'Reading images', len(paths))
        return {p: why for p, why in zip(paths, problems) if why is not None}


def image_paths(dataset) -> List[str]:
    """Image files of a data set; none if its pipeline loads no files."""
    first = resolve_dataset(dataset, 0).pipeline.transforms[0]
    if type(first).__name__ != 'LoadImageFromFile':
        return []
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def images_backend(dataset) -> BaseStorageBackend:
    """Where a data set under wrappers reads its images from."""
    return backend_of(resolve_dataset(dataset, 0).pipeline)


def loader_of(dataset) -> Callable[[str], bool]:
    """Whether the first transform of a data set gets an image from a file:
    the decoder that training uses."""
    load = resolve_dataset(dataset, 0).pipeline.transforms[0]

    def is_loaded(path: str) -> bool:
        try:
            return load(dict(img_path=path)) is not None
        except Exception:  # whatever the decoder says, there is no image
            return False

    return is_loaded


def shared_images(paths: Dict[str, Sequence[str]],
                  backends: Optional[Dict[str, BaseStorageBackend]] = None
                  ) -> Dict[Tuple[str, str], List[Tuple[str, str]]]:
    """Equal files in two splits. Only files of equal size are read.

    Args:
        paths: Image files of each split.
        backends: Where those of a split are read from; None: from files.

    Returns:
        (split, other split) -> pairs of files, for those that share any.
    """
    sizes, backends = {}, backends or {}
    for split, files in paths.items():
        for path in files:
            size = size_of(path, backends.get(split, LOCAL))
            if size is not None:
                sizes.setdefault(size, []).append((split, path))
    found = {}
    for files in sizes.values():
        if len({split for split, _ in files}) < 2:
            continue
        equal = {}
        for split, path in files:
            try:
                digest = file_digest(path, backends.get(split, LOCAL))
            except UnreadableImage:  # find_unreadable names it
                continue
            equal.setdefault(digest, {}).setdefault(split, path)
        for sides in equal.values():
            for pair in combinations(sides, 2):
                found.setdefault(pair, []).append(
                    tuple(sides[split] for split in pair))
    return found


def size_of(path: str, backend: BaseStorageBackend = LOCAL) -> Optional[int]:
    """Of an image file, in bytes; None: there is none."""
    if isinstance(backend, ShardBackend):
        place = backend.find(path)
        return None if place is None else place.size
    return os.path.getsize(path) if os.path.isfile(path) else None


def file_digest(path: str, backend: BaseStorageBackend = LOCAL) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(backend.get(path)).hexdigest()


def unnamed_images(folder: str, named: Sequence[str]) -> List[str]:
    """Images in a folder, and in those inside it, that no table names."""
    known = {os.path.abspath(path) for path in named}
    try:
        return [path for path in find_images(folder)
                if os.path.abspath(path) not in known]
    except FileNotFoundError:  # it has none
        return []
