"""The page: everything of one or several runs in one HTML file."""
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import jinja2

from trm_ml_mm.evaluation.run_record import title
from trm_ml_mm.utils.io import write_text
from trm_ml_mm.version import __version__

from . import charts
from .judged import Judged
from .run import METRICS, Run

CHARTS = 200  # classes with charts of their own; the page stays small


def write_report(runs: Sequence[Tuple[Run, Optional[Judged]]],
                 path: Union[str, Path]) -> None:
    """Write the page.

    It loads nothing from elsewhere. Names are escaped.

    Args:
        runs: Trainings, and what their models say of their test sets (None:
            leave that out).
        path: HTML file.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'),
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined)
    shown = [run_of(number, run, judged)
             for number, (run, judged) in enumerate(runs)]
    write_text(path, environment.get_template('report.html.j2').render(
        runs=shown, classes=class_rows(runs), metrics=METRICS,
        version=__version__))


def run_of(number: int, run: Run, judged: Optional[Judged]) -> dict:
    """What the template shows of a run."""
    step = 'epoch' if run.record.rows and any(
        row.unit == 'epoch' for row in run.record.rows) else 'iteration'
    return dict(
        number=number, name=run.name, record=run.record,
        config=run.config_text, labels=label_rows(run),
        rows=[(title(row, run.record.head), [row.metrics.get(m)
                                             for m in METRICS])
              for row in run.record.rows],
        losses=run.losses and charts.lines(run.losses, 'step', 'loss'),
        validation=run.validation and charts.lines(
            run.validation, step, 'validation (%)'),
        pseudo_labels=run.pseudo_labels and charts.lines(
            run.pseudo_labels, 'epoch', 'pseudo-labels (%)'),
        **(judged_of(judged) if judged is not None else dict(judged=None)))


def label_rows(run: Run) -> List[Tuple[str, int, float, str]]:
    """Kinds of labels of the training set: name, number, percent of all
    labels, and how many are right."""
    labels = run.record.training_labels
    if labels is None:  # of a record of an earlier version
        return []
    known = labels['present'] + labels['absent']
    total = known + labels['unknown']
    rows = [('known', known, ''), *(
        (name, labels[name], '') for name in ('present', 'absent', 'unknown'))]
    for name, count in zip(('present', 'absent'), run.pseudo_counts):
        rows.append((f'pseudo-label {name}', count.given, (
            f'{count.right} of {count.judged} '
            f'({100 * count.right / count.judged:.2f}%)'
            if count.judged else '')))
    return [(name, count, 100 * count / total, right)
            for name, count, right in rows]


def judged_of(judged: Judged) -> dict:
    """The part that needs the model."""
    points = [(one.known_positives, one.ap) for one in judged.classes
              if one.ap == one.ap]
    return dict(
        judged=judged,
        frequency=charts.frequency(points) if points else '',
        classes=[(one.name, charts.one_class(
            judged.scores[:, c], judged.labels[:, c], one.threshold))
            for c, one in enumerate(judged.classes[:CHARTS])])


def class_rows(runs: Sequence[Tuple[Run, Optional[Judged]]]) -> List[dict]:
    """A row for each class of any run, in the order of the first one."""
    rows = {}
    for number, (_, judged) in enumerate(runs):
        for one in judged.classes if judged is not None else ():
            row = rows.setdefault(one.name, dict(
                name=one.name, of=[None] * len(runs)))
            row['of'][number] = one
    return list(rows.values())
