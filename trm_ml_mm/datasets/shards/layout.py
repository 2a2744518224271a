"""What a folder of shards looks like.

* ``shard-000000.tar``, ...: image files as they are. ``tar -xf`` unpacks them.
* ``shard-000000.npy``, ...: for each image of that shard, in its order, a
  :data:`RECORD`. A shard without this file is not whole.
* ``index.npy``: the records of all shards, sorted by the hash of the name. It
  is written last.

The name of an image is its path relative to ``data_root``. The index has no
names. A reader knows the name that it looks for, so it also knows the header
that must stand before the image in the tar file, and compares the two. So no
other image can take its place, and nothing in a tar file is ever parsed.
"""
import hashlib
import os
import tarfile
from pathlib import Path
from typing import Union

import numpy as np

from trm_ml_mm.utils.arrays import map_array
from trm_ml_mm.utils.io import existing

RECORD = np.dtype([
    ('hash', '<u8'),  # of the name, see name_hash
    ('offset', '<u8'),  # of the header in the tar file, in bytes
    ('shard', '<u4'),  # number of the tar file
    ('size', '<u4'),  # of the image, in bytes
    ('crc', '<u4'),  # CRC-32 of the image
])
BLOCK = tarfile.BLOCKSIZE
INDEX = 'index.npy'
ADVICE = ('make it with tools/make_shards.py; if that was stopped, give the '
          'same command again')


def shard_path(folder: Union[str, Path], number: int) -> Path:
    """The tar file of a number: no index can name a file elsewhere."""
    return Path(folder) / f'shard-{number:06d}.tar'


def name_hash(name: str) -> int:
    """64 bits of BLAKE2b of a name."""
    content = name.encode('utf-8', 'surrogateescape')
    return int.from_bytes(
        hashlib.blake2b(content, digest_size=8).digest(), 'little')


def header(name: str, size: int) -> bytes:
    """What stands before an image in a tar file: 512 bytes, or more for a
    name of more than 100 bytes. It depends on the arguments only."""
    if len(name) > tarfile.LENGTH_NAME or not name.isascii():
        return _header(name, size)
    # The same ten times faster: it is needed for every image that is read.
    block = bytearray(_HEADER)
    block[:len(name)] = name.encode()
    block[_SIZE] = b'%011o\0' % size
    block[_CHECKSUM] = b' ' * 8
    block[_CHECKSUM] = b'%06o\0 ' % sum(block)
    return bytes(block)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT, 'utf-8', 'surrogateescape')


_HEADER = _header('', 0)
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)


def padding(size: int) -> bytes:
    """What stands after it, up to the next block."""
    return bytes(-size % BLOCK)


def is_inside(name: str) -> bool:
    """Whether a name stays in the folder that a tar file is unpacked in."""
    return bool(name) and '\0' not in name and not os.path.isabs(name) and (
        '..' not in name.split('/'))


def map_records(path: Path) -> np.ndarray:
    """The records of a file, memory-mapped: all processes of a machine share
    them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of another version.
    """
    existing(path, 'The index of shards', ADVICE)
    try:
        records = np.asarray(map_array(path))
    except ValueError as error:
        raise ValueError(f'{path} is damaged ({error}): copy it again, or make '
                         'the shards again.') from error
    if records.dtype != RECORD or records.ndim != 1:
        raise ValueError(f'{path} is no index of shards, or one of another '
                         'version of trm_ml_mm: make the shards again with '
                         'tools/make_shards.py.')
    return records
