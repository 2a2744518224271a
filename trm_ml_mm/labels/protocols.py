"""The rules of the field that say which labels are known.

A mask is ``(N, C)`` bool, True = known. Its rows are images in the order of
the data set's official list: that order is part of every protocol.
"""
import csv
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.utils.io import numbered_lines

from .mask_files import load_mask
from .values import PRESENT

# The seeds of the published masks.
PROPORTION_SEED = 0
SINGLE_POSITIVE_SEED = 1200
RULES = ('all', 'single_positive')
FILES = ('.npz', '.npy', '.txt', '.csv')


def check_known(known) -> None:
    """Raise ValueError unless ``known`` is what :func:`draw_mask` takes."""
    if isinstance(known, str):
        if known in RULES or Path(known).suffix in FILES:
            return
    elif isinstance(known, (int, float)) and 0 < known <= 1:
        return
    raise ValueError(
        'The proportion of known labels must be a number in (0, 1], or '
        f"'single_positive', 'all', or a file ({', '.join(FILES)}), got "
        f'{known!r}.')


def is_positive_list(known) -> bool:
    """Whether ``known`` names a list of known positives."""
    return isinstance(known, str) and Path(known).suffix in ('.txt', '.csv')


def known_label_mask(shape: Tuple[int, int],
                     proportion: float,
                     seed: int = PROPORTION_SEED) -> np.ndarray:
    """Draw which labels are known, for a proportion of known labels.

    The rule of SST, SARB and HST: every (image, class) label is kept
    independently, positive or negative alike. The masks of one seed are
    nested: what is known at 10% is known at 20% too.

    Args:
        shape: (N, C), images and classes.
        proportion: Of known labels, in (0, 1].
        seed: Draws the mask.

    Returns:
        ``(N, C)`` bool, True = known.

    Raises:
        ValueError: If the proportion is not in (0, 1].
    """
    check_known(proportion)
    rng = np.random.RandomState(seed)
    mask = np.empty(shape, bool)
    # The same numbers as in one draw, without 8 bytes per label.
    for start in range(0, shape[0], 4096):
        rows = mask[start:start + 4096]
        rows[:] = rng.random_sample(rows.shape) < proportion
    return mask


def single_positive_mask(labels: np.ndarray,
                         seed: int = SINGLE_POSITIVE_SEED) -> np.ndarray:
    """One known positive per image; everything else unknown.

    The rule of Cole et al., CVPR 2021 (arXiv 2106.09708), bit for bit: image
    by image, one random state shuffles the positives, the first is kept, and
    then it shuffles the others too, although none of them is kept. An image
    without a positive keeps no label.

    Args:
        labels: ``(N, C)`` in {1, 0, -1}.
        seed: Draws the positives.

    Returns:
        ``(N, C)`` bool, True = known.
    """
    rng = np.random.RandomState(seed)
    mask = np.zeros(labels.shape, bool)
    for i, row in enumerate(labels):
        positives = np.flatnonzero(row == PRESENT)
        rng.shuffle(positives)
        mask[i, positives[:1]] = True
        rng.shuffle(np.flatnonzero(row != PRESENT))  # part of the protocol
    return mask


def listed_positives_mask(path: Union[str, Path], labels: np.ndarray,
                          images: Sequence[str],
                          classes: Sequence[str]) -> np.ndarray:
    """The known positives in a list file, as SPLC and SCPNet publish them.

    A line has an image's file name (or as much of its path as makes it unique)
    and its known positives, as indices or names of classes, separated by
    commas: ``COCO_train2014_000000480023.jpg,52``. Images that are not listed
    keep no label.

    Args:
        path: The list.
        labels: ``(N, C)`` in {1, 0, -1}.
        images: N paths of images.
        classes: C names.

    Returns:
        ``(N, C)`` bool, True = known.

    Raises:
        ValueError: If a line names an image or class that the data set does
            not have, or a label that is not positive (the list then belongs to
            other classes, or another order of them).
    """
    rows = {}
    for i, image in enumerate(images):
        rows.setdefault(Path(image).name, []).append(i)
    mask = np.zeros(labels.shape, bool)
    for number, line in numbered_lines(path, 'list of known positives'):
        where = f'{path} line {number}'
        image, *names = [cell.strip() for cell in next(csv.reader([line]))]
        parts = Path(image).parts
        found = [i for i in rows.get(Path(image).name, [])
                 if Path(images[i]).parts[-len(parts):] == parts]
        if len(found) != 1:
            raise ValueError(
                f'{where}: the data set has no image "{image}".'
                if not found else f'{where}: {len(found)} images of the data '
                f'set end in "{image}": write more of the path.')
        row = found[0]
        if not names:
            raise ValueError(f'{where} is "{line}", expected an image and its '
                             'known positives with commas between.')
        for name in names:
            if name in classes:
                c = classes.index(name)
            elif name.isdigit() and int(name) < len(classes):
                c = int(name)
            else:
                raise ValueError(f'{where}: "{name}" is neither a class name '
                                 f'nor one of 0..{len(classes) - 1}.')
            if labels[row, c] != PRESENT:
                raise ValueError(
                    f'{where}: "{classes[c]}" is not present in {image}; the '
                    'list belongs to other classes or another order of them.')
            mask[row, c] = True
    return mask


def draw_mask(labels: np.ndarray,
              known: Union[float, str],
              seed: Optional[int] = None,
              images: Sequence[str] = (),
              classes: Sequence[str] = ()) -> np.ndarray:
    """Draw the mask that a config asks for.

    Args:
        labels: ``(N, C)`` in {1, 0, -1}.
        known: A proportion in (0, 1], 'single_positive', 'all', a mask file
            (.npz of :func:`save_mask`, or a matrix in .npy whose non-zero
            entries are known), or a list of known positives (.txt, .csv).
        seed: None: the protocol's own.
        images: Paths of the images; needed for lists.
        classes: Names; needed for lists.

    Raises:
        ValueError: If ``known`` is none of these, or a file does not fit.
    """
    check_known(known)
    if known == 'all':
        return np.ones(labels.shape, bool)
    if known == 'single_positive':
        return single_positive_mask(
            labels, SINGLE_POSITIVE_SEED if seed is None else seed)
    if not isinstance(known, str):
        return known_label_mask(labels.shape, known,
                                PROPORTION_SEED if seed is None else seed)
    if is_positive_list(known):
        return listed_positives_mask(known, labels, images, classes)
    mask = load_mask(known).mask
    if mask.shape != labels.shape:
        raise ValueError(
            f'The mask {known} is of {mask.shape[0]} images and '
            f'{mask.shape[1]} classes, and the data set has '
            f'{labels.shape[0]} and {labels.shape[1]}: it belongs to another '
            'data set.')
    return mask
