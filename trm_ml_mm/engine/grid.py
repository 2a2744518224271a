"""Method x label setting x seed: many runs, one table."""
import csv
import fcntl
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Union

from mmengine.logging import print_log

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
        ValueError: If two configs have the same file name.
    """
    methods = {}
    for config in configs:
        other = methods.setdefault(Path(config).stem, config)
        if other != config:
            raise ValueError(f'{other} and {config} have the same file name, '
                             'by which rows are told apart: rename one.')
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
        Rows of :func:`read_row`, in the order of jobs; failed ones are left
        out.

    Raises:
        ValueError: If a work dir in ``out`` holds a run with other options.
    """
    for job in jobs:
        _claim(job, Path(out), options)
    gpus = _gpus()
    processes = processes or len(gpus) or os.cpu_count() or 1
    threads = max(1, (os.cpu_count() or 1) // processes)
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
    return [row for row in (read_row(job, out) for job in jobs) if row]


def _gpus() -> List[str]:
    import torch
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible:
        return visible.split(',')
    return [str(i) for i in range(torch.cuda.device_count())]


def _claim(job: Job, out: Path, options: Sequence[str]) -> None:
    """Note in the work dir what is run there; refuse another run's place."""
    own = json.dumps(dict(job._asdict(), options=list(options)), indent=1)
    path = job.work_dir(out) / 'grid_job.json'
    if path.is_file() and path.read_text() != own:
        raise ValueError(f'{path.parent} holds a run with other options (see '
                         f'{path.name}): take another --out.')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(own)


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
    print_log(
        f'{name}: FAILED, see {folder / "grid.log"}' if failed or not row else
        f'{name}: mAP {row["mAP"]:.2f}', logger='current')


def read_row(job: Job, out: Union[str, Path]) -> Optional[dict]:
    """Figures of the last epoch on the test set; None: not finished."""
    path = job.work_dir(Path(out)) / 'test_results.json'
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError:  # cut off by a kill; the run writes it anew
        return None
    last = next(r for r in content['rows'] if 'last epoch' in r['method'])
    row = dict(method=job.method, known=job.known, seed=job.seed, split='test',
               epoch=last['epoch'],
               mask=(content['known_labels'] or {}).get('hash'))
    row.update({name: last[name] for name in METRICS if name in last})
    return row


def table(rows: Sequence[dict], metric: str = 'mAP') -> List[List[str]]:
    """The table that papers print: a line per method, a column per setting,
    and the average over proportions.

    A cell is the mean over seeds, with the sample standard deviation where
    there are several seeds. The average is of every seed's proportions first.

    Args:
        rows: With 'method', 'known', 'seed' and the metric.

    Returns:
        Lines of cells, the header first.
    """
    settings = sorted({row['known'] for row in rows},
                      key=lambda k: (isinstance(k, str), k))
    shares = [k for k in settings if not isinstance(k, str)]
    lines = [['method', *map(setting_name, settings)]]
    if len(shares) > 1:
        lines[0].append('average')
    for method in dict.fromkeys(row['method'] for row in rows):
        of = {(row['known'], row['seed']): row[metric] for row in rows
              if row['method'] == method}
        seeds = sorted({seed for _, seed in of})
        line = [method]
        for setting in settings:
            line.append(cell([of[setting, s] for s in seeds
                              if (setting, s) in of]))
        if len(shares) > 1:
            whole = [s for s in seeds if all((k, s) in of for k in shares)]
            line.append(cell([
                statistics.fmean(of[k, s] for k in shares) for s in whole]))
        lines.append(line)
    return lines


def setting_name(known: Union[float, str]) -> str:
    """0.1 -> '10%', 'single_positive' -> 'single positive'."""
    if isinstance(known, str):
        return known.replace('_', ' ')
    return f'{100 * known:g}%'


def cell(values: Sequence[float]) -> str:
    """Mean and sample standard deviation, '-' without values."""
    if not values:
        return '-'
    mean = f'{statistics.fmean(values):.2f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {statistics.stdev(values):.2f}'


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
    (out / 'rows.json').write_text(json.dumps(rows, indent=1) + '\n')
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(out / 'rows.csv', 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    text = '\n'.join(
        f'{metric}, last epoch, test set (percent)\n\n'
        f'{markdown(table(rows, metric))}'
        for metric in METRICS if rows and all(metric in r for r in rows))
    (out / 'table.md').write_text(text)
    return text
