"""Tables of labels in CSV files, read and written: the one parser of them."""
import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np

from trm_ml_mm.utils.io import read_text, write_text

from .image_names import ImageNames
from .names import class_names
from .values import ABSENT, PRESENT, UNKNOWN

# Tables with blanks often come back from a program as 1.0 and 0.0.
VALUES = {'1': PRESENT, '1.0': PRESENT, '0': ABSENT, '0.0': ABSENT,
          '': UNKNOWN}
CELLS = {PRESENT: '1', ABSENT: '0', UNKNOWN: ''}


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table are called.

    Args:
        image: The column of image paths.
        positive: In the form with lists, the column of present classes.
        negative: The column of absent ones.
        separator: Between names in a list.
        ignored: Columns that are not labels.
    """

    image: str = 'image'
    positive: str = 'positive'
    negative: str = 'negative'
    separator: str = ';'
    ignored: Tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Images and their labels; most of them may be unknown.

    ``dataclasses.replace(table, labels=other)`` is the same table with other
    labels: its file keeps its form, its order and its other columns.

    Args:
        images: N names, as the file has them.
        classes: C names.
        labels: ``(N, C)`` int8 in {PRESENT, ABSENT, UNKNOWN}.
        columns: What the columns are called.
        header: All columns in the order of the file. None: the image, then
            the classes.
        extra: Cells of the columns that are not labels, N for each.
        source: The file, for messages.
        lines: N line numbers in it.

    Raises:
        ValueError: If the sizes do not fit, a value is no label, a class
            or an image is there twice, or has no name.
    """

    images: List[str]
    classes: List[str]
    labels: np.ndarray
    columns: TableColumns = TableColumns()
    header: Optional[List[str]] = None
    extra: Dict[str, List[str]] = field(default_factory=dict)
    source: str = 'the table'
    lines: Optional[List[int]] = None

    def __post_init__(self):
        class_names(self.classes)
        size = len(self.images), len(self.classes)
        if self.labels.shape != size:
            raise ValueError(f'The labels have the shape {self.labels.shape}, '
                             f'and there are {size[0]} images and {size[1]} '
                             'classes.')
        if not np.isin(self.labels, (PRESENT, ABSENT, UNKNOWN)).all():
            raise ValueError(f'Labels are {PRESENT} (present), {ABSENT} '
                             f'(absent) or {UNKNOWN} (unknown).')
        listed = ImageNames(Path(), must_exist=False)
        for row, image in enumerate(self.images):
            listed.path(image, self.where(row))

    def where(self, row: int) -> str:
        """File and line of an image, for messages."""
        line = f'row {row + 1}' if self.lines is None else (
            f'line {self.lines[row]}')
        return f'{self.source} {line}'


class TableRow(NamedTuple):
    """A line of a CSV file that is not blank."""

    line: int  # its number; a quoted cell may go over several lines
    cells: List[str]  # without space around them
    raw: List[str]


def read_table(path: Union[str, Path],
               classes: Union[None, str, Sequence[str]] = None,
               columns: TableColumns = TableColumns(),
               advice: str = 'correct its path') -> LabelTable:
    """Read a table of labels; a blank cell is an unknown label.

    One column per class, 1 present, 0 absent, blank unknown::

        image,dog,cat,red car
        a.jpg,1,0,
        b.jpg,,,1

    or one column of present and one of absent classes, each a list with ';'
    between names; a class in neither column is unknown::

        image,positive,negative
        a.jpg,dog,cat
        b.jpg,red car,

    Args:
        path: The CSV file, UTF-8, with a header line.
        classes: As :func:`class_names`. With one column per class, the
            columns and the order of the labels, whatever the order of the
            columns (default: as in the header). With lists, it is required.
        columns: What the columns are called.
        advice: What to do if the file is missing.

    Raises:
        ValueError: For an unknown class, a value that is not 1, 0 or blank, a
            line with too few or too many cells, a repeated image, an empty
            file, or another encoding. The message has file and line.
        FileNotFoundError: If there is no such file.
    """
    rows = table_rows(path, columns, advice)
    header = next(rows).cells
    names = _classes(header, classes, path, columns)
    read = _label_reader(header, names, columns)
    place = {name: c for c, name in enumerate(header)}
    own = {columns.image, *_label_columns(header, names, columns)}
    extra = {name: [] for name in header if name not in own}
    images, labels, lines = [], [], []
    for row in rows:
        images.append(row.cells[place[columns.image]])
        labels.append(read(row.cells, f'{path} line {row.line}'))
        lines.append(row.line)
        for name, cells in extra.items():
            cells.append(row.raw[place[name]])
    if not images:
        raise ValueError(f'{path} has a header and no image.')
    return LabelTable(images, list(names), np.stack(labels), columns, header,
                      extra, str(path), lines)


