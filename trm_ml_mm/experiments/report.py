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
from .run import read_row
from .suites import (
    BASE,
    BASELINES,
    NO_RELATIONS,
    OURS,
    TRAINED,
    ZERO_SHOT,
    Part,
    is_needed,
    method_of,
)
from .tables import (
    Run,
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


def lead_over(results: Results, baseline: str) -> dict:
    """TRM-ML minus a baseline over all settings.

    Returns:
        ``name`` of the baseline, ``least`` and ``most`` of the margins, and
        the names of the settings in which the margin is more than the sum of
        the two deviations (``beyond``), and not (``within``).
    """
    margins, beyond, within = [], [], []
    for known in results.settings:
        ours, d = mean_and_deviation(results.of[OURS, known])
        theirs, e = mean_and_deviation(results.of[baseline, known])
        margins.append(ours - theirs)
        (beyond if margins[-1] > (d or 0) + (e or 0) else within).append(
            setting_name(known))
    return dict(name=baseline, least=min(margins), most=max(margins),
                beyond=beyond, within=within)


def strongest_baseline(results: Results) -> str:
    """The baseline with the highest mean over all settings."""
    return max(BASELINES, key=lambda name: statistics.fmean(
        mean_and_deviation(results.of[name, known])[0]
        for known in results.settings))


def leads(rows: Sequence[dict], baseline: str) -> str:
    """'+0.52 ± 0.10 (n=2) at 1%': TRM-ML minus a baseline in a part, run by
    run; '' if the part lacks one of them."""
    results = Results.from_rows(rows)
    found = {known: results.paired(OURS, baseline, known)
             for known in results.settings}
    return ', '.join(
        f'{difference_cell(values)} at {setting_name(known)}'
        for known, values in found.items() if values)


def difference_table(results: Results, methods: Sequence[str],
                     reference: str) -> List[List[str]]:
    """Methods minus a reference, run by run: mean, sample standard deviation
    and number of the differences. Both runs of a pair use the same scenes, so
    scene sets need not be separated."""
    lines = [[f'minus {reference}', *map(setting_name, results.settings)]]
    for method in methods:
        line = [method]
        for known in results.settings:
            line.append(difference_cell(
                results.paired(method, reference, known)))
        lines.append(line)
    return lines


def difference_cell(differences: Dict[Run, float]) -> str:
    """Mean, sample standard deviation and number of differences."""
    values = differences.values()
    if not values:
        return '-'
    text = f'{statistics.fmean(values):+.2f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.2f}'
    return f'{text} (n={len(values)})'


def cost_table(results: Results, methods: Sequence[str]) -> List[List[str]]:
    """What missing labels cost each method: its mAP minus that of the same
    method with all labels known, run by run."""
    settings = [k for k in results.settings if k != 'all']
    lines = [['minus all labels known', *map(setting_name, settings)]]
    for method in methods:
        complete = results.of[method, 'all']
        lines.append([method, *(difference_cell({
            run: value - complete[run]
            for run, value in results.of[method, known].items()})
            for known in settings)])
    return lines


def quality_table(jobs: Sequence[Job], out: Union[str, Path]
                  ) -> List[List[str]]:
    """TRM-ML's pseudo-labels of the last epoch against the hidden truth."""
    lines = [['pseudo-labels', *(n.replace('_', ' ') for n in QUALITY)]]
    for known in in_order({job.known for job in jobs} - {'all'}):
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
    parts = {}
    for row in rows:
        parts.setdefault(row['part'], []).append(row)
    order = [OURS, *reversed(BASELINES), BASE]
    main = parts['main']
    # Ablations are compared with the main part's runs of the same seeds.
    every = main + parts.get('ablations', [])
    results = Results.from_rows(main)
    trials = Results.from_rows(every)._replace(settings=in_order(
        {row['known'] for row in parts.get('ablations', main)}))
    methods = list(dict.fromkeys(row['method'] for row in every))
    added = [m for m in methods
             if m.startswith('base_') or m == 'region_level']
    changed = [m for m in methods if m not in (*order, *added)]
    trained = [m for m in order if m not in ZERO_SHOT]
    strongest = strongest_baseline(results)

    def whole(rows):
        return markdown(table(sorted(
            rows, key=lambda row: order.index(row['method']))))

    return dict(
        seeds=len({row['seed'] for row in main}),
        scene_sets=len({row['scene_set'] for row in main}),
        headline=whole(main),
        margins=markdown(margin_table(results)),
        lead=lead_over(results, strongest),
        lead_text_pixel=lead_over(results, 'text_pixel'),
        ahead=all(lead_over(results, name)['least'] > 0
                  for name in BASELINES),
        leads={name: leads(part, strongest) for name, part in parts.items()},
        cost=markdown(cost_table(results, trained)),
        matching=markdown(difference_table(trials, TRAINED, BASE)),
        added=markdown(difference_table(trials, added, BASE))
        if added else '',
        changed=markdown(difference_table(trials, changed, OURS))
        if changed else '',
        without_relations=markdown(
            difference_table(trials, TRAINED, NO_RELATIONS))
        if NO_RELATIONS in methods else '',
        few_labels=whole(parts['few_labels']) if 'few_labels' in parts else '',
        other_tower=whole(parts['other_tower'])
        if 'other_tower' in parts else '',
        sizes={int(name.split('_')[1]): whole(part)
               for name, part in parts.items() if name.startswith('scenes_')})


def render_results(context: dict) -> str:
    """The Markdown of a report; a name that the context lacks is an error."""
    environment = Environment(
        loader=PackageLoader('trm_ml_mm.experiments'), trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined,
        keep_trailing_newline=True)
    return environment.get_template('results.md.j2').render(context)


def write_report(parts: Sequence[Part], out: Union[str, Path],
                 docs: Union[str, Path], command: str) -> str:
    """Write ``results.json``, ``results.md`` and the pictures.

    Args:
        parts: Of the suite; those with missing runs are shown as far as they
            are finished.
        out: Folder of the runs.
        docs: Folder of the report.
        command: The command that writes it, to be printed in the report.

    Returns:
        The Markdown.
    """
    docs = Path(docs)
    docs.mkdir(parents=True, exist_ok=True)
    rows = [row for part in parts for row in gather(part, out)]
    main = next(part for part in parts if is_needed(part))
    pictures = draw_all(
        main.jobs, out, Results.from_rows(
            [row for row in rows if row['part'] == main.name]),
        docs / 'pictures')
    write_text(docs / 'results.json',
               '[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n')
    codes = Counter(read_manifest(job, out)['code']
                    for part in parts for job in part.jobs
                    if read_row(job, out) is not None)
    text = render_results(dict(
        results_context(rows),
        command=command,
        date=date.today(),
        codes=', '.join(f'{code} ({n} runs)' for code, n in codes.items()),
        versions=library_versions(),
        scenes=number_of_scenes(main.jobs[0].config),
        quality=markdown(quality_table(main.jobs, out)),
        missing=[part.name for part in parts if any(
            read_row(job, out) is None for job in part.jobs)],
        pictures=pictures))
    write_text(docs / 'results.md', text)
    return text
