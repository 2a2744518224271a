"""From the runs of tools/evidence.py to docs/results.md, results.json and
pictures."""
import csv
import json
import platform
import statistics
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import mmengine
import mmpretrain
import open_clip
import torch

from trm_ml_mm.datasets.files import replacing

from .grid import (
    Job,
    cell,
    markdown,
    mean_and_deviation,
    read_claim,
    read_row,
    run_of,
    setting_name,
    table,
)
from .hooks.pseudo_labels import TABLE as PSEUDO_TABLE
from .launch import load_config
from .pictures import Curve, draw_curves, draw_gain, draw_saliency

OURS, ORACLE, BASE = 'trm_ml', 'trm_ml_oracle', 'base'
NO_RELATIONS = 'no_relations'
ZERO_SHOT = {'zero-shot CLIP, global': 'zero_shot_global',
             'zero-shot CLIP, dense': 'zero_shot_dense'}
TRAINED = ('linear_probe', 'text_image', 'text_pixel', 'query_decoder',
           'query_decoder_text')  # configs/baselines
RIVALS = (*ZERO_SHOT.values(), *TRAINED)


def method_of(job: Job) -> str:
    """Name in tables: that of the config, shorter for the main one."""
    if job.known == 'all':
        return ORACLE
    return OURS if job.method == 'trm_ml_scenes' else job.method


def gather(jobs: Sequence[Job], out: Path) -> List[dict]:
    """A row per method, setting and seed. Zero-shot scores and the oracle,
    which knows all labels, do not depend on the setting: their figure stands
    in every one."""
    settings = list(dict.fromkeys(j.known for j in jobs if j.known != 'all'))
    rows = []
    for job in jobs:
        row = read_row(job, out)
        own = dict(method=method_of(job), known=job.known, seed=job.seed,
                   scene_set=job.scene_set, split='test', mAP=row['mAP'],
                   CF1=row['CF1'], OF1=row['OF1'])
        if own['method'] == ORACLE:
            rows += [dict(own, known=known) for known in settings]
            content = json.loads(
                (job.work_dir(out) / 'test_results.json').read_text())
            for entry in content['rows']:
                if entry['method'] in ZERO_SHOT:
                    rows += [
                        dict(method=ZERO_SHOT[entry['method']], known=known,
                             seed=job.seed, scene_set=job.scene_set,
                             split='test', mAP=entry['mAP'])
                        for known in settings
                    ]
        else:
            rows.append(own)
    return rows


class Results(NamedTuple):
    """mAP by method, setting and run."""

    of: Dict[Tuple[str, object], Dict[Tuple[int, int], float]]
    settings: List[object]

    @classmethod
    def from_rows(cls, rows: Sequence[dict]) -> 'Results':
        of: Dict = {}
        for row in rows:
            of.setdefault((row['method'], row['known']),
                          {})[run_of(row)] = row['mAP']
        return cls(of, cls.order({row['known'] for row in rows}))

    @staticmethod
    def order(settings) -> List[object]:
        """Proportions, then rules by name."""
        return sorted(settings, key=lambda k: (isinstance(k, str), k))

    def paired(self, method: str, other: str, known) -> Dict:
        """Differences of runs that both methods have."""
        a = self.of.get((method, known), {})
        b = self.of.get((other, known), {})
        return {run: a[run] - b[run] for run in a if run in b}


def margin_table(results: Results) -> List[List[str]]:
    """How far the method is ahead of every rival, and the sum of the two
    deviations that it should exceed."""
    lines = [['TRM-ML less', *map(setting_name, results.settings)]]
    for rival in RIVALS:
        line = [rival]
        for known in results.settings:
            ours, d = mean_and_deviation(results.of[OURS, known])
            theirs, e = mean_and_deviation(results.of[rival, known])
            limit = '' if d is None else f' (deviations {d + (e or 0):.2f})'
            line.append(f'{ours - theirs:+.2f}{limit}')
        lines.append(line)
    return lines