def read_classes(path: Union[str, Path],
                 classes: Union[None, str, Sequence[str]] = None,
                 columns: TableColumns = TableColumns(),
                 advice: str = 'correct its path') -> Tuple[str, ...]:
    """The class names of a table, from its header alone; arguments and errors
    as :func:`read_table`."""
    header = next(table_rows(path, columns, advice)).cells
    return _classes(header, classes, path, columns)


def write_table(path: Union[str, Path], table: LabelTable) -> None:
    """Write a table in the form it was read in: :func:`read_table` with the
    same classes and columns gives it back.

    Rows, columns and the cells of other columns stay as they are. A list has
    its names in the order of the classes.

    Raises:
        ValueError: If a name cannot stand in such a file; says which.
    """
    columns = table.columns
    header = table.header or [columns.image, *table.classes]
    cells = {columns.image: table.images, **table.extra}
    if columns.positive in header:
        write = partial(_listed, table=table)
        cells.update({columns.positive: map(write, table.labels == PRESENT),
                      columns.negative: map(write, table.labels == ABSENT)})
        if columns.negative not in header and (table.labels == ABSENT).any():
            header = [*header, columns.negative]
        bad = [n for n in table.classes if columns.separator in n]
        if bad:
            raise ValueError(f'The class "{bad[0]}" cannot stand in a list '
                             f'whose separator is "{columns.separator}": '
                             'write one column per class.')
    else:
        for name, values in zip(table.classes, table.labels.T.tolist()):
            if name in cells:
                raise ValueError(f'The class "{name}" has the name of another '
                                 'column: rename that column.')
            cells[name] = map(CELLS.__getitem__, values)
    for name in (*header, *table.classes, *table.images):
        if not name or name != name.strip().lstrip('\ufeff'):
            raise ValueError(f'{name!r} cannot be a name in a table, which '
                             'drops space around names: correct it.')
    lines = [header, *zip(*(cells[name] for name in header))]
    write_text(path, ''.join(map(_csv_line, lines)))


def _csv_line(cells: Sequence[str]) -> str:
    """One line that ends in \\n; a lone \\r in a cell is quoted, which Python
    does only for the line ending \\r\\n."""
    line = io.StringIO()
    csv.writer(line, lineterminator='\r\n').writerow(cells)
    return line.getvalue()[:-2] + '\n'


def _listed(chosen: np.ndarray, table: LabelTable) -> str:
    return table.columns.separator.join(
        table.classes[c] for c in np.flatnonzero(chosen))


def table_rows(path: Union[str, Path],
               columns: TableColumns = TableColumns(),
               advice: str = 'correct its path') -> Iterator[TableRow]:
    """Every line that is not blank, whatever its cells mean; the header comes
    first. Read line by line: a large table need not fit in memory as cells.
    Arguments and errors as :func:`read_table`."""
    text = read_text(path, 'CSV file', advice=advice)
    reader = csv.reader(io.StringIO(text), strict=True)
    header, start = None, 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f'{path} line {start} cannot be read ({error}): '
                'is a quotation mark missing?') from error
        if row is None:
            break
        cells = list(map(str.strip, row))
        if any(cells):
            if header is None:
                header = cells
                _check_header(header, path, columns)
            elif len(cells) != len(header):
                raise ValueError(
                    f'{path} line {start} has {len(cells)} cells and the '
                    f'header {len(header)}: give every column a cell, '
                    'blank where the label is unknown.')
            yield TableRow(start, cells, row)
        start = reader.line_num + 1
    if header is None:
        raise ValueError(f'{path} has no header line, only blank cells: '
                         'the first line names the columns.')


