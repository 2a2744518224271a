"""Method x label setting x seed: many runs, one table."""
import csv
import fcntl
import hashlib
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from mmengine.config import Config
from mmengine.logging import print_log

from trm_ml_mm.datasets.files import replacing

from .launch import load_config

METRICS = ('mAP', 'mAP_voc12', 'CF1', 'OF1')


class Job(NamedTuple):
    """One run."""

    method: str  # name of the config
    config: str
    known: Union[float, str]
    seed: int

    def work_dir(self, out: Path) -> Path:
        setting = str(self.known).replace(os.sep, '_')
        return Path(out, self.method, setting, f'seed{self.seed}')

    def options(self) -> Dict[str, object]:
        """A seed draws both the mask and the initialisation; seed 0 stands for
        the published mask of its protocol."""
        return {
            'train_dataloader.dataset.known': self.known,
            'train_dataloader.dataset.seed': self.seed or None,
            'randomness.seed': self.seed,
        }


def plan(configs: Sequence[str], known: Sequence[Union[float, str]],
         seeds: Sequence[int]) -> List[Job]:
    """All runs; seeds vary slowest, so that early rows span every setting.

    Raises:
        ValueError: If two configs have the same file name, or one has no
            PartialLabelDataset, whose ``known`` is to be set.
        FileNotFoundError: If there is no such config.
    """
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
        Job(method, config, setting, seed) for seed in seeds
        for setting in known for method, config in methods.items()
    ]


def run_grid(jobs: Sequence[Job],
             out: Union[str, Path],
             train: Union[str, Path],
             processes: Optional[int] = None,
             options: Sequence[str] = ()) -> List[dict]:
    """Run what is not finished yet, and gather the rows.

    A run that was interrupted goes on from its latest checkpoint; a finished
    one is not run again. Each writes its log to ``grid.log`` in its work dir.

    Args:
        jobs: Of :func:`plan`.
        out: Folder of all work dirs.
        train: The training script.
        processes: Runs at a time; None: one for each GPU, or for each core.
        options: Further ``--cfg-options`` of every run, as 'key=value'.

    Returns:
        Rows of :func:`all_rows`; failed runs have none.

    Raises:
        ValueError: If a work dir in ``out`` holds a run with other options, or
            the options set what a job sets.
    """
    for option in options:
        if option.split('=')[0] in jobs[0].options():
            raise ValueError(f'{option} would override what the grid varies: '
                             'use --known and --seeds.')
    claims = [_claim(job, Path(out), options) for job in jobs]
    for path, content in claims:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as fresh:
                fresh.write_text(content)
    gpus = _gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(
        os, 'sched_getaffinity') else os.cpu_count() or 1
    processes = min(processes or len(gpus) or cores, len(jobs))
    threads = max(1, cores // processes)
    slots = list(range(processes))

    def work(job: Job) -> None:
        slot = slots.pop()
        try:
            env = dict(os.environ, OMP_NUM_THREADS=str(threads))
            if gpus:
                env['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
            _run(job, Path(out), train, options, env)
        finally:
            slots.append(slot)

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(work, jobs))
    return all_rows(jobs, out)


def _gpus() -> List[str]:
    import torch
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible:
        return visible.split(',')
    return [str(i) for i in range(torch.cuda.device_count())]


def _claim(job: Job, out: Path, options: Sequence[str]) -> Tuple[Path, str]:
    """The note that says what is run in a work dir; refuse another's place.

    The config counts by its content, wherever it lies.
    """
    content = hashlib.sha256(
        Config.fromfile(job.config).pretty_text.encode()).hexdigest()[:16]
    own = dict(job._asdict(), options=list(options), content=content)
    path = job.work_dir(out) / 'grid_job.json'
    if path.is_file():
        old = json.loads(path.read_text())
        if dict(old, config='') != dict(own, config=''):
            raise ValueError(
                f'{path.parent} holds a run with other options, or of another '
                f'state of its config (see {path.name}): take another --out.')
    return path, json.dumps(own, indent=1)


def _run(job: Job, out: Path, train: Union[str, Path],
         options: Sequence[str], env: dict) -> None:
    folder = job.work_dir(out)
    name = f'{job.method}, known {job.known}, seed {job.seed}'
    with open(folder / 'grid.lock', 'w') as lock:
        # The run inherits the lock: should the grid be killed and started
        # again, it waits for a run that is still at work here.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_row(job, out):
            print_log(f'{name}: finished already', logger='current')
            return
        command = [
            sys.executable, str(train), job.config, '--work-dir', str(folder),
            '--resume', '--cfg-options',
            *(f'{k}={v}' for k, v in job.options().items()), *options
        ]
        with open(folder / 'grid.log', 'a') as log:
            failed = subprocess.run(
                command, stdout=log, stderr=log, env=env,
                pass_fds=[lock.fileno()]).returncode
    row = read_row(job, out)
    if failed or not row:
        print_log(f'{name}: FAILED, see {folder / "grid.log"}',
                  logger='current')
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
    row.update({name: last[name] for name in METRICS
                if last.get(name) is not None})
    return row


def all_rows(jobs: Sequence[Job], out: Union[str, Path]) -> List[dict]:
    """Rows of these jobs, then of all others that were run in ``out``."""
    found = []
    for path in sorted(Path(out).rglob('grid_job.json')):
        content = json.loads(path.read_text())
        found.append(Job(*(content[name] for name in Job._fields)))
    asked = {job._replace(config='') for job in jobs}
    others = [job for job in found if job._replace(config='') not in asked]
    rows = (read_row(job, out) for job in [*jobs, *others])
    return [row for row in rows if row]


def table(rows: Sequence[dict], metric: str = 'mAP') -> List[List[str]]:
    """The table that papers print: a line per method, a column per setting,
    and the average over proportions.

    A cell is the mean over seeds, with the sample standard deviation where
    there are several seeds, and how many of them where some are missing. The
    average is of every seed's proportions first.

    Args:
        rows: With 'method', 'known', 'seed' and the metric.

    Returns:
        Lines of cells, the header first.
    """
    settings = sorted({row['known'] for row in rows},
                      key=lambda k: (isinstance(k, str), k))
    shares = [k for k in settings if not isinstance(k, str)]
    seeds = sorted({row['seed'] for row in rows})
    lines = [['method', *map(setting_name, settings)]]
    if len(shares) > 1:
        lines[0].append('average')
    for method in dict.fromkeys(row['method'] for row in rows):
        of = {(row['known'], row['seed']): row[metric] for row in rows
              if row['method'] == method}
        line = [method]
        for setting in settings:
            line.append(cell([of[setting, s] for s in seeds
                              if (setting, s) in of], len(seeds)))
        if len(shares) > 1:
            whole = [s for s in seeds if all((k, s) in of for k in shares)]
            line.append(cell([
                statistics.fmean(of[k, s] for k in shares) for s in whole],
                len(seeds)))
        lines.append(line)
    return lines


def setting_name(known: Union[float, str]) -> str:
    """0.1 -> '10%', 'single_positive' -> 'single positive'."""
    if isinstance(known, str):
        return known.replace('_', ' ')
    return f'{100 * known:g}%'


def cell(values: Sequence[float], seeds: int) -> str:
    """Mean and sample standard deviation over so many seeds; '-' without
    values."""
    if not values:
        return '-'
    text = f'{statistics.fmean(values):.2f}'
    if len(values) > 1:
        text += f' ± {statistics.stdev(values):.2f}'
    return text if len(values) == seeds else f'{text} (n={len(values)})'


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
