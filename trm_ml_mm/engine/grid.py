"""Method x label setting x seed: many runs, one table."""
import argparse
import csv
import fcntl
import gc
import hashlib
import json
import multiprocessing
import os
import runpy
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from trm_ml_mm.datasets.files import replacing
from trm_ml_mm.datasets.masks import check_known
from trm_ml_mm.version import __version__

from .caching import CacheFiller, build_tower, parts_to_cache
from .launch import load_config

# Lies in the work dir of every run, and says what is run there.
CLAIM = 'grid_job.json'
METRICS = ('mAP', 'mAP_voc12', 'CF1', 'OF1')
# Imported once, for all runs: without GPUs each is forked from a process that
# has them.
PRELOAD = ['trm_ml_mm.engine.launch', 'mmpretrain.models',
           'mmpretrain.datasets', 'mmengine.runner', 'mmengine.visualization']
SCENE_SETS = ('train_dataloader.dataset.dataset.scene_set',
              'val_dataloader.dataset.scene_set',
              'test_dataloader.dataset.scene_set')


class Job(NamedTuple):
    """One run."""

    method: str  # name of the config
    config: str
    known: Union[float, str]
    seed: int
    scene_set: Optional[int] = None  # of the built-in set; None: the config's
    variant: Tuple[str, ...] = ()  # further options, as 'key=value'

    def work_dir(self, out: Path) -> Path:
        setting = str(self.known).replace(os.sep, '_')
        inner = [] if self.scene_set is None else [f'scenes{self.scene_set}']
        inner += map(short_option, self.variant)
        return Path(out, self.method, setting, *inner, f'seed{self.seed}')

    def options(self) -> Dict[str, object]:
        """A seed draws both the mask and the initialisation; seed 0 stands for
        the published mask of its protocol."""
        return {
            'train_dataloader.dataset.known': self.known,
            'train_dataloader.dataset.seed': self.seed or None,
            'randomness.seed': self.seed,
            **scene_options(self.scene_set),
            **dict(option.split('=', 1) for option in self.variant),
        }


def short_option(option: str) -> str:
    """'model.head.logit_scale=0.5' -> 'logit_scale=0.5'."""
    key, value = option.split('=', 1)
    return f'{key.rsplit(".", 1)[-1]}={value}'


def scene_options(scene_set: Optional[int]) -> Dict[str, int]:
    """Config options of a scene set; None: none."""
    return {} if scene_set is None else {k: scene_set for k in SCENE_SETS}


def plan(configs: Sequence[str], known: Sequence[Union[float, str]],
         seeds: Sequence[int],
         scene_sets: Sequence[Optional[int]] = (None, )) -> List[Job]:
    """All runs; seeds vary slowest, so that early rows span every setting.

    Args:
        configs: Config files; their names are the names of the methods.
        known: Label settings.
        seeds: Of mask and initialisation.
        scene_sets: Of the built-in set.

    Raises:
        ValueError: If there is no such label setting, two configs have the
            same file name, or one has no PartialLabelDataset, whose ``known``
            is to be set.
        FileNotFoundError: If there is no such config.
    """
    for setting in known:
        check_known(setting)
    methods = {}
    for config in configs:
        other = methods.setdefault(Path(config).stem, config)
        if other != config:
            raise ValueError(f'{other} and {config} have the same file name, '
                             'by which rows are told apart: rename one.')
        dataset = load_config(config).train_dataloader.dataset
        if not str(dataset.type).endswith('PartialLabelDataset'):
            raise ValueError(
                f'The training set of {config} is a {dataset.type}, and what '
                'is known of its labels cannot be set: wrap it in '
                'trm_ml_mm.PartialLabelDataset.')
    return [
        Job(method, config, setting, seed, scene_set) for seed in seeds
        for scene_set in scene_sets for setting in known
        for method, config in methods.items()
    ]


def cache_features(jobs: Sequence[Job], folder: Union[str, Path],
                   views: int, options: Sequence[str] = ()) -> None:
    """Run the frozen tower once for all jobs: over the data of the first
    job's config, in every scene set. What is there already is taken up.

    Args:
        jobs: Of :func:`plan`.
        folder: Gets a folder per scene set; see :func:`features_of`.
        views: Augmented views of a training image.
        options: ``--cfg-options`` of the runs.
    """
    for scene_set in dict.fromkeys(job.scene_set for job in jobs):
        cfg = load_config(jobs[0].config, {
            **parsed(options), **scene_options(scene_set)})
        tower = build_tower(cfg)
        for part in parts_to_cache(cfg):
            CacheFiller(cfg, part, features_of(folder, scene_set), views,
                        tower=tower).fill(workers=0)


