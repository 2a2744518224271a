"""Split one table of images and labels into training, validation and test.

The rows stay as they are, with every column of the user: a split is only a
choice of rows.
"""
import csv
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.labels import TableColumns, read_table
from trm_ml_mm.labels.table import table_rows
from trm_ml_mm.utils.configs import SPLITS
from trm_ml_mm.utils.io import atomic_write


class RawTable(NamedTuple):
    """A CSV file as it is: cells are text."""

    path: Path
    columns: TableColumns
    header: List[str]
    rows: List[List[str]]
    lines: List[int]  # the line in the file that each row begins in

    def column(self, name: str) -> List[str]:
        """The cells of a column, without spaces around them.

        Raises:
            ValueError: If there is no such column.
        """
        if name not in self.header:
            raise ValueError(f'{self.path} line 1 has no column "{name}" but '
                             f'{", ".join(self.header)}: correct the name.')
        c = self.header.index(name)
        return [row[c].strip() for row in self.rows]

    @property
    def images(self) -> List[str]:
        """Names of the images."""
        return self.column(self.columns.image)

    @property
    def has_lists(self) -> bool:
        """Whether it lists the names of present classes."""
        return self.columns.positive in self.header

    def where(self, row: int) -> str:
        """File and line of a row, for error messages."""
        return f'{self.path} line {self.lines[row]}'


def read_raw(path: Union[str, Path], columns: TableColumns) -> RawTable:
    """Read a CSV file without asking what its cells mean.

    Raises:
        FileNotFoundError, ValueError: As
            :func:`~trm_ml_mm.labels.read_table`, but for the labels.
    """
    rows = table_rows(path, columns, 'give the path of your table')
    header = next(rows).cells
    found = list(rows)
    if not found:
        raise ValueError(f'{path} has a header and no image.')
    return RawTable(Path(path), columns, header, [row.raw for row in found],
                    [row.line for row in found])


def write_raw(path: Union[str, Path], table: RawTable,
              chosen: Sequence[int]) -> None:
    """Write some rows of a table, as they are."""
    with atomic_write(path) as fresh, open(
            fresh, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(table.header)
        writer.writerows(table.rows[i] for i in chosen)


def read_labels(table: RawTable) -> Tuple[Tuple[str, ...], np.ndarray]:
    """Class names (of lists: sorted) and labels ``(N, C)`` of a table.

    Raises:
        ValueError: If a cell is no label; with file, line and column.
    """
    names = None
    if table.has_lists:
        columns = table.columns
        names = sorted({
            name.strip() for title in (columns.positive, columns.negative)
            if title in table.header for cell in table.column(title)
            for name in cell.split(columns.separator)} - {''})
    found = read_table(table.path, names, table.columns)
    return tuple(found.classes), found.labels


def earlier_split(folder: Union[str, Path], columns: TableColumns
                  ) -> Dict[str, str]:
    """Image -> split, of the tables in a folder.

    Raises:
        FileNotFoundError: If there is no training set.
    """
    return {image: split for split in SPLITS
            for path in [Path(folder, f'{split}.csv')]
            if split != 'test' or path.is_file()
            for image in read_raw(path, columns).images}


def split_by_column(table: RawTable, column: str) -> np.ndarray:
    """Let a column say where each row goes.

    Returns:
        ``(N,)`` indices into :data:`~trm_ml_mm.utils.configs.SPLITS`.

    Raises:
        ValueError: If a cell is not 'train', 'val' or 'test', or no row is
            for training or for validation.
    """
    parts = np.zeros(len(table.rows), np.int64)
    for i, value in enumerate(table.column(column)):
        if value not in SPLITS:
            raise ValueError(f'{table.where(i)}, column "{column}" has '
                             f'"{value[:40]}": it is {", ".join(SPLITS[:2])} '
                             f'or {SPLITS[2]}.')
        parts[i] = SPLITS.index(value)
    for split in SPLITS[:2]:
        if SPLITS.index(split) not in parts:
            raise ValueError(f'{table.path} has no row with "{split}" in the '
                             f'column "{column}": a training needs some.')
    return parts


def split_at_random(sets: np.ndarray, positive: np.ndarray,
                    ratios: Sequence[float], seed: int = 0,
                    kept: Optional[np.ndarray] = None) -> np.ndarray:
    """Deal sets of images out to the splits, at random and stratified.

    Classes come from the rarest to the most common. The sets with a known
    positive of a class go, in random order, to the split that still lacks most
    of this class, as long as it has room (the first-order rule of Sechidis et
    al., "On the stratification of multi-label data", 2011). Every split wants
    at least one positive of a class, if the largest one keeps three.

    Args:
        sets: ``(N,)``; images with the same number stay together.
        positive: ``(N, C)`` bool, known positives.
        ratios: Of images, for each split; they sum to 1. 0: no such split.
        seed: Draws the order.
        kept: ``(N,)`` splits of images that are dealt out already; -1: it is
            not. Their sets go with them.

    Returns:
        ``(N,)`` indices into ``ratios``.

    Raises:
        ValueError: If a split that should have images gets none.
    """
    ratios = np.asarray(ratios, float)
    _, group = np.unique(sets, return_inverse=True)
    sizes = np.bincount(group)
    order = np.argsort(group, kind='stable')
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    counts = np.add.reduceat(positive[order], starts, dtype=np.int32)  # G C
    totals = counts.sum(0)
    wanted = ratios > 0
    lacking = np.maximum(ratios[:, None] * totals, totals >= wanted.sum() + 2)
    lacking[~wanted] = -np.inf
    lacking[ratios.argmax()] -= lacking[wanted].sum(0) - totals
    room = np.where(wanted, ratios * len(sets), -np.inf)
    parts = np.full(len(sizes), -1)
    if kept is not None:
        np.maximum.at(parts, group, kept)
        for g in np.flatnonzero(parts >= 0):
            lacking[parts[g]] -= counts[g]
            room[parts[g]] -= sizes[g]
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    for c in [*np.argsort(totals, kind='stable'), None]:
        queue = shuffled[parts[shuffled] < 0]
        if c is not None:
            queue = queue[counts[queue, c] > 0]
        for g in queue:
            lack = room if c is None else np.where(
                room > 0, lacking[:, c], -np.inf)
            part = parts[g] = np.lexsort((room, lack))[-1]
            lacking[part] -= counts[g]
            room[part] -= sizes[g]
    _fill_empty(parts, sizes, ratios * len(sets),
                kept is not None and bool((kept >= 0).any()))
    return parts[group]


def _fill_empty(parts: np.ndarray, sizes: np.ndarray, wanted: np.ndarray,
                has_kept: bool) -> None:
    """Give a split without any set the one that fits best, of the split with
    most sets; with few large sets, the rule of the classes may leave none.

    Raises:
        ValueError: If there are too few sets.
    """
    for part in np.flatnonzero(wanted):
        if part in parts:
            continue
        richest = np.bincount(parts, minlength=len(wanted)).argmax()
        found = np.flatnonzero(parts == richest)
        if len(found) < 2 or has_kept:
            raise ValueError(
                f'No image is left for {SPLITS[part]}: there are {len(sizes)} '
                f'groups for {sizes.sum()} images, and a group stays '
                'together. Ask for a larger part, or for smaller groups.')
        parts[found[np.abs(sizes[found] - wanted[part]).argmin()]] = part
