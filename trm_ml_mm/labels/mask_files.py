"""Save and load masks of known labels, and matrices of labels."""
import hashlib
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from trm_ml_mm.utils.arrays import read_arrays
from trm_ml_mm.utils.io import atomic_write, existing

from .values import ABSENT, PRESENT, UNKNOWN


def mask_hash(mask: np.ndarray) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the packed mask."""
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]


class Mask(NamedTuple):
    """A saved mask, and the rule and seed it was drawn with."""

    # (N, C) bool, True = known; of a sparse matrix (K,), of the labels it lists
    mask: np.ndarray
    known: str  # the rule, as a config names it
    seed: str
    hash: str


def save_mask(path: Union[str, Path],
              mask: np.ndarray,
              known: Union[float, str],
              seed: Optional[int] = None) -> None:
    """Write a mask, one bit per label, with its rule, seed and hash."""
    with atomic_write(path) as fresh, open(fresh, 'wb') as file:
        np.savez_compressed(
            file,
            packed=np.packbits(mask),
            shape=np.array(mask.shape),
            known=str(known),
            seed=str(seed),
            hash=mask_hash(mask))


def load_mask(path: Union[str, Path]) -> Mask:
    """Read what :func:`save_mask` wrote, or a matrix from a .npy file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a mask, or does not match its own hash.
    """
    existing(path, 'Mask file', 'draw it with tools/make_masks.py')
    try:
        content = read_arrays(path)
        if '' in content:
            mask = _as_bool(content[''])
            return Mask(mask, str(path), 'None', mask_hash(mask))
        shape = tuple(map(int, content['shape']))
        if len(shape) not in (1, 2):
            raise ValueError(f'shape {shape}')
        mask = np.unpackbits(content['packed'])[:np.prod(shape)]
        mask = mask.reshape(shape).astype(bool)
        saved = Mask(mask, *(str(content[k]) for k in Mask._fields[1:]))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f'{path} is not a whole mask file ({error}); draw it '
                         'again with tools/make_masks.py.') from error
    if mask_hash(mask) != saved.hash:
        raise ValueError(
            f'{path} has the hash {saved.hash} and its mask has '
            f'{mask_hash(mask)}: the file is damaged; draw it again.')
    return saved


def load_labels(path: Union[str, Path]) -> np.ndarray:
    """Load a matrix of labels.

    Args:
        path: .npy with ``(N, C)``; or .npz with ``labels`` ``(N, C)``, or
            with ``packed``, rows of bits, and ``num_classes``. Values are
            1 (present), 0 (absent) and -1 (unknown).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such matrix, or another value; names the
            first one.
    """
    existing(path, 'Label matrix', 'give a .npy or .npz file, or a config')
    try:
        content = read_arrays(path)
        labels = content.get('', content.get('labels'))
        if labels is None:
            labels = np.unpackbits(
                content['packed'], axis=1)[:, :int(content['num_classes'])]
        if labels.ndim != 2 or 0 in labels.shape:
            raise ValueError(f'shape {labels.shape}')
        if labels.dtype.kind not in 'biuf':
            raise ValueError(f'values of type {labels.dtype}')
        wrong = np.argwhere(~np.isin(labels, (PRESENT, ABSENT, UNKNOWN)))
        if len(wrong):
            row, column = wrong[0]
            raise ValueError(
                f'row {row}, column {column} is {labels[row, column]}, and '
                f'labels are {PRESENT}, {ABSENT} or {UNKNOWN} (unknown)')
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f'{path} holds no (N, C) matrix of labels '
                         f'({error}).') from error
    return labels.astype(np.int8)


def _as_bool(mask: np.ndarray) -> np.ndarray:
    """A matrix of True and False, or of 1 and 0.

    Raises:
        ValueError: For anything else: a NaN would count as known.
    """
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(f'shape {mask.shape}')
    if mask.dtype.kind not in 'biuf' or not np.isin(mask, (0, 1)).all():
        raise ValueError('a mask is 1 (known) or 0 (hidden) everywhere')
    return mask != 0