def difference_table(results: Results, methods: Sequence[str],
                     reference: str) -> List[List[str]]:
    """Differences to a reference, run by run: their mean, sample standard
    deviation and number. A pair shares its scenes, so scene sets need not be
    told apart."""
    lines = [[f'less {reference}', *map(setting_name, results.settings)]]
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
    """What part of the way from base to oracle the method goes."""
    lines = [['', *map(setting_name, results.settings)]]
    rows = dict(base=[], oracle=[], share=[])
    for known in results.settings:
        base, ours, oracle = (
            statistics.fmean(results.of[m, known].values())
            for m in (BASE, OURS, ORACLE))
        rows['base'].append(f'{ours - base:+.2f}')
        rows['oracle'].append(f'{ours - oracle:+.2f}')
        rows['share'].append(f'{(ours - base) / (oracle - base):.0%}')
    lines.append(['TRM-ML less base', *rows['base']])
    lines.append(['TRM-ML less oracle', *rows['oracle']])
    lines.append(['share of the gap closed', *rows['share']])
    return lines


QUALITY = ('positive_precision', 'positive_recall', 'negative_precision',
           'negative_recall')


def read_quality(job: Job, out: Path) -> Optional[List[dict]]:
    """Pseudo-label quality of every epoch; None where none were made."""
    path = job.work_dir(out) / PSEUDO_TABLE
    if not path.is_file():
        return None
    with open(path, newline='') as file:
        return [{k: float(v) for k, v in row.items()}
                for row in csv.DictReader(file)]


def quality_table(jobs: Sequence[Job], out: Path) -> List[List[str]]:
    """Pseudo-labels of the last epoch against the hidden truth."""
    lines = [['pseudo-labels', *(n.replace('_', ' ') for n in QUALITY)]]
    for known in Results.order({job.known for job in jobs}):
        last = {
            (job.scene_set, job.seed): read_quality(job, out)[-1]
            for job in jobs if method_of(job) == OURS and job.known == known
        }
        if last:
            lines.append([setting_name(known), *(
                cell({run: 100 * row[name] for run, row in last.items()},
                     len(last)) for name in QUALITY)])
    return lines


def read_classes(job: Job, out: Path) -> Dict[str, dict]:
    """AP and positives of each class on the test set."""
    path = sorted(job.work_dir(out).glob('*/per_class.csv'))[-1]
    with open(path, newline='', encoding='utf-8') as file:
        return {row['class']: row for row in csv.DictReader(file)}