def parsed(options: Sequence[str]) -> Dict[str, object]:
    """'key=value' as ``--cfg-options`` reads it."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]
                             if options else []).cfg_options or {}


def features_of(folder: Union[str, Path], scene_set: Optional[int]) -> Path:
    """Where :func:`cache_features` puts the features of a scene set."""
    return Path(folder, 'all' if scene_set is None else f'scenes{scene_set}')


def run_grid(jobs: Sequence[Job],
             out: Union[str, Path],
             train: Union[str, Path],
             processes: Optional[int] = None,
             options: Sequence[str] = (),
             features: Optional[Union[str, Path]] = None) -> List[dict]:
    """Run what is not finished yet, and gather the rows.

    A run that was interrupted goes on from its latest checkpoint; a finished
    one is not run again. Each writes its log to ``grid.log`` in its work dir.

    Args:
        jobs: Of :func:`plan`.
        out: Folder of all work dirs.
        train: The training script.
        processes: Runs at a time; None: one for each GPU, or for each core.
        options: Further ``--cfg-options`` of every run, as 'key=value'.
        features: Folder that :func:`cache_features` filled, to train from.

    Returns:
        Rows of :func:`all_rows`; failed runs have none.

    Raises:
        ValueError: As :func:`check_places` does, or if the options set what a
            job sets.
    """
    for option in options:
        if option.split('=')[0] in jobs[0].options():
            raise ValueError(f'{option} would override what the grid varies: '
                             'use --known and --seeds.')
    claims = check_places(jobs, out, options, features is not None)
    todo = [job for job in jobs if not read_row(job, out)]
    code = _code()
    for job in todo:
        path = job.work_dir(Path(out)) / CLAIM
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            fresh.write_text(json.dumps(dict(claims[job], code=code),
                                        indent=1))
    gpus = _gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(
        os, 'sched_getaffinity') else os.cpu_count() or 1
    processes = processes or len(gpus) or cores
    threads = max(1, cores // processes)
    slots = list(range(processes))

    # CUDA does not survive a fork, and imports alone begin to use it.
    context = multiprocessing.get_context('spawn' if gpus else 'forkserver')
    if not gpus:
        context.set_forkserver_preload(PRELOAD)
    starting = threading.Lock()

    def work(job: Job) -> None:
        own = list(options)
        if features is not None:
            own.append(f'feature_cache={features_of(features, job.scene_set)}')
        slot = slots.pop()
        try:
            run = context.Process(target=_run, args=(
                job, Path(out), str(train), own, threads))
            with starting:  # a process is born with what stands there
                if gpus:
                    os.environ['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
                run.start()
            run.join()
        finally:
            slots.append(slot)
        _tell(job, Path(out), run.exitcode)

    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    try:
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(work, todo))
    finally:
        os.environ.pop('CUDA_VISIBLE_DEVICES', None)
        if visible is not None:
            os.environ['CUDA_VISIBLE_DEVICES'] = visible
    return all_rows(jobs, out)


def _gpus() -> List[str]:
    import torch
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible:
        return visible.split(',')
    return [str(i) for i in range(torch.cuda.device_count())]


def _content(config: str) -> str:
    """What a config says, wherever it lies."""
    text = Config.fromfile(config).pretty_text
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code() -> str:
    """The state of the code: its commit, or else its version."""
    git = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--exclude=*'],
        cwd=Path(__file__).parent, capture_output=True, text=True)
    return git.stdout.strip() or __version__


def check_places(jobs: Sequence[Job], out: Union[str, Path],
                 options: Sequence[str], features: bool) -> Dict[Job, dict]:
    """See that the work dirs of these jobs, and all others whose rows would
    stand beside theirs, hold runs of the same kind.

    Args:
        jobs, out, options: Of :func:`run_grid`.
        features: Whether runs train from cached features.

    Returns:
        What each job's work dir has to hold, except for the state of the code.

    Raises:
        ValueError: If a work dir in ``out`` holds a run with other options,
            with or without cached features, or of another state of its config.
    """
    contents = {config: _content(config)
                for config in {job.config for job in jobs}}
    claims = {
        job: dict(job._asdict(), variant=list(job.variant),
                  options=list(options), content=contents[job.config],
                  features=features) for job in jobs
    }
    states = {job.method: contents[job.config] for job in jobs}
    expected = dict(claims)
    if not all(job.variant for job in jobs):  # a search's rows stand alone
        for job, claim in _others(jobs, out):
            expected[job] = dict(
                claim, options=list(options), features=features,
                content=states.get(job.method, claim['content']))
    for job, claim in expected.items():
        found = read_claim(job, out)
        if found and (dict(found, config='', code='') !=
                      dict(claim, config='', code='')):
            raise ValueError(
                f'{job.work_dir(Path(out))} holds a run with other options, '
                'with or without cached features, or of another state of its '
                f'config (see {CLAIM}): take another --out, or delete it.')
    return claims


def read_claim(job: Job, out: Union[str, Path]) -> Optional[dict]:
    """What was said of a job's run when it was last started; None: never."""
    path = job.work_dir(Path(out)) / CLAIM
    return json.loads(path.read_text()) if path.is_file() else None


