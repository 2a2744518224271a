"""Read images from a folder of shards."""
import os
import zlib
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Optional, Union

import numpy as np

from trm_ml_mm.datasets.base import UnreadableImage
from trm_ml_mm.utils.io import existing

from .layout import INDEX, header, map_records, name_hash, shard_path
from .local_copies import LocalCopies

OPEN_FILES = 256  # of one process; the usual limit is 1,024


class Place(NamedTuple):
    """Where an image is."""

    shard: int
    offset: int
    size: int
    crc: int


class ShardFolder:
    """Images of a folder of shards, by name.

    The index is memory-mapped. Tar files are opened when they are needed, and
    read at an offset, so that processes that share an open file (loader
    workers after a fork) do not disturb each other. Threads may share it.

    Args:
        folder: See :mod:`~trm_ml_mm.datasets.shards.layout`.
        copies: Where to keep local copies of shards; None: nowhere.

    Raises:
        FileNotFoundError: If there is no index.
        ValueError: If it is damaged.
    """

    def __init__(self, folder: Union[str, Path],
                 copies: Optional[LocalCopies] = None):
        self.folder, self.copies = Path(folder), copies
        self._open()

    def _open(self) -> None:
        self.records = map_records(self.folder / INDEX)
        self.hashes = self.records['hash']
        self._kept = lru_cache(OPEN_FILES)(self._opened)

    def __getstate__(self) -> dict:
        return dict(folder=self.folder, copies=self.copies)

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.records)

    def find(self, name: str) -> Optional[Place]:
        """Where an image is, by binary search; None: it is not there."""
        wanted = np.uint64(name_hash(name))
        row = bisect_left(self.hashes, wanted)
        if row == len(self.hashes) or self.hashes[row] != wanted:
            return None
        found = self.records[row]
        return Place(*(int(found[key]) for key in Place._fields))

    def where(self, name: str) -> str:
        """The place of an image, in words."""
        place = self.find(name)
        return f'not in {self.folder}' if place is None else (
            f'at byte {place.offset} of '
            f'{shard_path(self.folder, place.shard)}')

    def read(self, name: str) -> Optional[bytes]:
        """The content of an image file; None: it is not there.

        Raises:
            UnreadableImage: If the shard is cut off or damaged at this place.
            FileNotFoundError: If the whole shard is missing.
        """
        place = self.find(name)
        if place is None:
            return None
        head = header(name, place.size)
        file = self._file(place.shard)
        count = len(head) + place.size
        left = os.fstat(file.fileno()).st_size - place.offset
        # Before memory is taken: an index may claim any size.
        content = os.pread(file.fileno(), count, place.offset) if (
            left >= count) else b''
        if len(content) < count:
            why = 'the file is cut off'
        elif not content.startswith(head):
            why = 'something else stands there'
        elif zlib.crc32(content[len(head):]) != place.crc:
            why = 'its content has changed'
        else:
            return content[len(head):]
        raise UnreadableImage(
            f'Image {name} cannot be read at byte {place.offset} of '
            f'{file.name}: {why}. Copy this shard again, or make the shards '
            'again.')

    def _file(self, number: int) -> BinaryIO:
        path = shard_path(self.folder, number)
        if self.copies is None:
            return self._kept(path)
        copy = self.copies.path(path)
        # Another process copies just now: the next read will ask again.
        return self._opened(path) if copy is None else self._kept(copy)

    @staticmethod
    def _opened(path: Path) -> BinaryIO:
        """Closes itself when nobody uses it any more."""
        return open(existing(path, 'Shard', 'copy it again, or make the '
                             'shards again'), 'rb', buffering=0)