def draw_all(jobs: Sequence[Job], out: Path, results: Results,
             folder: Path) -> List[Tuple[str, str]]:
    """Draw every picture; (file, what it shows) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = []

    def save(name: str, text: str, draw: Callable[[Path], None]) -> None:
        draw(folder / name)
        shown.append((name, text))

    shares = [k for k in results.settings if not isinstance(k, str)]
    curves = []
    for method in (OURS, *reversed(RIVALS), ORACLE):
        points = [mean_and_deviation(results.of[method, k]) for k in shares]
        curves.append(Curve(method, [100 * k for k in shares],
                            [m for m, _ in points],
                            [d or 0 for _, d in points]))
    save('results_proportions.png',
         'mAP on the test set against the share of known labels; bars are '
         'one standard deviation over seeds.',
         lambda p: draw_curves(curves, p, 'known labels (%)', 'mAP (%)',
                               zoom=8.))
    lowest = shares[0]
    ours = [j for j in jobs if method_of(j) == OURS and j.known == lowest]
    histories = {
        (job.scene_set, job.seed):
        {row['epoch']: row for row in read_quality(job, out)} for job in ours
    }
    epochs = [e for e in next(iter(histories.values())) if e > 1]
    curves = []
    for name in QUALITY:
        points = [mean_and_deviation({
            run: 100 * rows[e][name] for run, rows in histories.items()
        }) for e in epochs]
        curves.append(Curve(name.replace('_', ' '), epochs,
                            [m for m, _ in points],
                            [d or 0 for _, d in points]))
    save('results_pseudo_labels.png',
         f'Pseudo-labels at {setting_name(lowest)} known against the hidden '
         'truth, epoch by epoch.',
         lambda p: draw_curves(curves, p, 'epoch', '%'))
    gains = []
    for job in ours:
        own = read_classes(job, out)
        rival = read_classes(next(
            j for j in jobs if j.method == 'text_pixel' and j[2:] == job[2:]),
            out)
        gains += [(float(own[c]['positives']),
                   float(own[c]['AP']) - float(rival[c]['AP']))
                  for c in own if own[c]['AP']]  # none without a positive
    save('results_classes.png',
         f'AP of each class, TRM-ML less text-pixel, at '
         f'{setting_name(lowest)} known, against its number of test images; '
         'every seed is a dot.',
         lambda p: draw_gain(gains, p, 'test images with the class',
                             'gain in AP (points)'))
    pick = {m: next(j for j in jobs if j.method == m and j.known == lowest)
            for m in ('text_pixel', 'trm_ml_scenes')}
    save('results_saliency.jpg',
         'Where one test scene is looked at: CLIP\'s attention pool (the '
         'whole image, the same for every category), text-pixel matching, '
         'text-region matching.',
         lambda p: draw_saliency(pick['text_pixel'], pick['trm_ml_scenes'],
                                 out, p))
    return shown


def numbers_of_scenes(config: str) -> Dict[str, int]:
    """Scenes in the training and the test set of a config."""
    cfg = load_config(config)
    return dict(train=cfg.train_dataloader.dataset.dataset.num_images,
                test=cfg.test_dataloader.dataset.num_images)


def write_report(jobs: Sequence[Job], out, docs, command: str) -> str:
    """Write ``results.json``, ``results.md`` and the pictures.

    Args:
        jobs: Those that are finished.
        out: Folder of the runs.
        docs: Folder of the report.
        command: What made it, to stand in the report.

    Returns:
        The Markdown.
    """
    out, docs = Path(out), Path(docs)
    rows = gather(jobs, out)
    results = Results.from_rows(rows)
    pictures = draw_all(jobs, out, results, docs / 'pictures')
    with replacing(docs / 'results.json') as fresh:
        fresh.write_text(
            '[\n' + ',\n'.join(json.dumps(row) for row in rows) + '\n]\n')
    methods = list(dict.fromkeys(row['method'] for row in rows))
    ladder = [m for m in methods if m.startswith('base_') or
              m == 'region_level']
    others = [m for m in methods if m not in (OURS, ORACLE, BASE, *RIVALS,
                                              *ladder)]
    headline = [r for r in rows if r['method'] in (OURS, ORACLE, BASE, *RIVALS)]
    order = [OURS, *reversed(RIVALS), BASE, ORACLE]
    headline.sort(key=lambda r: order.index(r['method']))
    seeds = len({r['seed'] for r in rows})
    sets = len({r['scene_set'] for r in rows})
    scenes = numbers_of_scenes(jobs[0].config)
    codes = Counter(read_claim(job, out)['code'] for job in jobs)
    codes = ', '.join(f'{code} ({n} runs)' for code, n in codes.items())
    parts = [f'''# Results on the built-in set

Written by `{command}` on {date.today()}. Commits that ran it: {codes}. Python \
{platform.python_version()}, PyTorch {torch.__version__}, MMEngine \
{mmengine.__version__}, MMPretrain {mmpretrain.__version__}, open_clip \
{open_clip.__version__}. The rows are in results.json.

mAP in percent on the test split ({scenes['test']:,} scenes), last epoch, after
training on {scenes['train']:,} scenes, from features of the frozen tower. A
seed draws its own mask and initialisation; scene sets: {sets}. Deviations are
sample standard deviations over seeds, within scene sets; those of differences
are over pairs of runs with the same scenes and mask. Settings were chosen on
validation scenes only ([tuning.md](tuning.md)).

## The comparison

Seeds: {seeds}. `base` is text-region matching without any extra part, on known
labels (under single positive labels all methods read the rest as absent, too);
`trm_ml_oracle` is TRM-ML with all labels known.

{markdown(table(headline))}
How far TRM-ML is ahead, and the sum of the two deviations:

{markdown(margin_table(results))}
From the base to the oracle:

{markdown(gap_table(results))}''']
    if ladder:
        parts.append(f'''## What each part does

Text-region matching itself: what is matched otherwise, less the base
(differences run by run, their mean and standard deviation over n seeds; "-":
not run):

{markdown(difference_table(results, TRAINED, BASE))}
On top of the base:

{markdown(difference_table(results, ladder, BASE))}
Taken away from TRM-ML, or done otherwise:

{markdown(difference_table(results, others, OURS))}''')
    if NO_RELATIONS in methods:
        parts.append(f'''Relations between categories are not the paper's.
Rivals less TRM-ML without them:

{markdown(difference_table(results, TRAINED, NO_RELATIONS))}''')
    parts.append(f'''## Pseudo-labels

Of TRM-ML in the last epoch, against the labels that were hidden (percent).

{markdown(quality_table(jobs, out))}''')
    parts.append('## Pictures\n')
    parts += [f'{text}\n\n![{text}](pictures/{name})\n'
              for name, text in pictures]
    text = '\n'.join(parts)
    with replacing(docs / 'results.md') as fresh:
        fresh.write_text(text)
    return text