def _others(jobs: Sequence[Job], out: Union[str, Path]
            ) -> List[Tuple[Job, dict]]:
    """Jobs besides these that were started in ``out``, and what was said of
    them, except variants of a search, which are no rows of their method."""
    asked = {job._replace(config='') for job in jobs}
    found = []
    for path in sorted(Path(out).rglob(CLAIM)):
        claim = json.loads(path.read_text())
        if not claim['variant']:
            job = Job(**{k: claim[k] for k in Job._fields if k != 'variant'})
            if job._replace(config='') not in asked:
                found.append((job, claim))
    return found


def _run(job: Job, out: Path, train: str, options: Sequence[str],
         threads: int) -> None:
    """What a run's process does: the training script's work."""
    import torch
    gc.freeze()  # what was imported is not looked through again and again
    folder = job.work_dir(out)
    # Held by the run: should the grid be killed and started again, its new
    # run waits for the one that is still at work here.
    lock = open(folder / 'grid.lock', 'w')
    fcntl.flock(lock, fcntl.LOCK_EX)
    if read_row(job, out):
        return
    log = open(folder / 'grid.log', 'a', buffering=1)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    os.environ['OMP_NUM_THREADS'] = str(threads)
    torch.set_num_threads(threads)
    sys.argv = [
        train, job.config, '--work-dir', str(folder), '--resume',
        '--cfg-options', *(f'{k}={v}' for k, v in job.options().items()),
        *options
    ]
    runpy.run_path(train, run_name='__main__')


def _tell(job: Job, out: Path, exitcode: int) -> None:
    scenes = '' if job.scene_set is None else f'scene set {job.scene_set}, '
    name = f'{job.method}, known {job.known}, {scenes}seed {job.seed}'
    row = read_row(job, out)
    if exitcode or not row:
        log = job.work_dir(out) / 'grid.log'
        print_log(f'{name}: FAILED, see {log}', logger='current')
    elif job.variant:  # a search, which the test set must not guide
        print_log(f'{name}, {", ".join(job.variant)}: validation mAP '
                  f'{read_validation(job, out):.2f}', logger='current')
    else:
        figures = ', '.join(f'{k} {row[k]:.2f}' for k in METRICS if k in row)
        print_log(f'{name}: {figures}', logger='current')


def read_row(job: Job, out: Union[str, Path]) -> Optional[dict]:
    """Figures of the last epoch on the test set; None: not finished."""
    path = job.work_dir(Path(out)) / 'test_results.json'
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError:  # cut off by a kill; the run writes it anew
        return None
    last = next(r for r in content['rows'] if ', last ' in r['method'])
    row = dict(method=job.method, known=job.known, seed=job.seed, split='test',
               mask=(content['known_labels'] or {}).get('hash'))
    if job.scene_set is not None:
        row['scene_set'] = job.scene_set
    if job.variant:
        row['variant'] = ', '.join(job.variant)
    row.update({name: last[name] for name in METRICS
                if last.get(name) is not None})
    return row


