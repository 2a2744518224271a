"""From finished runs to docs/results.md, results.json and pictures.

All prose is in templates/results.md.j2.
"""
import json
import statistics
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Dict, List, Sequence, Union

from jinja2 import Environment, PackageLoader, StrictUndefined

from trm_ml_mm.engine import load_config
from trm_ml_mm.utils.io import write_text
from trm_ml_mm.utils.versions import library_versions

from .figures import draw_all
from .manifest import read_manifest
from .plan import Job
from .results import QUALITY, Results, gather, read_quality
from .suites import (
    BASE,
    BASELINES,
    NO_RELATIONS,
    ORACLE,
    OURS,
    TRAINED,
    method_of,
)
from .tables import (
    cell,
    in_order,
    markdown,
    mean_and_deviation,
    setting_name,
    table,
)


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
