"""Your own images, with labels in a CSV file that has blanks."""
import csv
import io
from collections import Counter
from functools import partial
from typing import Dict, Iterator, List, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, class_names
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import read_text

from .base import ImageNames, MultiLabelDataset

# Tables with blanks often come back from a program as 1.0 and 0.0.
VALUES = {'1': PRESENT, '1.0': PRESENT, '0': ABSENT, '0.0': ABSENT,
          '': UNKNOWN}


@DATASETS.register_module()
class CSVMultiLabel(MultiLabelDataset):
    """Images and labels from a CSV file; blank cells are unknown labels.

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
        ann_file: The CSV file, UTF-8, with a header line.
        data_root, data_prefix: Images are ``data_root/data_prefix/<image>``.
        classes: Names, or a file with one name a line. With one column per
            class, the columns and their order (default: as in the header).
            With lists, it is required.
        image_column, positive_column, negative_column: Names in the header.
        separator: Between names in a list.
        ignore_columns: Columns that are not labels.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: For an unknown class, a value that is not 1, 0 or blank, a
            line with too few or too many cells, a repeated image, an empty
            file, or another encoding. The message has file and line.
        FileNotFoundError: If the file, or an image of it, is missing.
    """

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 data_prefix: str = '',
                 classes: Union[None, str, Sequence[str]] = None,
                 image_column: str = 'image',
                 positive_column: str = 'positive',
                 negative_column: str = 'negative',
                 separator: str = ';',
                 ignore_columns: Sequence[str] = (),
                 **kwargs):
        self.data_root = data_root
        self.image_column = image_column
        self.lists = (positive_column, negative_column)
        self.separator = separator
        self.ignore_columns = tuple(ignore_columns)
        self.index = None  # of the class names, in a file of lists
        file = self.root_file(ann_file)
        _, header = next(self._rows(file))
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=dict(classes=self._classes(header, classes, file)),
            **kwargs)

    def _rows(self, path) -> Iterator[Tuple[int, List[str]]]:
        """(Line number, cells) of every line that is not blank; the header
        comes first. Read line by line: a large table need not fit in memory
        as cells."""
        text = read_text(path, 'CSV file', advice='set data_root and ann_file')
        reader = csv.reader(io.StringIO(text), strict=True)
        header, start = None, 1  # a quoted cell may go over several lines
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
                    self._check_header(header, path)
                elif len(cells) != len(header):
                    raise ValueError(
                        f'{path} line {start} has {len(cells)} cells and the '
                        f'header {len(header)}: give every column a cell, '
                        'blank where the label is unknown.')
                yield start, cells
            start = reader.line_num + 1
        if header is None:
            raise ValueError(f'{path} has no header line, only blank cells: '
                             'the first line names the columns.')

    def _check_header(self, header: List[str], path) -> None:
        if self.image_column not in header:
            hint = next((f' It seems to be separated by "{mark}"; save it '
                         'with commas.' for mark in ';\t' if mark in header[0]),
                        '')
            raise ValueError(
                f'{path} line 1 has no column "{self.image_column}" but '
                f'{", ".join(header)}: name the column of image paths so, or '
                f'set image_column.{hint}')
        if '' in header:
            raise ValueError(f'{path} line 1: column {header.index("") + 1} '
                             'has no name; name it, or delete it.')
        twice = [name for name, n in Counter(header).items() if n > 1]
        if twice:
            raise ValueError(f'{path} line 1 has the column "{twice[0]}" '
                             'twice: drop one.')

    def _classes(self, header: List[str], classes, path) -> Tuple[str, ...]:
        known = [self.image_column, *self.ignore_columns]
        if self.lists[0] in header:
            other = [n for n in header if n not in (*known, *self.lists)]
            if other:
                raise ValueError(
                    f'{path} line 1: the column "{other[0]}" is neither '
                    f'"{self.image_column}" nor "{self.lists[0]}" nor '
                    f'"{self.lists[1]}"; correct its name, or put it into '
                    'ignore_columns.')
            if classes is None:
                raise ValueError(
                    f'{path} lists class names in a column, so the data set '
                    'needs classes: all names, or a file with one a line.')
            return class_names(classes)
        columns = [name for name in header if name not in known]
        if not columns:
            raise ValueError(f'{path} line 1 has no column of labels, only '
                             f'"{self.image_column}".')
        if classes is None:
            return class_names(columns)
        classes = class_names(classes)
        unknown = sorted(set(columns) ^ set(classes))
        if unknown:
            where = ('a column of the file but not among classes, which are '
                     'those of the model or the training set: delete it, or '
                     'put it into ignore_columns'
                     if unknown[0] in columns else
                     'among classes but no column of the file: add the '
                     'column, blank where nobody knows')
            more = len(unknown) - 1
            raise ValueError(f'{path} line 1: "{unknown[0]}" is {where}'
                             f'{f" ({more} more differ)" if more else ""}.')
        return classes

    def load_data_list(self) -> List[dict]:
        rows = self._rows(self.ann_file)
        _, header = next(rows)
        column = {name: c for c, name in enumerate(header)}
        if self.lists[0] in header:
            read = partial(self._from_lists, column=column)
        else:
            read = partial(self._from_columns,
                           places=[column[name] for name in self.class_names])
        names = ImageNames(self.image_folder(),
                           must_exist=self.on_error == 'raise')
        data = []
        for number, cells in rows:
            where = f'{self.ann_file} line {number}'
            data.append(dict(
                img_path=names.path(cells[column[self.image_column]], where),
                gt_score=read(cells, where)))
        if not data:
            raise ValueError(f'{self.ann_file} has a header and no image.')
        return data

    def _from_columns(self, cells: List[str], where: str,
                      places: List[int]) -> np.ndarray:
        found = list(map(cells.__getitem__, places))
        try:
            return np.fromiter(map(VALUES.__getitem__, found), np.int8)
        except KeyError as error:
            name = self.class_names[found.index(error.args[0])]
            raise ValueError(
                f'{where}, column "{name}" has the value '
                f'"{error.args[0][:40]}"; labels are 1 (present), 0 (absent) '
                'or blank (unknown).') from None

    def _from_lists(self, cells: List[str], where: str,
                    column: Dict[str, int]) -> np.ndarray:
        classes = self.class_names
        if self.index is None:
            self.index = {name: c for c, name in enumerate(classes)}
        score = np.full(len(classes), UNKNOWN, np.int8)
        for title, value in zip(self.lists, (PRESENT, ABSENT)):
            listed = cells[column[title]] if title in column else ''
            for name in listed.split(self.separator):
                name = name.strip()
                if not name:
                    continue
                if name not in self.index:
                    raise ValueError(
                        f'{where}, column "{title}" has "{name}", which is '
                        f'not among the {len(classes)} classes.')
                c = self.index[name]
                if score[c] not in (UNKNOWN, value):
                    raise ValueError(f'{where} has "{name}" both as present '
                                     'and as absent.')
                score[c] = value
        return score
