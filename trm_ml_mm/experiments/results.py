"""Read what finished runs left: metrics and pseudo-label quality."""
import csv
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from trm_ml_mm.engine.hooks.pseudo_labels import TABLE as PSEUDO_TABLE
from trm_ml_mm.evaluation.run_record import read_record

from .plan import Job, Setting
from .run import read_row
from .suites import ZERO_SHOT, Part, method_of
from .tables import Run, in_order, run_of

QUALITY = ('positive_precision', 'positive_recall', 'negative_precision',
           'negative_recall')


def gather(part: Part, out: Union[str, Path]) -> List[dict]:
    """One row per method, setting and seed of the finished runs.

    Zero-shot CLIP does not depend on the setting: its row is repeated in every
    setting.
    """
    rows, zero_shot = [], {}
    for job in part.jobs:
        record = read_record(job.work_dir(out))
        if record is None:
            continue
        row = read_row(job, out)
        common = dict(part=part.name, scene_set=row['scene_set'],
                      seed=job.seed, known=job.known, split=row['split'])
        rows.append(dict(method=method_of(job), **common, mAP=row['mAP'],
                         CF1=row['CF1'], OF1=row['OF1']))
        for kind in ZERO_SHOT:
            zero_shot[kind, job.known, job.seed] = dict(
                method=kind, **common, mAP=record.row(kind).metrics['mAP'])
    return rows + list(zero_shot.values())


class Results(NamedTuple):
    """mAP by method, setting and run."""

    of: Dict[Tuple[str, Setting], Dict[Run, float]]
    settings: List[Setting]

    @classmethod
    def from_rows(cls, rows: Sequence[dict]) -> 'Results':
        of: Dict = {}
        for row in rows:
            of.setdefault((row['method'], row['known']),
                          {})[run_of(row)] = row['mAP']
        return cls(of, in_order({row['known'] for row in rows}))

    def paired(self, method: str, other: str, known) -> Dict[Run, float]:
        """Differences between runs that both methods have."""
        a = self.of.get((method, known), {})
        b = self.of.get((other, known), {})
        return {run: a[run] - b[run] for run in a if run in b}


def read_quality(job: Job, out: Union[str, Path]) -> Optional[List[dict]]:
    """Pseudo-label quality of every epoch; None if there were none."""
    path = job.work_dir(out) / PSEUDO_TABLE
    if not path.is_file():
        return None
    with open(path, newline='') as file:
        return [{k: float(v) for k, v in row.items()}
                for row in csv.DictReader(file)]
