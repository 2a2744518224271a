"""Save and load masks of known labels, and matrices of labels."""
import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple, Optional, Union

import numpy as np

from trm_ml_mm.utils.io import atomic_write, existing


def mask_hash(mask: np.ndarray) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the packed mask."""
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]


class Mask(NamedTuple):
    """A saved mask, and the rule and seed it was drawn with."""

    mask: np.ndarray  # (N, C) bool, True = known
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
        content = np.load(path, allow_pickle=False)
        if Path(path).suffix == '.npy':
            if content.ndim != 2:
                raise ValueError(f'shape {content.shape}')
            mask = content != 0
            return Mask(mask, str(path), 'None', mask_hash(mask))
        shape = tuple(content['shape'])
        mask = np.unpackbits(content['packed'])[:shape[0] * shape[1]]
        mask = mask.reshape(shape).astype(bool)
        saved = Mask(mask, *(str(content[k]) for k in Mask._fields[1:]))
    except (ValueError, KeyError, IndexError, OSError, EOFError,
            zipfile.BadZipFile) as error:
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
            with ``packed``, rows of bits, and ``num_classes``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such matrix.
    """
    existing(path, 'Label matrix', 'give a .npy or .npz file, or a config')
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.ndarray):
            if 'labels' in content:
                content = content['labels']
            else:
                content = np.unpackbits(
                    content['packed'], axis=1)[:, :int(content['num_classes'])]
        if content.ndim != 2:
            raise ValueError(f'shape {content.shape}')
    except (ValueError, KeyError, OSError, EOFError,
            zipfile.BadZipFile) as error:
        raise ValueError(f'{path} holds no (N, C) matrix of labels '
                         f'({error}).') from error
    return content.astype(np.int8)
