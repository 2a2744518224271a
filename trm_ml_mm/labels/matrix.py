"""Labels of many images, dense or sparse, behind one interface.

A fully labelled set is a dense array. Where most labels are missing, rows are
sparse: they list the known labels alone, in files that all processes of a
machine share (:class:`SparseLabels`). A row is made dense when it is used.
"""
import hashlib
import json
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.utils.arrays import LIMIT, map_array
from trm_ml_mm.utils.io import atomic_write, existing, read_json, write_text

from .summary import LabelSummary, summarize_labels
from .values import ABSENT, PRESENT, UNKNOWN

CHUNK = 1 << 22  # labels that are handled at once
FORMAT = 1  # of the files of SparseLabels


class LabelMatrix(ABC):
    """Labels of N images for C classes: PRESENT, ABSENT or UNKNOWN."""

    shape: Tuple[int, int]  # (N, C)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def rows(self, indices: Sequence[int]) -> np.ndarray:
        """Labels of some images, ``(n, C)`` int8."""

    @abstractmethod
    def known(self, index: int) -> Tuple[np.ndarray, np.ndarray]:
        """The known labels of an image: classes ``(k,)`` int64, ascending, and
        their labels ``(k,)`` int8, PRESENT or ABSENT."""

    @abstractmethod
    def summary(self) -> LabelSummary:
        """Numbers of labels of each kind."""

    @abstractmethod
    def select(self, indices: Sequence[int]) -> 'LabelMatrix':
        """The labels of some images."""

    @abstractmethod
    def keep(self, blocks: Iterator[Tuple[int, np.ndarray]]
             ) -> Tuple['LabelMatrix', np.ndarray]:
        """Hide labels.

        Args:
            blocks: (first row, ``(n, C)`` bool, True = known) of all rows in
                order.

        Returns:
            The labels that stay known; and the mask: ``(N, C)`` bool of a
            dense matrix, ``(K,)`` bool of the K labels that a sparse one
            lists, in the order of its rows.
        """

    @abstractmethod
    def without(self, other: 'LabelMatrix') -> 'LabelMatrix':
        """The labels that ``other``, which comes from :meth:`keep`, lacks."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the labels."""

    def row(self, index: int) -> np.ndarray:
        """Labels of one image, ``(C,)`` int8."""
        return self.rows([index])[0]

    def dense(self) -> np.ndarray:
        """All labels, ``(N, C)`` int8.

        Raises:
            ValueError: If they would take more than 4 GB.
        """
        images, classes = self.shape
        if images * classes > LIMIT:
            raise ValueError(
                f'{images:,} x {classes:,} labels would take '
                f'{images * classes / 1e9:.1f} GB, and at most '
                f'{LIMIT / 1e9:.1f} GB are made dense: take fewer images or '
                'classes.')
        return self.rows(range(images))

    def blocks(self) -> Iterator[Tuple[int, np.ndarray]]:
        """(First row, ``(n, C)`` labels) of all rows in order."""
        step = rows_at_once(self.shape[1])
        for start in range(0, len(self), step):
            yield start, self.rows(range(start, min(start + step, len(self))))


def rows_at_once(num_classes: int) -> int:
    """How many rows of a matrix are made dense at once."""
    return max(1, CHUNK // max(num_classes, 1))


class DenseLabels(LabelMatrix):
    """Labels in one array.

    Args:
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
    """

    def __init__(self, labels: np.ndarray):
        self.labels = labels.astype(np.int8, copy=False)
        self.shape = labels.shape

    def rows(self, indices: Sequence[int]) -> np.ndarray:
        if isinstance(indices, range) and indices == range(len(self)):
            return self.labels
        return self.labels[np.asarray(indices, np.int64)]

    def known(self, index: int) -> Tuple[np.ndarray, np.ndarray]:
        classes = np.flatnonzero(self.labels[index] != UNKNOWN)
        return classes, self.labels[index, classes]

    def summary(self) -> LabelSummary:
        return summarize_labels(self.labels)

    def select(self, indices: Sequence[int]) -> 'DenseLabels':
        return DenseLabels(self.rows(indices))

    def keep(self, blocks: Iterator[Tuple[int, np.ndarray]]
             ) -> Tuple['DenseLabels', np.ndarray]:
        mask = np.empty(self.shape, bool)
        for start, rows in blocks:
            mask[start:start + len(rows)] = rows
        labels = np.where(mask, self.labels, UNKNOWN).astype(np.int8)
        return DenseLabels(labels), mask

    def without(self, other: LabelMatrix) -> 'DenseLabels':
        return DenseLabels(np.where(other.dense() == UNKNOWN, self.labels,
                                    UNKNOWN))

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.labels.tobytes()).hexdigest()[:16]


