"""The rules of the field that say which labels are known.

A mask is ``(N, C)`` bool, True = known. Its rows are images in the order of
the data set's official list: that order is part of every protocol.
"""
import csv
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.utils.io import numbered_lines

from .mask_files import load_mask
from .matrix import DenseLabels, LabelMatrix, SparseLabels, rows_at_once
from .values import PRESENT

# The seeds of the published masks.
PROPORTION_SEED = 0
SINGLE_POSITIVE_SEED = 1200
RULES = ('all', 'single_positive')
FILES = ('.npz', '.npy', '.txt', '.csv')
# (First row, (n, C) bool, True = known) of all rows of a mask in order.
Blocks = Iterator[Tuple[int, np.ndarray]]


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
    return _whole(_proportion_blocks(shape, proportion, seed), shape)


def _whole(blocks: Blocks, shape: Tuple[int, int]) -> np.ndarray:
    """A mask from the blocks of its rows."""
    mask = np.empty(shape, bool)
    for start, rows in blocks:
        mask[start:start + len(rows)] = rows
    return mask


def _proportion_blocks(shape: Tuple[int, int], proportion: float, seed: int
                       ) -> Blocks:
    rng = np.random.RandomState(seed)
    step = rows_at_once(shape[1])
    for start in range(0, shape[0], step):
        # The same numbers as in one draw, without 8 bytes per label.
        count = min(step, shape[0] - start)
        yield start, rng.random_sample((count, shape[1])) < proportion


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
    return _whole(_single_positive_blocks(DenseLabels(labels), seed),
                  labels.shape)


def _single_positive_blocks(labels: LabelMatrix, seed: int) -> Blocks:
    rng = np.random.RandomState(seed)
    step = rows_at_once(labels.shape[1])
    for start in range(0, len(labels), step):
        count = min(step, len(labels) - start)
        mask = np.zeros((count, labels.shape[1]), bool)
        for i in range(count):
            classes, values = labels.known(start + i)
            positives = classes[values == PRESENT]
            rng.shuffle(positives)
            mask[i, positives[:1]] = True
            # Part of the protocol; what is shuffled does not matter.
            rng.shuffle(np.arange(labels.shape[1] - len(positives)))
        yield start, mask


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
    return _whole(_listed_blocks(path, DenseLabels(labels), images, classes),
                  labels.shape)


def _listed_blocks(path: Union[str, Path], labels: LabelMatrix,
                   images: Sequence[str], classes: Sequence[str]) -> Blocks:
    listed = _listed_positives(path, labels, images, classes)
    step = rows_at_once(labels.shape[1])
    for start in range(0, len(labels), step):
        mask = np.zeros((min(step, len(labels) - start), labels.shape[1]),
                        bool)
        for i in range(len(mask)):
            mask[i, listed.get(start + i, [])] = True
        yield start, mask


def _listed_positives(path: Union[str, Path], labels: LabelMatrix,
                      images: Sequence[str], classes: Sequence[str]
                      ) -> Dict[int, List[int]]:
    """Row of an image -> its known positives."""
    rows = {}
    for i, image in enumerate(images):
        rows.setdefault(Path(image).name, []).append(i)
    listed: Dict[int, List[int]] = {}
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
        own = labels.row(row)
        for name in names:
            if name in classes:
                c = classes.index(name)
            elif name.isdigit() and int(name) < len(classes):
                c = int(name)
            else:
                raise ValueError(f'{where}: "{name}" is neither a class name '
                                 f'nor one of 0..{len(classes) - 1}.')
            if own[c] != PRESENT:
                raise ValueError(
                    f'{where}: "{classes[c]}" is not present in {image}; the '
                    'list belongs to other classes or another order of them.')
            listed.setdefault(row, []).append(c)
    return listed


def keep_known(labels: LabelMatrix,
               known: Union[float, str],
               seed: Optional[int] = None,
               images: Sequence[str] = (),
               classes: Sequence[str] = ()
               ) -> Tuple[LabelMatrix, np.ndarray]:
    """Hide labels as a config asks for. A dense and a sparse matrix of the
    same labels keep the same ones.

    Args:
        labels: N images, C classes.
        known: A proportion in (0, 1], 'single_positive', 'all', a mask file
            (.npz of :func:`save_mask`, or a matrix in .npy whose non-zero
            entries are known), or a list of known positives (.txt, .csv). A
            proportion and single positives draw a number for each of the
            N x C labels, known or not.
        seed: None: the protocol's own.
        images: Paths of the images; needed for lists.
        classes: Names; needed for lists.

    Returns:
        The labels that stay known, and the mask; see
        :meth:`~trm_ml_mm.labels.matrix.LabelMatrix.keep`.

    Raises:
        ValueError: If ``known`` is none of these, or a file does not fit.
    """
    check_known(known)
    shape = labels.shape
    if known == 'all':
        if isinstance(labels, SparseLabels):
            return labels, np.ones(len(labels.codes), bool)
        return labels, np.ones(shape, bool)
    if known == 'single_positive':
        blocks = _single_positive_blocks(
            labels, SINGLE_POSITIVE_SEED if seed is None else seed)
    elif not isinstance(known, str):
        blocks = _proportion_blocks(
            shape, known, PROPORTION_SEED if seed is None else seed)
    elif is_positive_list(known):
        blocks = _listed_blocks(known, labels, images, classes)
    else:
        mask = load_mask(known).mask
        if mask.ndim == 1:  # of the labels that a sparse matrix lists
            if not isinstance(labels, SparseLabels) or (
                    len(mask) != len(labels.codes)):
                raise ValueError(
                    f'The mask {known} is of {len(mask)} listed labels, and '
                    'the data set has '
                    f'{int(labels.summary().known.sum())}: it belongs to '
                    'another data set.')
            return labels.only(mask), mask
        if mask.shape != shape:
            raise ValueError(
                f'The mask {known} is of {mask.shape[0]} images and '
                f'{mask.shape[1]} classes, and the data set has '
                f'{shape[0]} and {shape[1]}: it belongs to another data set.')
        step = rows_at_once(shape[1])
        blocks = ((start, mask[start:start + step])
                  for start in range(0, len(mask), step))
    return labels.keep(blocks)


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
    return keep_known(DenseLabels(labels), known, seed, images, classes)[1]
