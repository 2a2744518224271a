"""Read what finished runs left: metrics and pseudo-label quality."""
import csv
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from trm_ml_mm.engine.hooks.pseudo_labels import TABLE as PSEUDO_TABLE
from trm_ml_mm.evaluation.run_record import read_record

from .plan import Job, Setting
from .run import read_row
from .suites import ORACLE, ZERO_SHOT, method_of
from .tables import Run, in_order, run_of

QUALITY = ('positive_precision', 'positive_recall', 'negative_precision',
           'negative_recall')


def gather(jobs: Sequence[Job], out: Union[str, Path]) -> List[dict]:
    """One row per method, setting and seed.

    Zero-shot CLIP and the oracle, which knows all labels, do not depend on the
    setting: their row is repeated in every setting.
    """
    settings = list(dict.fromkeys(j.known for j in jobs if j.known != 'all'))
    rows = []
    for job in jobs:
        row = read_row(job, out)
        common = dict(known=job.known, seed=job.seed,
                      scene_set=row['scene_set'], split=row['split'])
        own = dict(method=method_of(job), **common, mAP=row['mAP'],
                   CF1=row['CF1'], OF1=row['OF1'])
        if own['method'] == ORACLE:
            rows += [dict(own, known=known) for known in settings]
            record = read_record(job.work_dir(out))
            for kind in ZERO_SHOT:
                metrics = record.row(kind).metrics
                rows += [dict(dict(method=kind, **common), known=known,
                              mAP=metrics['mAP']) for known in settings]
        else:
            rows.append(own)
    return rows


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
