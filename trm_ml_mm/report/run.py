"""What a work dir says of its training."""
import csv
import json
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple, Union

from trm_ml_mm.evaluation import RunRecord, read_record
from trm_ml_mm.evaluation.run_record import FILE
from trm_ml_mm.utils.io import existing, read_text

METRICS = ('mAP', 'CF1', 'OF1')
Curve = Tuple[List[float], List[float]]  # x, y


class PseudoCount(NamedTuple):
    """Pseudo-labels of one value in an epoch."""

    given: int
    judged: int  # whose truth is known
    right: int


class Run(NamedTuple):
    """A finished training."""

    folder: Path
    record: RunRecord
    config: Path
    config_text: str
    losses: Dict[str, Curve]  # by term, against steps
    validation: Dict[str, Curve]  # by metric, against epochs or steps
    pseudo_labels: Dict[str, Curve]  # quality in percent, against epochs
    # Of the last epoch: present, then absent; none: the run has none.
    pseudo_counts: List['PseudoCount']

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def read_run(folder: Union[str, Path]) -> Run:
    """Read a work dir. No program in it runs (:func:`judge` loads its config,
    which is one).

    Raises:
        FileNotFoundError: If there is no such folder, or no config in it.
        ValueError: If the training has not finished, or a file is damaged.
    """
    folder = existing(folder, 'The work dir', 'give that of a training')
    record = read_record(folder)
    if record is None:
        raise ValueError(f'{folder} has no results yet ({FILE}): '
                         'give the work dir of a training that has finished.')
    config = existing(folder / Path(record.config).name, 'The config',
                      'give a work dir that a training wrote')
    losses, validation = read_scalars(folder)
    pseudo = read_pseudo_rows(folder / 'pseudo_labels.csv')
    return Run(folder, record, config, read_text(config, 'config'), losses,
               validation, quality_curves(pseudo), last_counts(pseudo))


def read_scalars(folder: Path) -> Tuple[Dict[str, Curve], Dict[str, Curve]]:
    """Losses and validation metrics; of a resumed training, the later value
    of a step counts."""
    losses, validation = {}, {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for number, line in enumerate(
                path.read_text(encoding='utf-8').splitlines(), 1):
            try:
                row = json.loads(line)
                step = float(row['step'])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f'{path} line {number} is damaged: remove '
                                 'the line.') from error
            for name, value in row.items():
                if not isinstance(value, (int, float)):
                    continue
                if re.match('loss', name):
                    losses.setdefault(name, {})[step] = value
                elif name.startswith('multi-label/') and (
                        name.split('/')[1] in METRICS):
                    validation.setdefault(name.split('/')[1], {})[step] = value
    return tuple({name: tuple(map(list, zip(*sorted(points.items()))))
                  for name, points in found.items()}
                 for found in (losses, validation))


def read_pseudo_rows(path: Path) -> List[Dict[str, str]]:
    """The table of pseudo-labels, a row for each epoch; empty: there is none.
    """
    if not path.is_file():
        return []
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def last_counts(rows: List[Dict[str, str]]) -> List[PseudoCount]:
    """Of the last epoch; empty: an earlier version did not count."""
    if not rows or not rows[-1].get('positive_given'):
        return []
    return [PseudoCount(*(int(rows[-1][f'{kind}_{what}'])
                          for what in PseudoCount._fields))
            for kind in ('positive', 'negative')]


def quality_curves(rows: List[Dict[str, str]]) -> Dict[str, Curve]:
    """Precision and recall by epoch, if the truth was known."""
    curves = {}
    for name in rows[0] if rows else ():
        if not name.endswith(('_precision', '_recall')):
            continue
        points = [(float(row['epoch']), 100 * float(row[name]))
                  for row in rows if float(row[name]) == float(row[name])]
        if points:
            curves[name.replace('_', ' ')] = tuple(map(list, zip(*points)))
    return curves
