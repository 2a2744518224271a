"""Split one table of images and labels into training, validation and test.

The rows stay as they are, with every column of the user: a split is only a
choice of rows.
"""
import csv
import io
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, class_names
from trm_ml_mm.labels.table import VALUES
from trm_ml_mm.utils.configs import SPLITS
from trm_ml_mm.utils.io import atomic_write, read_text


class Table(NamedTuple):
    """A CSV file as it is: cells are text."""

    path: Path
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

    def where(self, row: int) -> str:
        """File and line of a row, for error messages."""
        return f'{self.path} line {self.lines[row]}'


def read_table(path: Union[str, Path]) -> Table:
    """Read a CSV file without asking what its cells mean.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no CSV file in UTF-8 with a header, a column has
            no name or the name of another one, or a line has too few or too
            many cells.
    """
    text = read_text(path, 'CSV file', advice='give the path of your table')
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    rows, lines, start = [], [], 1  # a quoted cell may go over several lines
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f'{path} line {start} cannot be read ({error}): is a '
                         'quotation mark missing?') from error
    header, rows = [name.strip() for name in rows[0]], rows[1:]
    for c, name in enumerate(header):
        if not name:
            raise ValueError(f'{path} line 1: column {c + 1} has no name; '
                             'name it, or delete it.')
        if name in header[:c]:
            raise ValueError(f'{path} line 1 has the column "{name}" twice: '
                             'drop one.')
    for row, line in zip(rows, lines[1:]):
        if len(row) != len(header):
            raise ValueError(
                f'{path} line {line} has {len(row)} cells and the header '
                f'{len(header)}: give every column a cell, blank where the '
                'label is unknown.')
    if not rows:
        raise ValueError(f'{path} has a header and no image.')
    return Table(Path(path), header, rows, lines[1:])


def write_table(path: Union[str, Path], table: Table,
                chosen: Sequence[int]) -> None:
    """Write some rows of a table, as they are."""
    with atomic_write(path) as fresh, open(
            fresh, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(table.header)
        writer.writerows(table.rows[i] for i in chosen)


def read_labels(table: Table, others: Sequence[str] = (),
                lists: Tuple[str, str] = ('positive', 'negative'),
                separator: str = ';') -> Tuple[Tuple[str, ...], np.ndarray]:
    """The labels of a table, in either form of
    :class:`~trm_ml_mm.datasets.CSVMultiLabel`.

    Args:
        table: With one column per class, or with lists of names.
        others: Columns that are no labels.
        lists, separator: As in ``CSVMultiLabel``.

    Returns:
        Class names (of lists: sorted), and ``(N, C)`` int8 labels.

    Raises:
        ValueError: If a cell is no label; with file, line and column.
    """
    if lists[0] in table.header:
        return _labels_of_lists(table, lists, separator)
    names = class_names([n for n in table.header if n not in others])
    labels = np.full((len(table.rows), len(names)), UNKNOWN, np.int8)
    for c, name in enumerate(names):
        for i, cell in enumerate(table.column(name)):
            if cell not in VALUES:
                raise ValueError(
                    f'{table.where(i)}, column "{name}" has the value '
                    f'"{cell[:40]}"; labels are 1 (present), 0 (absent) or '
                    'blank (unknown). If the column is no class, name it with '
                    '--ignore-columns.')
            labels[i, c] = VALUES[cell]
    return names, labels


def _labels_of_lists(table: Table, lists: Tuple[str, str], separator: str
                     ) -> Tuple[Tuple[str, ...], np.ndarray]:
    given = [[{name.strip() for name in cell.split(separator)} - {''}
              for cell in table.column(title)]
             if title in table.header else [] for title in lists]
    names = class_names(sorted(set().union(*given[0], *given[1])))
    index = {name: c for c, name in enumerate(names)}
    labels = np.full((len(table.rows), len(names)), UNKNOWN, np.int8)
    for rows, value in zip(given, (PRESENT, ABSENT)):
        for i, listed in enumerate(rows):
            labels[i, [index[name] for name in listed]] = value
    return names, labels


def split_by_column(table: Table, column: str) -> np.ndarray:
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
                    ratios: Sequence[float], seed: int = 0) -> np.ndarray:
    """Deal sets of images out to the splits, at random and stratified.

    Classes come from the rarest to the most common. The sets with a known
    positive of a class go, in random order, to the split that still lacks most
    of this class, as long as it has room (the first-order rule of Sechidis et
    al., "On the stratification of multi-label data", 2011). Every split wants
    at least one positive of a class that has one for each.

    Args:
        sets: ``(N,)``; images with the same number stay together.
        positive: ``(N, C)`` bool, known positives.
        ratios: Of images, for each split; they sum to 1. 0: no such split.
        seed: Draws the order.

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
    lacking = np.maximum(ratios[:, None] * totals, totals >= wanted.sum())
    lacking[~wanted] = -np.inf
    lacking[ratios.argmax()] -= lacking[wanted].sum(0) - totals
    room = np.where(wanted, ratios * len(sets), -np.inf)
    parts = np.full(len(sizes), -1)
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
    for part in np.flatnonzero(wanted):
        if part not in parts:
            raise ValueError(
                f'No image is left for {SPLITS[part]}: there are {len(sizes)} '
                f'groups for {len(sets)} images, and a group stays together. '
                'Ask for a larger part, or for smaller groups.')
    return parts[group]
