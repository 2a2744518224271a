"""Kill trainings at random moments, resume them, and compare with a training
that nobody disturbed: python tests/faults.py [RUNS] [SEED]

Prints what was killed when. Exit status 1 if a run differs in one bit.
"""
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import torch
from tests_support import ROOT, flat, free_port

from trm_ml_mm.engine import read_checkpoint
from trm_ml_mm.evaluation.run_record import read_record

EPOCHS = 3
CONFIG = f'''
_base_ = [{str(ROOT / 'configs/trm_ml_scenes.py')!r}]
custom_imports = dict(imports=['fault_hooks'])
custom_hooks = [
    dict(type='trm_ml_mm.PlainCheckpointHook'),
    dict(type='trm_ml_mm.EpochSeedHook'),
    dict(type='trm_ml_mm.PartialLabelHook'),
    dict(type='trm_ml_mm.FiniteLossHook'),
    dict(type='EMAHook', momentum=.05),
    dict(type='trm_ml_mm.ReportHook', zero_shot=False),
    dict(type='trm_ml_mm.PseudoLabelQualityHook'),
    dict(type='trm_ml_mm.StopSignalHook'),
    dict(type='trm_ml_mm.TellHook'),
]
model = dict(head=dict(prototypes=dict(warmup_images=32)))
train_dataloader = dict(batch_size=8, dataset=dict(
    known=.3, dataset=dict(num_images=96)))
val_dataloader = dict(dataset=dict(num_images=40))
test_dataloader = dict(dataset=dict(num_images=40))
train_cfg = dict(max_epochs={EPOCHS})
default_hooks = dict(logger=dict(interval=1))
'''
# kind: (ranks, loader workers)
KINDS = {
    'SIGKILL': (1, 0), 'SIGTERM': (1, 0), 'SIGINT': (1, 0),
    'full disk': (1, 0), 'SIGKILL, loader workers': (1, 2),
    'SIGTERM, loader workers': (1, 2), 'a loader worker': (1, 2),
    'one rank of two': (2, 0), 'SIGTERM, two ranks': (2, 0),
}


class Training:
    """One training process, or one for each rank."""

    def __init__(self, folder, work_dir, ranks, workers, **env):
        script = [str(ROOT / 'tools/train.py'), str(folder / 'config.py'),
                  '--work-dir', str(work_dir), '--resume', '--cfg-options',
                  f'train_dataloader.num_workers={workers}']
        command = [sys.executable, *script]
        if ranks > 1:
            command = [sys.executable, '-m', 'torch.distributed.run',
                       f'--nproc_per_node={ranks}',
                       f'--master_port={free_port()}', *script,
                       '--launcher', 'pytorch']
        path = os.pathsep.join([str(ROOT / 'tests'), str(ROOT),
                                os.environ.get('PYTHONPATH', '')])
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path,
                 **env})
        self.started, self.pids, self.lines = threading.Event(), {}, []
        self.ranks, self.children = ranks, []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith('TRAINING'):
                _, rank, pid = line.split()
                self.pids[int(rank)] = int(pid)
                if len(self.pids) == self.ranks:
                    self.begin = time.monotonic()
                    self.started.set()
        self.started.set()  # also if it ended before

    def wait(self):
        """Exit status; kills what hangs."""
        try:
            self.process.wait(300)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f'hangs: {"".join(self.lines[-20:])}') from None
        self.reader.join()
        return self.process.returncode


def children(pid):
    return [int(p) for path in Path(f'/proc/{pid}/task').glob('*/children')
            for p in path.read_text().split()]


def alive(pid):
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    return stat.rsplit(')', 1)[1].split()[0] != 'Z'


def outlive(pids, seconds=5):
    """Those of the processes that still live after some seconds."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(.05)
    return list(filter(alive, pids))


def disturb(training, kind, delay, rng):
    """Do it, some time after the training began. False: it was over."""
    training.started.wait()
    time.sleep(delay)
    if training.process.poll() is not None or not training.pids:
        return False
    pid = training.pids[rng.randrange(len(training.pids))]
    try:
        training.children = children(pid)  # loader workers, if any
        if kind == 'a loader worker':
            for _ in range(200):  # they live for an epoch
                found = children(pid)
                if found:
                    os.kill(rng.choice(found), signal.SIGKILL)
                    return True
                time.sleep(.01)
            return False
        if kind == 'SIGTERM, two ranks':
            for each in training.pids.values():
                os.kill(each, signal.SIGTERM)
        else:
            name = 'SIGKILL' if kind == 'one rank of two' else (
                kind.split(',')[0])
            os.kill(pid, getattr(signal, name))
    except ProcessLookupError:
        return False
    return True


def difference(a, b):
    """The first thing in which two finished runs differ, or None."""
    ours, theirs = (read_checkpoint(path / f'epoch_{EPOCHS}.pth')
                    for path in (a, b))
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        x, y = flat(ours[part], part), flat(theirs[part], part)
        if x.keys() != y.keys():
            return f'{part}: other entries'
        for name, value in x.items():
            same = torch.equal(value.nan_to_num(), y[name].nan_to_num()) if (
                isinstance(value, torch.Tensor)) else value == y[name]
            if not same:
                return name
    first, second = read_record(a), read_record(b)
    if (first.rows, first.validation) != (second.rows, second.validation):
        return 'results'
    tables = [(path / 'pseudo_labels.csv').read_text() for path in (a, b)]
    return None if tables[0] == tables[1] else 'pseudo-labels'


def run(count, seed, folder, kinds=tuple(KINDS)):
    """Yields (kind, moment, exit status, what differs or None)."""
    rng = random.Random(seed)
    (folder / 'config.py').write_text(textwrap.dedent(CONFIG))
    straight = {}
    for number in range(count):
        kind = kinds[number % len(kinds)]
        ranks, workers = KINDS[kind]
        if (ranks, workers) not in straight:
            work_dir = folder / f'straight_{ranks}_{workers}'
            training = Training(folder, work_dir, ranks, workers)
            if training.wait():
                raise RuntimeError(''.join(training.lines[-40:]))
            straight[ranks, workers] = (
                work_dir, time.monotonic() - training.begin)
        reference, seconds = straight[ranks, workers]
        work_dir = folder / f'run_{number}'
        if kind == 'full disk':
            moment = f'write {rng.randrange(1, 9)}'
            training = Training(folder, work_dir, ranks, workers,
                                FULL_DISK_AT=moment.split()[1])
        else:
            delay = rng.uniform(0, .9 * seconds)
            moment = f'{delay:5.2f} s of {seconds:.2f} s'
            training = Training(folder, work_dir, ranks, workers)
            if not disturb(training, kind, delay, rng):
                moment += ' (over)'
        status = training.wait()
        left = outlive(training.children)
        if left:
            raise RuntimeError(f'{kind}: processes {left} outlive the killed '
                               'training.')
        again = Training(folder, work_dir, ranks, workers)
        differs = (f'did not resume: {again.lines[-1]}' if again.wait()
                   else difference(reference, work_dir))
        yield kind, moment, status, differs


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    same = 0
    print('| run | killed | when | exit status | after the resume |')
    print('|---:|:---|:---|---:|:---|')
    with tempfile.TemporaryDirectory() as folder:
        for number, (kind, moment, status, differs) in enumerate(
                run(count, seed, Path(folder))):
            same += differs is None
            print(f'| {number} | {kind} | {moment} | {status} | '
                  f'{differs or "the same bits"} |', flush=True)
    print(f'{same} of {count} resumed to the same bits')
    sys.exit(same < count)


if __name__ == '__main__':
    main()
