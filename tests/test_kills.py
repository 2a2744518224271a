"""Five runs of faults.py, and kills around shards; docs/reliability.md has all
kinds, many times."""
import os
import random
import shutil
import signal
import time

import faults
import numpy as np
import pytest
import torch
from tests_support import ROOT, call_tool, trm_ml

from trm_ml_mm.cli import make_shards
from trm_ml_mm.engine import build_runner


@pytest.mark.parametrize('kinds', [
    ('SIGKILL', 'full disk'), ('SIGTERM, loader workers', 'a loader worker'),
    ('one rank of two', )])
def test_killed_trainings_resume_to_the_same_bits(tmp_path, kinds):
    runs = list(faults.run(len(kinds), 1, tmp_path, kinds))
    assert [kind for kind, *_ in runs] == list(kinds)
    assert all(differs is None for *_, differs in runs), runs


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed_tool(arguments, function, call):
    """The tool in a process that is killed at the n-th call of a function of
    the operating system. False: it ended before."""
    pid = os.fork()
    if not pid:
        calls, real = [], getattr(os, function)

        def counted(*args, **options):
            calls.append(args)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        setattr(os, function, counted)
        try:
            make_shards.main.__wrapped__(list(map(str, arguments)))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize('function', ['replace', 'fsync', 'fstat'])
def test_a_killed_shard_tool_goes_on_to_the_same_bytes(tmp_path, function):
    """Killed before each rename, before each sync, and while it reads images;
    each time the same command goes on with what the last one left."""
    images, rng = tmp_path / 'images', np.random.RandomState(0)
    images.mkdir()
    for i in range(200):
        (images / f'{i}.jpg').write_bytes(rng.bytes(rng.randint(1, 2000)))
    arguments = [images, '--shard-size', '.05', '--out']
    make_shards.main.__wrapped__([*map(str, arguments),
                                  str(tmp_path / 'straight')])
    expected = files_in(tmp_path / 'straight')
    assert len(expected) == 2 * 8 + 2  # shards with their records; index, lock
    out, kills, left = tmp_path / 'killed', 0, set()
    # A few calls further each time, so that kills fall everywhere.
    for call in [1, 2, 3, 4, 2, 1, 5, 9, 99]:
        if not killed_tool([*arguments, out], function,
                           call * (30 if function == 'fstat' else 1)):
            break
        kills += 1
        left |= {name.split('.')[-1] for name in files_in(out)}
        assert 'index.npy' not in files_in(out) or function == 'fsync'
    assert kills >= 3 and 'part' in left
    done = call_tool(ROOT / 'tools/make_shards.py', [*arguments, out])
    assert done.status == 0 and '200 images in 8 shards' in done.out
    assert files_in(out) == expected


PHOTOS = '''
_base_ = 'trm_ml_mm::trm_ml_csv.py'
data_root = {root!r}
custom_imports = dict(imports=['fault_hooks'])
custom_hooks = [
    dict(type='trm_ml_mm.PlainCheckpointHook'),
    dict(type='trm_ml_mm.EpochSeedHook'),
    dict(type='trm_ml_mm.PartialLabelHook'),
    dict(type='EMAHook', momentum=.05),
    dict(type='trm_ml_mm.ReportHook', zero_shot=False),
    dict(type='trm_ml_mm.PseudoLabelQualityHook'),
    dict(type='trm_ml_mm.TellHook'),
]
train_dataloader = dict(batch_size=4, dataset=dict(
    known=.5, dataset=dict(ann_file='labels.csv')))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    ann_file='labels.csv'))
test_dataloader = val_dataloader
model = dict(backbone=dict(arch='mini', weights=None),
             head=dict(prototypes=dict(warmup_images=8)))
image_size = 96
epochs = {epochs}
'''


@pytest.fixture
def _one_thread():
    """As the trainings of faults.py: bits depend on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_training_on_shards_is_that_on_files_and_survives_a_kill(
        tmp_path, _one_thread):
    root, shards = tmp_path / 'data', tmp_path / 'shards'
    assert trm_ml(['make-scenes', '--out', root, '--images', 32]) == 0
    assert call_tool(ROOT / 'tools/make_shards.py', [
        root, '--out', shards, '--shard-size', '.05']).status == 0
    text = PHOTOS.format(root=f'{root}/', epochs=faults.EPOCHS)
    # A folder with the same tables and no image.
    (tmp_path / 'config.py').write_text(text.replace(
        str(root), str(tmp_path / 'tables')) + f'shards = {str(shards)!r}\n')
    (tmp_path / 'tables').mkdir()
    shutil.copy(root / 'labels.csv', tmp_path / 'tables')
    killed = faults.Training(tmp_path, tmp_path / 'killed', 1, 2)
    files, workers = tmp_path / 'files.py', {'train_dataloader.num_workers': 2}
    files.write_text(text)
    build_runner(str(files), str(tmp_path / 'straight'), workers).train()
    while killed.process.poll() is None and not (
            tmp_path / 'killed/epoch_1.pth').exists():
        time.sleep(.01)
    assert faults.disturb(killed, 'SIGKILL', .1, random.Random(0)), (
        ''.join(killed.lines))
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / f'killed/epoch_{faults.EPOCHS}.pth').exists()
    build_runner(str(tmp_path / 'config.py'), str(tmp_path / 'killed'),
                 workers, resume='auto').train()
    assert faults.difference(tmp_path / 'straight', tmp_path / 'killed') is None