def _check_header(header: List[str], path, columns: TableColumns) -> None:
    if columns.image not in header:
        hint = next((f' It seems to be separated by "{mark}"; save it '
                     'with commas.' for mark in ';\t' if mark in header[0]),
                    '')
        raise ValueError(
            f'{path} line 1 has no column "{columns.image}" but '
            f'{", ".join(header)}: name the column of image paths so, or '
            f'set image_column.{hint}')
    if '' in header:
        raise ValueError(f'{path} line 1: column {header.index("") + 1} '
                         'has no name; name it, or delete it.')
    twice = [name for name, n in Counter(header).items() if n > 1]
    if twice:
        raise ValueError(f'{path} line 1 has the column "{twice[0]}" '
                         'twice: drop one.')


def _classes(header: List[str], classes, path,
             columns: TableColumns) -> Tuple[str, ...]:
    known = {columns.image, *columns.ignored}
    lists = (columns.positive, columns.negative)
    if columns.positive in header:
        other = [n for n in header if n not in (*known, *lists)]
        if other:
            raise ValueError(
                f'{path} line 1: the column "{other[0]}" is neither '
                f'"{columns.image}" nor "{lists[0]}" nor "{lists[1]}"; '
                'correct its name, or put it into ignore_columns.')
        if classes is None:
            raise ValueError(
                f'{path} lists class names in a column, so the data set '
                'needs classes: all names, or a file with one a line.')
        return class_names(classes)
    titles = [name for name in header if name not in known]
    if not titles:
        raise ValueError(f'{path} line 1 has no column of labels, only '
                         f'"{columns.image}".')
    if classes is None:
        return class_names(titles)
    classes = class_names(classes)
    unknown = sorted(set(titles) ^ set(classes))
    if unknown:
        where = ('a column of the file but not among classes, which are '
                 'those of the model or the training set: delete it, or put '
                 'it into ignore_columns' if unknown[0] in titles else
                 'among classes but no column of the file: add the column, '
                 'blank where nobody knows')
        more = len(unknown) - 1
        raise ValueError(f'{path} line 1: "{unknown[0]}" is {where}'
                         f'{f" ({more} more differ)" if more else ""}.')
    return classes


def _label_columns(header: List[str], classes: Sequence[str],
                   columns: TableColumns) -> Sequence[str]:
    """The columns that labels are in."""
    if columns.positive in header:
        return columns.positive, columns.negative
    return classes


def _label_reader(header: List[str], classes: Sequence[str],
                  columns: TableColumns
                  ) -> Callable[[List[str], str], np.ndarray]:
    """A function of the cells of a line, and of where it is, that returns its
    labels, ``(C,)`` int8."""
    place = {name: c for c, name in enumerate(header)}
    if columns.positive in header:
        places = [(title, place[title], value) for title, value in (
            (columns.positive, PRESENT), (columns.negative, ABSENT))
            if title in place]
        return partial(_from_lists, places=places,
                       index={name: c for c, name in enumerate(classes)},
                       separator=columns.separator)
    return partial(_from_columns, classes=classes,
                   places=[place[name] for name in classes])


def _from_columns(cells: List[str], where: str, classes: Sequence[str],
                  places: List[int]) -> np.ndarray:
    found = list(map(cells.__getitem__, places))
    try:
        return np.fromiter(map(VALUES.__getitem__, found), np.int8)
    except KeyError as error:
        name = classes[found.index(error.args[0])]
        raise ValueError(
            f'{where}, column "{name}" has the value '
            f'"{error.args[0][:40]}"; labels are 1 (present), 0 (absent) '
            'or blank (unknown).') from None


def _from_lists(cells: List[str], where: str,
                places: List[Tuple[str, int, int]], index: Dict[str, int],
                separator: str) -> np.ndarray:
    labels = np.full(len(index), UNKNOWN, np.int8)
    for title, place, value in places:
        for name in cells[place].split(separator):
            name = name.strip()
            if not name:
                continue
            if name not in index:
                raise ValueError(
                    f'{where}, column "{title}" has "{name}", which is '
                    f'not among the {len(index)} classes.')
            c = index[name]
            if labels[c] not in (UNKNOWN, value):
                raise ValueError(f'{where} has "{name}" both as present '
                                 'and as absent.')
            labels[c] = value
    return labels
