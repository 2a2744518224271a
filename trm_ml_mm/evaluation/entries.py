"""Scores of known labels, class by class, in memory or on the disk.

An average precision needs the scores of the known labels alone. Where most
labels are missing, these are few. Where there are too many for the memory, they
wait in a temporary folder until their class is measured.
"""
import tempfile
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, gather_object, is_main_process

from trm_ml_mm.labels import PRESENT, UNKNOWN
from trm_ml_mm.utils.arrays import map_array

PIECE = 1 << 22  # entries that are sorted together
BLOCK = 1 << 24  # entries that are measured together
FIELDS = 'scores', 'logits', 'positive'


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
            np.asarray(getattr(self, name)[begin:end]) for name in FIELDS))

    @property
    def bytes(self) -> int:
        return sum(column.nbytes for column in self)


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
        max_memory: Bytes; what is more goes to the disk.
    """

    def __init__(self, max_memory: int):
        self.max_memory = max_memory
        self.pieces: List[Entries] = []
        self.fresh: List[Entries] = []  # of single batches
        self.folder: Optional[tempfile.TemporaryDirectory] = None

    def add(self, rows: torch.Tensor) -> None:
        """Take the labels of a batch; see :func:`entries_of`."""
        self.fresh.append(entries_of(rows))
        if sum(len(part.scores) for part in self.fresh) >= PIECE or (
                sum(part.offsets.nbytes for part in self.fresh) >= 4 * PIECE):
            self._join()

    def _join(self) -> None:
        if self.fresh:
            self.pieces.append(joined(self.fresh))
            self.fresh = []
        in_memory = [i for i, piece in enumerate(self.pieces)
                     if not isinstance(piece.scores, np.memmap)]
        if sum(self.pieces[i].bytes for i in in_memory) > self.max_memory:
            for i in in_memory:
                self.pieces[i] = self._stored(i)

    def _stored(self, number: int) -> Entries:
        """The same piece, in files."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix='trm_ml_scores_')
        piece, stored = self.pieces[number], []
        for name in FIELDS:
            path = Path(self.folder.name, f'{number}_{name}.npy')
            np.save(path, getattr(piece, name), allow_pickle=False)
            stored.append(map_array(path))
        return Entries(piece.offsets, *stored)

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
        """Forget everything; temporary files are removed."""
        self.pieces, self.fresh = [], []
        if self.folder is not None:
            self.folder.cleanup()
            self.folder = None


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
