"""Scores of known labels, class by class, in memory or on the disk.

An average precision needs the scores of the known labels alone. Where most
labels are missing, these are few. Where there are too many for the memory, they
wait in a temporary file until their class is measured.
"""
import tempfile
from typing import BinaryIO, Iterator, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from mmengine.dist import all_gather_object, gather_object, is_main_process

from trm_ml_mm.labels import PRESENT, UNKNOWN

PIECE = 1 << 22  # entries that are sorted together
BLOCK = 1 << 24  # entries that are measured together
FIELDS = dict(scores=np.float32, logits=np.float32, positive=np.bool_)


class Entries(NamedTuple):
    """K known labels, sorted by class."""

    offsets: np.ndarray  # (c + 1,) where each of c classes begins
    scores: np.ndarray  # (K,) float32
    logits: np.ndarray  # (K,) float32
    positive: np.ndarray  # (K,) bool

    def of_class(self, c: int, by_logits: bool
                 ) -> Tuple[np.ndarray, np.ndarray]:
        """Logits or scores of one class, and whether each is of a positive."""
        where = slice(self.offsets[c], self.offsets[c + 1])
        return ((self.logits if by_logits else self.scores)[where],
                self.positive[where])

    def classes(self, first: int, last: int) -> 'Entries':
        """The classes from ``first`` to ``last - 1``."""
        begin, end = self.offsets[first], self.offsets[last]
        return Entries(self.offsets[first:last + 1] - begin, *(
            getattr(self, name)[begin:end] for name in FIELDS))

    @property
    def bytes(self) -> int:
        return sum(column.nbytes for column in self)


class StoredEntries(NamedTuple):
    """The same in a file, column after column. It is read and not mapped: the
    pages of a map count as memory of the process."""

    offsets: np.ndarray
    file: BinaryIO
    start: int  # byte of the file where the columns begin

    @classmethod
    def write(cls, entries: Entries, file: BinaryIO) -> 'StoredEntries':
        """Append to an unbuffered file.

        Raises:
            OSError: If the disk is full; says what to do.
        """
        start = file.seek(0, 2)
        try:
            for name in FIELDS:
                rest = getattr(entries, name).view(np.uint8)
                while len(rest):  # a write may take a part
                    rest = rest[file.write(rest):]
        except OSError as error:
            raise OSError(
                f'Scores of the test set do not fit into '
                f'{tempfile.gettempdir()} ({error}): set TMPDIR to a folder '
                'with more room, or raise max_memory of the metric.'
            ) from error
        return cls(entries.offsets, file, start)

    def classes(self, first: int, last: int) -> Entries:
        """The classes from ``first`` to ``last - 1``, in memory."""
        begin, end = self.offsets[first], self.offsets[last]
        columns, start = [], self.start
        for dtype in map(np.dtype, FIELDS.values()):
            column = np.empty(end - begin, dtype)
            self.file.seek(start + begin * dtype.itemsize)
            if self.file.readinto(column) != column.nbytes:
                raise OSError('The temporary file of scores was cut off.')
            columns.append(column)
            start += self.offsets[-1] * dtype.itemsize
        return Entries(self.offsets[first:last + 1] - begin, *columns)


def joined(parts: List[Entries]) -> Entries:
    """Entries of the same classes, from several pieces or ranks."""
    if len(parts) == 1:
        return parts[0]
    counts = np.stack([np.diff(part.offsets) for part in parts])
    classes = np.concatenate([
        np.repeat(np.arange(len(count), dtype=np.int32), count)
        for count in counts])
    order = np.argsort(classes, kind='stable')
    return Entries(np.concatenate([[0], np.cumsum(counts.sum(0))]), *(
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in FIELDS))


def entries_of(rows: torch.Tensor) -> Entries:
    """The known labels of a batch.

    Args:
        rows: ``(B, 3, C)`` fp32: scores, logits, labels.
    """
    scores, logits, targets = rows.permute(1, 2, 0).contiguous().numpy()
    known = targets != UNKNOWN  # C B
    offsets = np.concatenate([[0], np.cumsum(known.sum(1))])
    return Entries(offsets, scores[known], logits[known],
                   targets[known] == PRESENT)


class KnownEntries:
    """Collects the known labels of this rank's images.

    Args:
        max_memory: Bytes; what is more goes to the disk, into a file without a
            name in the folder for temporary files (TMPDIR). However the
            process ends, the file is gone.
    """

    def __init__(self, max_memory: int):
        self.max_memory = max_memory
        self.fresh: List[Entries] = []  # of single batches
        self.pieces: List[Union[Entries, StoredEntries]] = []
        self.file: Optional[BinaryIO] = None

    def add(self, rows: torch.Tensor) -> None:
        """Take the labels of a batch; see :func:`entries_of`."""
        self.fresh.append(entries_of(rows))
        if sum(len(part.scores) for part in self.fresh) >= PIECE or (
                sum(part.offsets.nbytes for part in self.fresh) >= 4 * PIECE):
            self._join()

    def _join(self) -> None:
        if not self.fresh:
            return
        self.pieces.append(joined(self.fresh))
        self.fresh = []
        in_memory = [i for i, piece in enumerate(self.pieces)
                     if isinstance(piece, Entries)]
        if sum(self.pieces[i].bytes for i in in_memory) > self.max_memory:
            if self.file is None:
                self.file = tempfile.TemporaryFile(buffering=0)
            for i in in_memory:
                self.pieces[i] = StoredEntries.write(self.pieces[i], self.file)

    def blocks(self) -> Iterator[Optional[Entries]]:
        """The labels of all ranks, a block of classes at a time, in order.

        Every rank has to go through all blocks.

        Yields:
            Entries of the block's classes; None on all ranks but the main one.
        """
        self._join()
        own = [np.diff(piece.offsets) for piece in self.pieces]
        counts = sum(all_gather_object(np.sum(own, 0) if own else 0))
        for first, last in class_blocks(np.atleast_1d(counts)):
            mine = [piece.classes(first, last) for piece in self.pieces]
            found = gather_object(joined(mine) if mine else None)
            yield joined([part for part in found if part is not None]
                         ) if is_main_process() else None

    def close(self) -> None:
        """Forget everything; the temporary file is removed."""
        self.pieces, self.fresh = [], []
        if self.file is not None:
            self.file.close()
            self.file = None


def class_blocks(counts: np.ndarray) -> List[Tuple[int, int]]:
    """Split classes into blocks of about :data:`BLOCK` entries, at least one
    class each.

    Args:
        counts: ``(C,)`` entries of each class.
    """
    blocks, first, total = [], 0, 0
    for c, count in enumerate(counts):
        if c > first and total + count > BLOCK:
            blocks.append((first, c))
            first, total = c, 0
        total += count
    return [*blocks, (first, len(counts))]