class SparseLabels(LabelMatrix):
    """Known labels of each image in a list; all others are unknown.

    A label is one number, ``2 * class + label``, so that 57 million labels of
    9 million images take 187 MB. Nothing writes to the arrays: from files
    (:meth:`open`) they are memory-mapped, and every process of a machine reads
    the same copy.

    Args:
        offsets: ``(N + 1,)`` int64: the labels of image i are
            ``codes[offsets[i]:offsets[i + 1]]``.
        codes: ``(K,)`` uint16 or uint32, ascending within an image.
        num_classes: C.
        folder: Where they are stored; see :meth:`open`.
        digest: If it is known.

    Raises:
        ValueError: If the arrays do not belong together.
    """

    def __init__(self, offsets: np.ndarray, codes: np.ndarray,
                 num_classes: int, folder: Union[None, str, Path] = None,
                 digest: Optional[str] = None):
        self.offsets, self.codes = offsets, codes
        self.shape = (len(offsets) - 1, num_classes)
        self.folder = folder
        if digest is not None:
            self.digest = digest  # in the place of the cached property
        if offsets.ndim != 1 or codes.ndim != 1 or len(offsets) < 1 or (
                offsets.dtype != np.int64 or codes.dtype.kind != 'u'
                or offsets[0] != 0 or offsets[-1] != len(codes)):
            raise ValueError(f'{self._name}: offsets and codes do not belong '
                             'together.')

    @property
    def _name(self) -> str:
        return 'The sparse labels' if self.folder is None else (
            f'{self.folder} is damaged (make it again)')

    def _codes(self, index: int) -> np.ndarray:
        """Codes of one image.

        Raises:
            ValueError: If they cannot be labels of these classes.
        """
        start, stop = self.offsets[index], self.offsets[index + 1]
        codes = self.codes[start:stop]
        if stop < start or (len(codes) and codes[-1] >= 2 * self.shape[1]):
            raise ValueError(f'{self._name}: image {index} has no labels of '
                             f'{self.shape[1]} classes.')
        return codes

    def known(self, index: int) -> Tuple[np.ndarray, np.ndarray]:
        codes = self._codes(index + len(self) * (index < 0))
        return (codes >> 1).astype(np.int64), (codes & 1).astype(np.int8)

    def rows(self, indices: Sequence[int]) -> np.ndarray:
        found = np.full((len(indices), self.shape[1]), UNKNOWN, np.int8)
        for row, index in zip(found, indices):
            classes, labels = self.known(index)
            row[classes] = labels
        return found

    def summary(self) -> LabelSummary:
        counts = np.zeros(2 * self.shape[1], np.int64)
        for start in range(0, len(self.codes), CHUNK):
            counts += np.bincount(self.codes[start:start + CHUNK],
                                  minlength=len(counts))
        negative, positive = counts[ABSENT::2], counts[PRESENT::2]
        empty = sum(
            int((np.diff(self.offsets[start:start + CHUNK + 1]) == 0).sum())
            for start in range(0, len(self), CHUNK))
        return LabelSummary(positive, negative,
                            len(self) - positive - negative, empty)

    def select(self, indices: Sequence[int]) -> 'SparseLabels':
        indices = np.asarray(indices, np.int64)
        starts = self.offsets[indices]
        offsets = np.concatenate(
            [[0], np.cumsum(self.offsets[indices + 1] - starts)])
        codes = np.empty(offsets[-1], self.codes.dtype)
        for i in range(0, len(indices), CHUNK):
            part = slice(i, i + CHUNK)
            counts = np.diff(offsets[i:i + CHUNK + 1])
            first, last = offsets[i], offsets[min(i + CHUNK, len(indices))]
            # Where each label of these images is.
            where = np.arange(first, last) + np.repeat(
                starts[part] - offsets[:-1][part], counts)
            codes[first:last] = self.codes[where]
        return SparseLabels(offsets, codes, self.shape[1])

    def keep(self, blocks: Iterator[Tuple[int, np.ndarray]]
             ) -> Tuple['SparseLabels', np.ndarray]:
        mask = np.empty(len(self.codes), bool)
        for start, rows in blocks:
            offsets = self.offsets[start:start + len(rows) + 1]
            listed = slice(offsets[0], offsets[-1])
            row = np.repeat(np.arange(len(rows)), np.diff(offsets))
            mask[listed] = rows[row, self.codes[listed] >> 1]
        return (self if mask.all() else self.only(mask)), mask

    def only(self, mask: np.ndarray) -> 'SparseLabels':
        """The labels of a ``(K,)`` mask."""
        kept = np.concatenate([[0], np.cumsum(mask)])
        return SparseLabels(kept[self.offsets], self.codes[mask],
                            self.shape[1])

    def without(self, other: LabelMatrix) -> 'SparseLabels':
        if other is self:
            return SparseLabels(np.zeros(len(self) + 1, np.int64),
                                self.codes[:0], self.shape[1])
        mask = np.empty(len(self.codes), bool)
        for i in range(len(self)):
            mask[self.offsets[i]:self.offsets[i + 1]] = ~np.isin(
                self._codes(i), other._codes(i))
        return self.only(mask)

    @cached_property
    def digest(self) -> str:
        found = hashlib.sha256(f'{self.shape} {self.codes.dtype}'.encode())
        for array in (self.offsets, self.codes):
            for start in range(0, len(array), CHUNK):
                found.update(array[start:start + CHUNK].tobytes())
        return found.hexdigest()[:16]

    def __getstate__(self) -> dict:
        """From files: where they are. A copy would not be shared."""
        state = dict(vars(self))
        if self.folder is not None:
            state.update(offsets=None, codes=None)
        return state

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        if self.folder is not None:
            stored = SparseLabels.open(self.folder)
            self.offsets, self.codes = stored.offsets, stored.codes

    def __deepcopy__(self, memo: dict) -> 'SparseLabels':
        return self  # nothing writes to it

    @classmethod
    def of_pairs(cls, rows: np.ndarray, classes: np.ndarray,
                 labels: np.ndarray, shape: Tuple[int, int]
                 ) -> 'SparseLabels':
        """From a list of labels in any order. A label that is listed twice
        counts once.

        Args:
            rows: ``(K,)`` image of each label.
            classes: ``(K,)`` its class.
            labels: ``(K,)`` PRESENT or ABSENT.
            shape: (N, C).

        Raises:
            ContradictingLabels: If a label is listed as both.
        """
        keys = label_keys(*map(np.asarray, (rows, classes, labels)))
        return cls.of_keys(keys, shape)

    @classmethod
    def of_keys(cls, keys: np.ndarray, shape: Tuple[int, int]
                ) -> 'SparseLabels':
        """As :meth:`of_pairs`, of one number for each label, which takes less
        memory.

        Args:
            keys: ``(K,)`` of :func:`label_keys`; sorted in place.
            shape: (N, C).

        Raises:
            ContradictingLabels: If a label is listed as both.
        """
        keys.sort()
        if (keys[1:] == keys[:-1]).any():
            keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
        # Only the two labels of one class differ in the last bit alone.
        double = np.flatnonzero((keys[1:] ^ keys[:-1]) == 1)
        if len(double):
            key = int(keys[double[0]])
            raise ContradictingLabels(key >> 32, (key & 0xffffffff) >> 1)
        images, classes = shape
        offsets = np.zeros(images + 1, np.int64)
        for start in range(0, len(keys), CHUNK):
            offsets[1:] += np.bincount(
                (keys[start:start + CHUNK] >> 32).astype(np.int64),
                minlength=images)
        np.cumsum(offsets, out=offsets)
        kind = np.uint16 if 2 * classes <= 1 << 16 else np.uint32
        return cls(offsets, (keys & 0xffffffff).astype(kind), classes)

    @classmethod
    def of_rows(cls, matrix: LabelMatrix) -> 'SparseLabels':
        """The same labels, sparse."""
        keys = [np.empty(0, np.uint64)]
        for start, rows in matrix.blocks():
            image, c = np.nonzero(rows != UNKNOWN)
            keys.append(label_keys(image + start, c, rows[image, c]))
        return cls.of_keys(np.concatenate(keys), matrix.shape)

    def save(self, folder: Union[str, Path]) -> None:
        """Write ``offsets.npy``, ``codes.npy`` and, when both are whole,
        ``meta.json`` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ('offsets', 'codes'):
            with atomic_write(folder / f'{name}.npy') as fresh, \
                    open(fresh, 'wb') as file:
                np.save(file, getattr(self, name), allow_pickle=False)
        write_text(folder / 'meta.json', json.dumps(dict(
            format=FORMAT, images=self.shape[0], classes=self.shape[1],
            labels=len(self.codes), digest=self.digest)))

    @classmethod
    def open(cls, folder: Union[str, Path]) -> 'SparseLabels':
        """Labels that :meth:`save` wrote, memory-mapped.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If one is damaged.
        """
        folder = Path(folder)
        advice = 'import the labels again'
        meta = read_json(folder / 'meta.json', 'description of sparse labels',
                         advice=advice)
        try:
            arrays = [map_array(existing(folder / f'{name}.npy', 'Label file',
                                         advice))
                      for name in ('offsets', 'codes')]
            if meta['format'] != FORMAT or (
                    meta['images'] != len(arrays[0]) - 1
                    or meta['labels'] != len(arrays[1])):
                raise ValueError('its files do not belong together')
            return cls(*arrays, int(meta['classes']), folder,
                       str(meta['digest']))
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(f'{folder} holds no sparse labels ({error}): '
                             'remove it and import the labels again.'
                             ) from error


def label_keys(rows: np.ndarray, classes: np.ndarray, labels: np.ndarray
               ) -> np.ndarray:
    """One number for each label, ``(K,)`` uint64: ``row << 32 | class << 1 |
    label``. In place: there may be half a gigabyte of each.

    Args:
        rows: ``(K,)`` image of each label.
        classes: ``(K,)`` its class.
        labels: ``(K,)`` PRESENT or ABSENT.
    """
    keys = rows.astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= classes.astype(np.uint64) << np.uint64(1)
    keys |= labels.astype(np.uint64)
    return keys


class ContradictingLabels(ValueError):
    """A label that is listed as present and as absent.

    Attributes:
        row: Of the image.
        number: Of the class.
    """

    def __init__(self, row: int, number: int):
        super().__init__(f'Image {row} has class {number} as present and as '
                         'absent: correct one of them.')
        self.row, self.number = row, number


def stacked(parts: Sequence[LabelMatrix]) -> LabelMatrix:
    """The labels of several data sets, one after the other; sparse if one of
    them is."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, DenseLabels) for part in parts):
        return DenseLabels(np.concatenate([part.labels for part in parts]))
    parts = [part if isinstance(part, SparseLabels)
             else SparseLabels.of_rows(part) for part in parts]
    starts = np.cumsum([0, *(len(part.codes) for part in parts)])
    offsets = np.concatenate([[0], *(part.offsets[1:] + start for part, start
                                     in zip(parts, starts))])
    return SparseLabels(offsets, np.concatenate([p.codes for p in parts]),
                        parts[0].shape[1])
