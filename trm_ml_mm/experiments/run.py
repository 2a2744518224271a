"""Run many jobs: several at a time, each in a process of its own."""
import gc
import multiprocessing
import os
import runpy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Optional, Sequence, Union

from filelock import FileLock
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from trm_ml_mm.engine import load_config
from trm_ml_mm.evaluation.run_record import LAST, read_record
from trm_ml_mm.features import CacheFiller, build_tower, splits_to_cache
from trm_ml_mm.utils.screen import console, say
from trm_ml_mm.utils.versions import code_version

from .manifest import check_manifests, other_jobs, write_manifest
from .plan import Job, parse_options, short_option, split_options

METRICS = ('mAP', 'mAP_voc12', 'CF1', 'OF1')
# Imported once for all runs: without GPUs, each run is forked from a process
# that has them.
PRELOAD = ['trm_ml_mm.engine.launch', 'mmpretrain.models',
           'mmpretrain.datasets', 'mmengine.runner', 'mmengine.visualization']


def cache_features(jobs: Sequence[Job], folder: Union[str, Path],
                   views: int, options: Sequence[str] = ()) -> None:
    """Run the frozen tower once for all jobs, on the data of the first job's
    config, for every choice of data. Continues what is there already.

    Args:
        jobs: Of :func:`~trm_ml_mm.experiments.plan.plan`.
        folder: Gets a folder per choice of data; see :func:`features_of`.
        views: Augmented views per training image.
        options: ``--cfg-options`` of the runs.
    """
    for data in dict.fromkeys(job.data for job in jobs):
        cfg = load_config(jobs[0].config, parse_options([*options, *data]))
        tower = build_tower(cfg)
        for split in splits_to_cache(cfg):
            CacheFiller(cfg, split, features_of(folder, data), views,
                        tower=tower).fill(workers=0)


def features_of(folder: Union[str, Path], data: Sequence[str]) -> Path:
    """Where :func:`cache_features` puts the features of a choice of data."""
    return Path(folder, *(map(short_option, data) if data else ['all']))


def run_grid(jobs: Sequence[Job],
             out: Union[str, Path],
             train: Union[str, Path],
             processes: Optional[int] = None,
             options: Sequence[str] = (),
             features: Optional[Union[str, Path]] = None) -> List[dict]:
    """Run the jobs that are not finished, and collect all rows.

    An interrupted run continues from its latest checkpoint. A finished run is
    not repeated. Each run writes its log to ``grid.log`` in its work dir.

    Args:
        jobs: Of :func:`~trm_ml_mm.experiments.plan.plan`.
        out: Folder of all runs.
        train: The training script.
        processes: Number of runs at a time; None: one per GPU, or per core.
        options: Further ``--cfg-options`` of every run, as 'key=value'.
        features: Folder that :func:`cache_features` filled, to train from.

    Returns:
        Rows of :func:`all_rows`; failed runs have none.

    Raises:
        ValueError: As :func:`~trm_ml_mm.experiments.manifest.check_manifests`
            does, or if an option sets what the jobs vary.
    """
    for option in options:
        if option.split('=')[0] in jobs[0].options():
            raise ValueError(f'{option} would override what the grid varies: '
                             'use --known and --seeds.')
    manifests = check_manifests(jobs, out, options, features is not None)
    todo = [job for job in jobs if not read_row(job, out)]
    code = code_version()
    for job in todo:
        write_manifest(job, out, dict(manifests[job], code=code))
    gpus = _gpus()
    cores = len(os.sched_getaffinity(0)) if hasattr(
        os, 'sched_getaffinity') else os.cpu_count() or 1
    processes = processes or len(gpus) or cores
    threads = max(1, cores // processes)
    slots = list(range(processes))

    # CUDA does not survive a fork, and importing libraries may start it.
    fork = not gpus and 'forkserver' in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('forkserver' if fork else 'spawn')
    if fork:
        context.set_forkserver_preload(PRELOAD)
    starting = threading.Lock()

    def work(job: Job) -> None:
        own = list(options)
        if features is not None:
            own.append(f'feature_cache={features_of(features, job.data)}')
        slot = slots.pop()
        try:
            run = context.Process(target=_run, args=(
                job, Path(out), str(train), own, threads))
            # The child inherits CUDA_VISIBLE_DEVICES at start.
            with starting:
                if gpus:
                    os.environ['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
                run.start()
            run.join()
        finally:
            slots.append(slot)
        _log_result(job, Path(out), run.exitcode)
        # The bar moves on its own ten times a second, which short runs miss.
        bar.update(task, advance=1, refresh=True)

    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    try:
        with Progress(TextColumn('Runs'), BarColumn(), MofNCompleteColumn(),
                      TimeRemainingColumn(), console=console(),
                      transient=True, disable=not console().is_terminal
                      ) as bar, \
                ThreadPoolExecutor(processes) as pool:
            task = bar.add_task('', total=len(todo))
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


def _run(job: Job, out: Path, train: str, options: Sequence[str],
         threads: int) -> None:
    """What a run's process does: call the training script."""
    import torch
    gc.freeze()  # the collector need not look at what was imported
    folder = job.work_dir(out)
    # The run holds this lock. If the grid is killed and started again, its new
    # run waits for the one that is still working here.
    lock = FileLock(folder / 'grid.lock')
    lock.acquire()
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


def _log_result(job: Job, out: Path, exitcode: int) -> None:
    name = ', '.join([job.method, f'known {job.known}', *job.data,
                      f'seed {job.seed}', *map(short_option, job.variant)])
    row = read_row(job, out)
    if exitcode or not row:
        log = job.work_dir(out) / 'grid.log'
        text = f'FAILED, see {log}'
    elif job.variant:  # a search, which the test set must not guide
        text = f'validation mAP {read_validation(job, out):.2f}'
    else:
        text = ', '.join(f'{k} {row[k]:.2f}' for k in METRICS if k in row)
    say(f'{name}: {text}')


def read_row(job: Job, out: Union[str, Path]) -> Optional[dict]:
    """Metrics of the last epoch on the test set; None: not finished."""
    record = read_record(job.work_dir(out))
    if record is None:
        return None
    last = record.row(LAST)
    row = dict(method=job.method, known=job.known, seed=job.seed,
               split=last.split, mask=(record.known_labels or {}).get('hash'))
    row.update({key.rsplit('.', 1)[-1]: number(value) for key, value in
                split_options(job.data).items()})
    if job.variant:
        row['variant'] = ', '.join(job.variant)
    row.update({name: last.metrics[name] for name in METRICS
                if last.metrics.get(name) is not None})
    return row


def number(text: str) -> Union[int, str]:
    """'1' -> 1; other texts stay what they are."""
    return int(text) if text.isdigit() else text


def read_validation(job: Job, out: Union[str, Path]) -> Optional[float]:
    """mAP of the last epoch on the validation set; None: not finished."""
    record = read_record(job.work_dir(out))
    return None if record is None else record.validation.get('mAP')


def all_rows(jobs: Sequence[Job], out: Union[str, Path]) -> List[dict]:
    """Rows of these jobs, then of all others that were run in ``out``."""
    others = [job for job, _ in other_jobs(jobs, out)]
    rows = (read_row(job, out) for job in [*jobs, *others])
    return [row for row in rows if row]
