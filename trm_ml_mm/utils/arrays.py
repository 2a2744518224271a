"""Read NumPy's files: no pickle, and no more memory than they can need."""
import zipfile
from pathlib import Path
from typing import Dict, Union

import numpy as np

# More than the labels of any public data set, and less than a small machine.
LIMIT = 4 * 2**30


def read_arrays(path: Union[str, Path], limit: int = LIMIT
                ) -> Dict[str, np.ndarray]:
    """The arrays of a .npz file by name; of a .npy file one, named ''.

    Sizes are checked before memory is taken: a header may claim anything, and
    four megabytes of zeros unpack to four gigabytes.

    Args:
        path: The file.
        limit: Most bytes that all arrays together may take.

    Raises:
        ValueError: If it is no such file, is cut off, holds objects, or needs
            more than the limit.
        OSError: If it cannot be read.
    """
    try:
        if not zipfile.is_zipfile(path):
            with open(path, 'rb') as file:
                size = Path(path).stat().st_size
                _check(_bytes(file), size - file.tell(), limit)
            return {'': np.load(path, allow_pickle=False)}
        total = 0
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                with archive.open(info) as file:
                    need = _bytes(file)
                    _check(need, info.file_size - file.tell(), limit - total)
                    total += need
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f'{type(error).__name__}: {error}') from error


def map_array(path: Union[str, Path]) -> np.ndarray:
    """The array of a .npy file, memory-mapped: processes share it.

    Raises:
        ValueError: If it is no such file, is cut off, or holds objects.
        OSError: If it cannot be read.
    """
    try:
        with open(path, 'rb') as file:
            size = Path(path).stat().st_size
            need = _bytes(file)
            _check(need, size - file.tell(), need)
        return np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f'{type(error).__name__}: {error}') from error


def _bytes(file) -> int:
    """What the header of an open .npy file says its array takes."""
    version = np.lib.format.read_magic(file)
    read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
            else np.lib.format.read_array_header_2_0)
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError('it holds Python objects, which could run code')
    size = dtype.itemsize
    for length in shape:
        if length < 0:
            raise ValueError(f'shape {shape}')
        size *= length
    return size


def _check(need: int, have: int, limit: int) -> None:
    if need != have:
        raise ValueError(f'its header says {need} bytes and it has {have}')
    if need > limit:
        raise ValueError(f'its arrays take {need / 1e9:.1f} GB, and at most '
                         f'{limit / 1e9:.1f} GB are read')
