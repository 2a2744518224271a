"""Parts of a feature cache: of limited size, each filled by one process at a
time, by processes that know nothing of each other."""
import os
import signal

import numpy as np
import pytest
import torch
from filelock import FileLock
from tests_support import ROOT, call_tool

from trm_ml_mm.engine import load_config
from trm_ml_mm.features import CacheFiller, FeatureCache
from trm_ml_mm.features.storage import DONE, TODO

IMAGES = 24
SIZES = {'train_dataloader.dataset.dataset.num_images': IMAGES,
         'val_dataloader.dataset.num_images': 4,
         'test_dataloader.dataset.num_images': 4}


@pytest.fixture(scope='module')
def filler(tmp_path_factory):
    """A function that returns a filler whose parts hold five images."""
    cfg = load_config(str(ROOT / 'configs/trm_ml_scenes.py'), SIZES)
    one = CacheFiller(cfg, 'train', tmp_path_factory.mktemp('none'))
    return lambda out: CacheFiller(cfg, 'train', out, tower=one.tower,
                                   part_gb=5.5 * one.meta.bytes(1) / 1e9)


def rows(folder):
    cache = FeatureCache(folder)
    entries = [cache.entries[name] for name in sorted(cache.entries)]
    return (np.stack([cache.features[e.part][e.row] for e in entries]),
            cache.states(entries))


@pytest.fixture(scope='module')
def whole(filler, tmp_path_factory):
    """The features of a cache that one process filled."""
    out = tmp_path_factory.mktemp('whole')
    assert filler(out).fill(8, 0) == 0
    features, states = rows(out / 'train')
    assert (states == DONE).all()
    return features


def same(a, b):
    """Batches differ, and with them the last bits of a sum."""
    return np.allclose(a, b, rtol=2**-10, atol=1e-2)


def test_parts_are_limited(filler, whole, tmp_path):
    filler(tmp_path).open()
    folder = tmp_path / 'train'
    parts = sorted(folder.glob('part_*'))
    counts = [len(np.load(part / 'state.npy')) for part in parts]
    assert counts == [5, 5, 5, 5, 4]
    assert (rows(folder)[1] == TODO).all()
    before = (folder / 'images.json').stat().st_mtime_ns
    filler(tmp_path).open()  # nothing new: nothing is written
    assert (folder / 'images.json').stat().st_mtime_ns == before
    assert sorted(folder.glob('part_*')) == parts
    with pytest.raises(ValueError, match='part_gb must be a positive number'):
        CacheFiller(None, 'train', tmp_path, part_gb=0)


def test_a_part_that_another_process_fills_is_left_to_it(filler, whole,
                                                         tmp_path):
    filler(tmp_path).open()
    folder, seen = tmp_path / 'train', []
    with FileLock(folder / 'part_1/.lock'), FileLock(folder / 'part_4/.lock'):
        assert filler(tmp_path).fill(
            8, 0, lambda done, total: seen.append((done, total))) == 2
    assert seen[-1] == (15, IMAGES)
    states = [np.load(folder / f'part_{i}/state.npy') for i in range(5)]
    assert [(state == DONE).all() for state in states] == [1, 0, 1, 1, 0]
    assert [(state == TODO).all() for state in states] == [0, 1, 0, 0, 1]
    assert filler(tmp_path).fill(8, 0) == 0
    assert same(rows(folder)[0], whole)


def in_another_process(work):
    """Start it; its process number."""
    pid = os.fork()
    if not pid:
        torch.set_num_threads(1)
        status = 1
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


def test_killed_processes_lose_nothing_and_hold_nothing(filler, whole,
                                                        tmp_path):
    def killed(done, total):
        if done >= 8:
            os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        pid = in_another_process(lambda: filler(tmp_path).fill(4, 0, killed))
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    states = rows(tmp_path / 'train')[1]
    assert 16 <= (states == DONE).sum() < IMAGES
    seen = []
    assert filler(tmp_path).fill(
        8, 0, lambda done, total: seen.append((done, total))) == 0
    left = int((states == TODO).sum())
    assert seen[-1] == (left, left)  # what was done is not done again
    assert same(rows(tmp_path / 'train')[0], whole)


def test_processes_share_a_cache_without_knowing_each_other(filler, whole,
                                                            tmp_path):
    """Both start with no cache at all."""
    computed = tmp_path / 'computed'
    computed.mkdir()

    def work():
        one = filler(tmp_path / 'cache')

        def progress(done, total):
            (computed / f'{os.getpid()}').write_text(str(done))

        one.fill(1, 0, progress)
        return 0

    for pid in [in_another_process(work) for _ in range(3)]:
        assert os.waitpid(pid, 0)[1] == 0
    assert sum(int(p.read_text()) for p in computed.iterdir()) == IMAGES
    features, states = rows(tmp_path / 'cache/train')
    assert (states == DONE).all() and same(features, whole)


def test_the_tool_says_what_others_are_filling(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = ['configs/trm_ml_scenes.py', '--out', tmp_path, '--workers', 0,
                 '--part-gb', '1e-5', '--cfg-options',
                 *(f'{k}={v}' for k, v in {**SIZES, 'train_dataloader.dataset.'
                                           'dataset.num_images': 3}.items())]
    (tmp_path / 'val/part_0').mkdir(parents=True)
    with FileLock(tmp_path / 'val/part_0/.lock'):
        pass  # left by a process that is gone
    done = call_tool('tools/cache_features.py', arguments)
    assert done.status == 0 and 'Train from them' in done.out, done.err
    parts = sorted(tmp_path.glob('train/part_*'))
    assert len(parts) == 3
    np.save(parts[0] / 'state.npy', np.full((1, 1), TODO, np.uint8))
    with FileLock(parts[0] / '.lock'):
        done = call_tool('tools/cache_features.py', arguments)
    assert done.status == 0 and 'Train from them' not in done.out
    assert 'other processes are filling 1 more parts' in done.out