def read_validation(job: Job, out: Union[str, Path]) -> Optional[float]:
    """mAP of the last epoch on the validation set; None: not finished."""
    if read_row(job, out) is None:
        return None
    path = job.work_dir(Path(out)) / 'test_results.json'
    return json.loads(path.read_text())['validation'].get('mAP')


def all_rows(jobs: Sequence[Job], out: Union[str, Path]) -> List[dict]:
    """Rows of these jobs, then of all others that were run in ``out``."""
    others = [job for job, _ in _others(jobs, out)]
    rows = (read_row(job, out) for job in [*jobs, *others])
    return [row for row in rows if row]


def table(rows: Sequence[dict], metric: str = 'mAP') -> List[List[str]]:
    """The table that papers print: a line per method, a column per setting,
    and the average over proportions.

    See :func:`cell`. The average is of every seed's proportions first.

    Args:
        rows: With 'method', 'known', 'seed' and the metric, and perhaps
            'scene_set'.

    Returns:
        Lines of cells, the header first.
    """
    settings = sorted({row['known'] for row in rows},
                      key=lambda k: (isinstance(k, str), k))
    shares = [k for k in settings if not isinstance(k, str)]
    runs = sorted({run_of(row) for row in rows})
    lines = [['method', *map(setting_name, settings)]]
    if len(shares) > 1:
        lines[0].append('average')
    for method in dict.fromkeys(row['method'] for row in rows):
        of = {(row['known'], run_of(row)): row[metric] for row in rows
              if row['method'] == method}
        line = [method]
        for setting in settings:
            line.append(cell({run: of[setting, run] for run in runs
                              if (setting, run) in of}, len(runs)))
        if len(shares) > 1:
            whole = [r for r in runs if all((k, r) in of for k in shares)]
            line.append(cell({
                run: statistics.fmean(of[k, run] for k in shares)
                for run in whole}, len(runs)))
        lines.append(line)
    return lines


def run_of(row: dict) -> Tuple[int, int]:
    """(scene set, seed): what tells runs of one method and setting apart."""
    return row.get('scene_set', -1), row['seed']


def setting_name(known: Union[float, str]) -> str:
    """0.1 -> '10%', 'single_positive' -> 'single positive'."""
    if isinstance(known, str):
        return known.replace('_', ' ')
    return f'{100 * known:g}%'


def mean_and_deviation(values: Dict[Tuple[int, int], float]
                       ) -> Tuple[float, Optional[float]]:
    """Mean over runs, and sample standard deviation over seeds.

    Scene sets differ in how hard they are, which is not noise: with several,
    the deviation is the root of the mean variance within them.

    Args:
        values: By :func:`run_of`; at least one.

    Returns:
        The deviation is None where no scene set has two seeds.
    """
    within = {}
    for (scene_set, _), value in values.items():
        within.setdefault(scene_set, []).append(value)
    variances = [statistics.variance(v) for v in within.values() if len(v) > 1]
    return statistics.fmean(values.values()), (
        statistics.fmean(variances)**0.5 if variances else None)


def cell(values: Dict[Tuple[int, int], float], runs: int) -> str:
    """Mean and deviation, and how many runs there are where some of ``runs``
    are missing; '-' without values."""
    if not values:
        return '-'
    mean, deviation = mean_and_deviation(values)
    text = f'{mean:.2f}'
    if deviation is not None:
        text += f' ± {deviation:.2f}'
    return text if len(values) == runs else f'{text} (n={len(values)})'


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rule = ['---'] + ['---:'] * (len(lines[0]) - 1)
    return ''.join(f'| {" | ".join(line)} |\n'
                   for line in [lines[0], rule, *lines[1:]])


def save_tables(rows: Sequence[dict], out: Union[str, Path]) -> str:
    """Write ``rows.json``, ``rows.csv`` and ``table.md``.

    Returns:
        The Markdown, one table per metric.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / 'rows.json') as fresh:
        fresh.write_text(json.dumps(rows, indent=1) + '\n')
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(out / 'rows.csv') as fresh, open(
            fresh, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    text = '\n'.join(
        f'{metric}, last epoch, test set (percent)\n\n'
        f'{markdown(table(rows, metric))}'
        for metric in METRICS if rows and all(metric in r for r in rows))
    with replacing(out / 'table.md') as fresh:
        fresh.write_text(text, encoding='utf-8')
    return text
