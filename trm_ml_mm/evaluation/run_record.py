"""The run record: what a training run ends with, as one typed structure.

``test_results.json`` in the work dir is this record. This file has its only
writer and its only reader, so nothing has to search a table for a row.
"""
import json
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Union

from trm_ml_mm.utils.io import read_json, write_text

FILE = 'test_results.json'
FORMAT = 2  # 1 had no 'format' entry and told its rows apart by their titles
LAST, BEST = 'last', 'best'
ZERO_SHOT_GLOBAL, ZERO_SHOT_DENSE = 'zero_shot_global', 'zero_shot_dense'
KINDS = (ZERO_SHOT_GLOBAL, ZERO_SHOT_DENSE, LAST, BEST)


class ResultRow(NamedTuple):
    """One evaluation on one split."""

    kind: str  # one of KINDS
    metrics: Dict[str, Optional[float]]  # percent; None: not defined
    split: str = 'test'
    unit: Optional[str] = None  # 'epoch' or 'iteration'; None: not trained
    number: Optional[int] = None  # of the epoch or iteration, from 1
    picked_on: Optional[str] = None  # 'val' or 'test', for kind 'best'
    # What rows of earlier runs do not have yet.
    scored: Optional[int] = None  # classes that mAP is the mean of
    class_list: Optional[str] = None  # hash of their names


class RunRecord(NamedTuple):
    """Everything a run ends with."""

    head: str  # class of the head
    config: str  # name of the config file
    seed: Optional[int]
    known_labels: Optional[dict]  # rule, seed, hash of mask and labels
    versions: Dict[str, str]  # of Python, this package and its libraries
    code: str  # commit, or version
    validation: Dict[str, float]  # of the last validation; may be empty
    rows: List[ResultRow]
    # What records of earlier runs do not have yet.
    command: Optional[str] = None  # that a shell takes; None: no tool ran it
    training_labels: Optional[Dict[str, int]] = None  # present, absent, unknown

    def row(self, kind: str) -> Optional[ResultRow]:
        """The row of a kind, if the run has one."""
        return next((row for row in self.rows if row.kind == kind), None)


def write_record(folder: Union[str, Path], record: RunRecord) -> None:
    """Write ``test_results.json`` into a work dir. NaN becomes null."""
    rows = [dict(row._asdict(), metrics=_without_nan(row.metrics))
            for row in record.rows]
    content = dict(format=FORMAT, **dict(
        record._asdict(), rows=rows,
        validation=_without_nan(record.validation)))
    write_text(Path(folder, FILE), json.dumps(content, indent=1) + '\n')


def _without_nan(metrics: Dict[str, float]) -> Dict[str, Optional[float]]:
    return {name: None if value != value else value
            for name, value in metrics.items()}


def read_record(folder: Union[str, Path]) -> Optional[RunRecord]:
    """The record of a work dir; None if the run has not finished.

    Raises:
        ValueError: If the file is damaged, or of another version of this
            package.
    """
    path = Path(folder, FILE)
    if not path.is_file():
        return None
    content = read_json(path, 'run record',
                        advice='run the training to its end')
    found = content.get('format') if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(
            f'{path} was written by another version of trm_ml_mm (format '
            f'{found or 1}, this version reads {FORMAT}): run the training '
            'again in another work dir, or read it with that version.')
    content.pop('format')
    try:
        rows = [ResultRow(**row) for row in content.pop('rows')]
        record = RunRecord(rows=rows, **content)
        for row in rows:
            if row.kind not in KINDS:
                raise TypeError(f'kind {row.kind!r}')
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is not a whole run record ({error}): run '
                         'the training again.') from error
    return record


def title(row: ResultRow, head: str) -> str:
    """What a table calls a row: for people, never to find it by."""
    if row.kind == ZERO_SHOT_GLOBAL:
        return 'zero-shot CLIP, global'
    if row.kind == ZERO_SHOT_DENSE:
        return 'zero-shot CLIP, dense'
    if row.kind == LAST:
        return f'{head}, last {row.unit}'
    picked = {'test': 'TEST', 'val': 'validation'}[row.picked_on]
    return (f'{head}, best {row.unit} ({row.number}), picked on the {picked} '
            'set')
