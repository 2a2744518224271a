"""What goes wrong in a long training loses nothing."""
import errno
import os
import shutil
import signal
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from tests_support import build_small, flat

from trm_ml_mm.engine import AtomicLocalBackend
from trm_ml_mm.engine.checkpoint import latest_checkpoint
from trm_ml_mm.evaluation.run_record import read_record

STATE = ('state_dict', 'optimizer', 'param_schedulers')


class At(Hook):
    """Do something at one point of a run."""

    priority = 'VERY_LOW'

    def __init__(self, point, number, action):
        self.count = 0

        def called(runner, *args, **kwargs):
            self.count += 1
            if self.count == number:
                action(runner)

        setattr(self, point, called)


def load(path):
    return torch.load(path, weights_only=True)


def assert_same_run(a, b):
    """The same last checkpoint, bit for bit, and the same results."""
    ours, theirs = load(a / 'epoch_2.pth'), load(b / 'epoch_2.pth')
    for key in STATE:
        x, y = flat(ours[key], key), flat(theirs[key], key)
        assert x.keys() == y.keys()
        for name in x:
            same = torch.equal(x[name].nan_to_num(), y[name].nan_to_num()) if (
                isinstance(x[name], torch.Tensor)) else x[name] == y[name]
            assert same, name
    assert read_record(a).rows == read_record(b).rows
    assert read_record(a).validation == read_record(b).validation
    tables = [(folder / 'pseudo_labels.csv').read_text() for folder in (a, b)]
    assert tables[0] == tables[1]


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A function: the work dir of a run that nobody disturbed, by the number
    of its loader workers."""
    @cache
    def train(workers):
        folder = tmp_path_factory.mktemp('finished')
        build_small(folder,
                    {'train_dataloader.num_workers': workers}).train()
        return folder / 'run'
    return train


@pytest.fixture
def straight(finished, tmp_path):
    """A copy of it, for this test to damage."""
    return Path(shutil.copytree(finished(0), tmp_path / 'straight'))


@pytest.mark.parametrize('step', [1, 2, 3, 5])
@pytest.mark.parametrize('workers', [0, 2])
def test_a_stopped_run_goes_on_with_the_next_batch(
        small_run, finished, tmp_path, step, workers):
    options = {'train_dataloader.num_workers': workers}
    runner = small_run(options, 'stopped')
    runner.register_hook(At('after_train_iter', step, lambda r: os.kill(
        os.getpid(), signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        runner.train()
    assert left.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    saved = load(tmp_path / 'stopped' / 'interrupted.pth')
    assert saved['meta']['iter'] == step
    with pytest.raises(ValueError, match='earlier training'):
        small_run(options, 'stopped').train()
    small_run(options, 'stopped', resume='auto').train()
    assert not (tmp_path / 'stopped' / 'interrupted.pth').exists()
    assert_same_run(finished(workers), tmp_path / 'stopped')


def test_a_run_stopped_in_its_validation_leaves_at_once(small_run, straight,
                                                        tmp_path):
    runner = small_run(work_dir='stopped')
    runner.register_hook(At('before_val_iter', 1, lambda r: os.kill(
        os.getpid(), signal.SIGINT)))
    with pytest.raises(SystemExit):
        runner.train()
    small_run(work_dir='stopped', resume='auto').train()
    assert_same_run(straight, tmp_path / 'stopped')


def test_a_kill_before_the_validation_does_not_lose_the_best(
        small_run, tmp_path):
    def worse(runner):
        """Every validation is worse than the one before."""
        def after_val_epoch(runner, metrics=None):
            metrics['multi-label/mAP'] = 90. - runner.iter
        hook = At('none', 0, None)
        hook.priority = 'VERY_HIGH'
        hook.after_val_epoch = after_val_epoch
        runner.register_hook(hook)
        return runner

    class Killed(Exception):
        pass

    def kill(runner):
        raise Killed

    runner = worse(small_run())
    runner.register_hook(At('before_val_epoch', 1, kill))
    with pytest.raises(Killed):
        runner.train()
    assert not list((tmp_path / 'run').glob('best_*'))
    again = worse(small_run(resume='auto'))
    again.train()
    assert again.message_hub.get_info('best_score') == 90. - 3
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == [
        'best_multi-label_mAP_epoch_1.pth']


def poison(runner):
    runner.model.head.region.query_offset.data[0, 0] = float('nan')


def test_a_loss_that_is_not_finite_stops_the_run(small_run, tmp_path):
    runner = small_run({'default_hooks.checkpoint.max_keep_ckpts': 1})
    seen = {}

    def remember(runner):
        poison(runner)
        seen.update({k: v.clone()
                     for k, v in runner.model.state_dict().items()})
        seen['step'] = runner.iter

    runner.register_hook(At('before_train_iter', 5, remember))
    with pytest.raises(FloatingPointError) as caught:
        runner.train()
    message = str(caught.value)
    assert 'step 5 (epoch 2)' in message and 'loss_cls' in message
    assert message.count('scene') >= 16 or message.count('train') >= 16
    assert sorted(p.name for p in (tmp_path / 'run').glob('epoch_*')) == [
        'epoch_1.pth']
    now = runner.model.state_dict()
    for name, _ in runner.model.named_parameters():
        assert torch.equal(now[name].nan_to_num(), seen[name].nan_to_num())
    assert now['head.prototypes.visual'].isfinite().all()
    resumed = small_run(resume='auto')
    resumed.train()
    assert resumed.epoch == 2


def test_what_is_not_finite_is_not_saved(small_run, tmp_path):
    runner = small_run()
    runner.register_hook(At('after_train_iter', 3, poison))
    with pytest.raises(FloatingPointError, match='query_offset is not finite'):
        runner.train()
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize('damage', ['cut', 'empty', 'missing', 'note gone'])
def test_resume_finds_the_latest_whole_checkpoint(small_run, straight,
                                                  damage):
    path = straight / 'epoch_2.pth'
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == 'empty':
        path.write_bytes(b'')
    elif damage == 'missing':
        path.unlink()
    else:
        (straight / 'last_checkpoint').unlink()
    found = latest_checkpoint(straight)
    assert found.name == (
        'epoch_2.pth' if damage == 'note gone' else 'epoch_1.pth')
    resumed = small_run(work_dir='straight', resume='auto')
    resumed.train()
    assert resumed.epoch == 2


def test_without_a_whole_checkpoint_nothing_restarts_in_silence(
        small_run, straight):
    for path in straight.glob('epoch_*.pth'):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match='no checkpoint to resume from'):
        small_run(work_dir='straight', resume='auto').train()


def test_a_moved_work_dir_resumes(small_run, straight, tmp_path):
    os.rename(straight, tmp_path / 'moved')
    (tmp_path / 'moved/epoch_2.pth').unlink()
    runner = small_run(work_dir='moved', resume='auto')
    runner.train()
    assert runner.epoch == 2
    assert str(tmp_path / 'moved') in runner.message_hub.get_info('best_ckpt')


@pytest.mark.parametrize('options', [
    {'epochs': 4}, {'lr': 1e-2},
    {'param_scheduler.1.eta_min': 1e-5},
    {'train_dataloader.batch_size': 24}])
def test_another_schedule_is_refused(small_run, straight, options):
    options.setdefault('train_cfg.max_epochs', 2)
    if 'epochs' in options:
        del options['train_cfg.max_epochs']
    with pytest.raises(ValueError, match='another learning rate schedule'):
        small_run(options, 'straight', resume='auto').train()


def test_a_finished_run_that_is_resumed_changes_nothing(small_run, straight):
    before = read_record(straight).rows
    small_run(work_dir='straight', resume='auto').train()
    assert read_record(straight).rows == before


def test_a_used_work_dir_is_refused(small_run, straight):
    with pytest.raises(ValueError, match='earlier training'):
        small_run(work_dir='straight').train()


def test_a_test_leaves_the_config_of_the_training(small_run, straight):
    config = straight / 'trm_ml_scenes.py'
    before = config.read_bytes()
    small_run({'test_dataloader.dataset.num_images': 8}, 'straight',
              checkpoint=str(straight / 'epoch_2.pth')).test()
    assert config.read_bytes() == before


def test_fragments_of_a_killed_run_go(small_run, tmp_path):
    small_run({'train_cfg.max_epochs': 1})
    fragment = tmp_path / 'run' / '.epoch_1.pth.123.part'
    fragment.write_bytes(b'half')
    small_run({'train_cfg.max_epochs': 1}).train()
    assert not fragment.exists()


def test_a_full_disk_says_what_is_needed_and_loses_nothing(tmp_path,
                                                           monkeypatch):
    backend = AtomicLocalBackend()
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'whole', str(path))

    def full(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='disk is full.*3.0 MB') as caught:
        backend.put(bytes(3_000_000), str(path))
    assert caught.value.errno == errno.ENOSPC
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']
    assert path.read_bytes() == b'whole'


def test_orphaned_best_checkpoints_go(small_run, straight):
    best = next(straight.glob('best_*'))
    orphan = best.with_name('best_multi-label_mAP_epoch_77.pth')
    orphan.write_bytes(best.read_bytes())
    (straight / 'epoch_2.pth').unlink()
    runner = small_run(work_dir='straight', resume='auto')
    runner.train()
    assert not orphan.exists()
    assert os.path.isfile(runner.message_hub.get_info('best_ckpt'))


def test_only_a_second_ctrl_c_leaves_without_saving(small_run, tmp_path):
    def signals(*numbers):
        return lambda runner: [os.kill(os.getpid(), n) for n in numbers]

    for name, numbers, saves in (
            ('both', (signal.SIGINT, signal.SIGTERM), True),
            ('insists', (signal.SIGINT, signal.SIGINT), False)):
        runner = small_run(work_dir=name)
        runner.register_hook(At('before_train_iter', 2, signals(*numbers)),
                             'LOWEST')
        with pytest.raises(SystemExit):
            runner.train()
        path = tmp_path / name / 'interrupted.pth'
        assert path.is_file() == saves


def test_a_finished_validation_is_not_repeated(small_run, straight):
    """The epoch that was best is in the checkpoint with its validation."""
    runner = small_run(work_dir='straight', resume='auto')
    saved = load(straight / 'epoch_2.pth')['message_hub']['runtime_info']
    hook = At('before_val_epoch', 0, None)
    runner.register_hook(hook)
    runner.train()
    assert hook.count == (0 if saved.get('epoch_validated') == 2 else 1)
