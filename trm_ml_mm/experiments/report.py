"""From finished runs to docs/results.md, results.json and pictures.

All prose is in templates/results.md.j2.
"""
import csv
import json
import statistics
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from jinja2 import Environment, PackageLoader, StrictUndefined

from trm_ml_mm.engine import load_config
from trm_ml_mm.engine.hooks.pseudo_labels import TABLE as PSEUDO_TABLE
from trm_ml_mm.evaluation.run_record import read_record
from trm_ml_mm.utils.io import write_text
from trm_ml_mm.utils.versions import library_versions

from .manifest import read_manifest
from .plan import Job, Setting
from .run import read_row
from .suites import (
    BASE,
    BASELINES,
    NO_RELATIONS,
    ORACLE,
    OURS,
    TRAINED,
    ZERO_SHOT,
    method_of,
)
from .tables import (
    Run,
    cell,
    in_order,
    markdown,
    mean_and_deviation,
    run_of,
    setting_name,
    table,
)

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


def margin_table(results: Results) -> List[List[str]]:
    """How far TRM-ML is ahead of every baseline, and the sum of the two
    deviations, which the margin should exceed."""
    lines = [['TRM-ML minus', *map(setting_name, results.settings)]]
    for baseline in BASELINES:
        line = [baseline]
        for known in results.settings:
            ours, d = mean_and_deviation(results.of[OURS, known])
            theirs, e = mean_and_deviation(results.of[baseline, known])
            limit = '' if d is None else f' (deviations {d + (e or 0):.2f})'
            line.append(f'{ours - theirs:+.2f}{limit}')
        lines.append(line)
    return lines


def difference_table(results: Results, methods: Sequence[str],
                     reference: str) -> List[List[str]]:
    """Methods minus a reference, run by run: mean, sample standard deviation
    and number of the differences. Both runs of a pair use the same scenes, so
    scene sets need not be separated."""
    lines = [[f'minus {reference}', *map(setting_name, results.settings)]]
    for method in methods:
        line = [method]
        for known in results.settings:
            values = results.paired(method, reference, known).values()
            if not values:
                line.append('-')
                continue
            text = f'{statistics.fmean(values):+.2f}'
            if len(values) > 1:
                text += f' ± {statistics.stdev(values):.2f}'
            line.append(f'{text} (n={len(values)})')
        lines.append(line)
    return lines


def gap_table(results: Results) -> List[List[str]]:
    """How much of the gap between base and oracle TRM-ML closes."""
    lines = [['', *map(setting_name, results.settings)],
             ['TRM-ML minus base'], ['TRM-ML minus oracle'],
             ['ratio of the gap closed']]
    for known in results.settings:
        base, ours, oracle = (
            statistics.fmean(results.of[m, known].values())
            for m in (BASE, OURS, ORACLE))
        lines[1].append(f'{ours - base:+.2f}')
        lines[2].append(f'{ours - oracle:+.2f}')
        lines[3].append(f'{(ours - base) / (oracle - base):.0%}')
    return lines


def read_quality(job: Job, out: Union[str, Path]) -> Optional[List[dict]]:
    """Pseudo-label quality of every epoch; None if there were none."""
    path = job.work_dir(out) / PSEUDO_TABLE
    if not path.is_file():
        return None
    with open(path, newline='') as file:
        return [{k: float(v) for k, v in row.items()}
                for row in csv.DictReader(file)]


def quality_table(jobs: Sequence[Job], out: Union[str, Path]
                  ) -> List[List[str]]:
    """TRM-ML's pseudo-labels of the last epoch against the hidden truth."""
    lines = [['pseudo-labels', *(n.replace('_', ' ') for n in QUALITY)]]
    for known in in_order({job.known for job in jobs}):
        last = {
            (job.data, job.seed): read_quality(job, out)[-1]
            for job in jobs if method_of(job) == OURS and job.known == known
        }
        if last:
            lines.append([setting_name(known), *(
                cell({run: 100 * row[name] for run, row in last.items()},
                     len(last)) for name in QUALITY)])
    return lines


def number_of_scenes(config: str) -> Dict[str, int]:
    """Scenes in the training and the test set of a config."""
    cfg = load_config(config)
    return dict(train=cfg.train_dataloader.dataset.dataset.num_images,
                test=cfg.test_dataloader.dataset.num_images)


def results_context(rows: Sequence[dict]) -> dict:
    """What the template says about the rows alone: tables and counts."""
    results = Results.from_rows(rows)
    methods = list(dict.fromkeys(row['method'] for row in rows))
    added = [m for m in methods
             if m.startswith('base_') or m == 'region_level']
    order = [OURS, *reversed(BASELINES), BASE, ORACLE]
    changed = [m for m in methods if m not in (*order, *added)]
    headline = sorted((r for r in rows if r['method'] in order),
                      key=lambda r: order.index(r['method']))
    return dict(
        seeds=len({row['seed'] for row in rows}),
        scene_sets=len({row['scene_set'] for row in rows}),
        headline=markdown(table(headline)),
        margins=markdown(margin_table(results)),
        gap=markdown(gap_table(results)),
        matching=markdown(difference_table(results, TRAINED, BASE)),
        added=markdown(difference_table(results, added, BASE))
        if added else '',
        changed=markdown(difference_table(results, changed, OURS)),
        without_relations=markdown(
            difference_table(results, TRAINED, NO_RELATIONS))
        if NO_RELATIONS in methods else '')


def render_results(context: dict) -> str:
    """The Markdown of a report; a name that the context lacks is an error."""
    environment = Environment(
        loader=PackageLoader('trm_ml_mm.experiments'), trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined,
        keep_trailing_newline=True)
    return environment.get_template('results.md.j2').render(context)


def write_report(jobs: Sequence[Job], out: Union[str, Path],
                 docs: Union[str, Path], command: str) -> str:
    """Write ``results.json``, ``results.md`` and the pictures.

    Args:
        jobs: Finished jobs.
        out: Folder of the runs.
        docs: Folder of the report.
        command: The command that writes it, to be printed in the report.

    Returns:
        The Markdown.
    """
    from .figures import draw_all  # Matplotlib only when it is needed
    docs = Path(docs)
    docs.mkdir(parents=True, exist_ok=True)
    rows = gather(jobs, out)
    pictures = draw_all(jobs, out, Results.from_rows(rows), docs / 'pictures')
    write_text(docs / 'results.json',
               '[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n')
    codes = Counter(read_manifest(job, out)['code'] for job in jobs)
    text = render_results(dict(
        results_context(rows),
        command=command,
        date=date.today(),
        codes=', '.join(f'{code} ({n} runs)' for code, n in codes.items()),
        versions=library_versions(),
        scenes=number_of_scenes(jobs[0].config),
        quality=markdown(quality_table(jobs, out)),
        pictures=pictures))
    write_text(docs / 'results.md', text)
    return text
