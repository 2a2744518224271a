"""The table of all classes, as a CSV file and on the screen."""
import csv
import hashlib
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Union

from rich.markup import escape
from rich.table import Table

from trm_ml_mm.utils.io import atomic_write
from trm_ml_mm.utils.text import plain_cell, printable

from .metrics import MultiLabelAP, PerClass

COLUMNS = ('class', 'AP', 'AP_voc12', 'positives', 'known')


def find_per_class(metrics: Sequence) -> Optional[PerClass]:
    """Per-class metrics of the first AP metric computed on this rank."""
    found = [m.per_class for m in metrics if isinstance(m, MultiLabelAP)]
    return found[0] if found else None


class ScoredClasses(NamedTuple):
    """Which classes a mean over classes is of."""

    count: int
    among: int  # classes of the data set
    class_list: Optional[str]  # see class_list_hash; None: no names are known
    lacking: str  # what the other classes lack

    @property
    def partial(self) -> bool:
        return self.count < self.among

    def __str__(self) -> str:
        return f'{self.count} of {self.among} classes (list {self.class_list})'


def class_list_hash(names: Sequence[str]) -> str:
    """16 hexadecimal digits that stand for some classes, in whatever order: the
    start of the SHA-256 of their sorted names, one a line."""
    return hashlib.sha256('\n'.join(sorted(names)).encode()).hexdigest()[:16]


def scored_classes(metrics: Sequence) -> Optional[ScoredClasses]:
    """Which classes mAP is the mean of; None: no AP metric was computed on this
    rank. Two results compare only if their class lists are the same."""
    for metric in metrics:
        table = metric.per_class if isinstance(metric, MultiLabelAP) else None
        if table is not None:
            scored = ~table.AP.isnan()
            if metric.empty == 'zero':
                scored[:] = True
            names = (metric.dataset_meta or {}).get('classes')
            return ScoredClasses(
                int(scored.sum()), len(scored), names and class_list_hash(
                    [names[c] for c in scored.nonzero().flatten()]),
                metric.lacking)
    return None


def per_class_rows(classes: Sequence[str], table: PerClass) -> List[list]:
    """One row per class with the columns of :data:`COLUMNS`. AP in percent; ''
    if the class has no positive."""
    rows = []
    for name, ap, voc12, positives, known in zip(
            classes, *(column.tolist() for column in table)):
        values = [f'{100 * v:.4f}' if v == v else '' for v in (ap, voc12)]
        rows.append([name, *values, positives, known])
    return rows


def write_per_class(path: Union[str, Path], rows: List[list]) -> None:
    """Write the rows of :func:`per_class_rows`, with a header, as CSV."""
    with atomic_write(path) as fresh, open(
            fresh, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows(
            [COLUMNS, *([plain_cell(row[0]), *row[1:]] for row in rows)])


def per_class_table(rows: List[list]) -> Table:
    """The same table for the screen, worst class first."""
    table = Table(title='Classes, percent, worst first')
    for name in COLUMNS:
        table.add_column(name, justify='left' if name == 'class' else 'right')
    for row in sorted(rows, key=lambda r: float(r[1] or 'inf')):
        table.add_row(escape(printable(row[0])),
                      *(v[:-2] or '-' for v in row[1:3]), *map(str, row[3:]))
    return table
