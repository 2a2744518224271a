"""How long a training takes is said after its first steps."""
import re

import pytest
import torch

from trm_ml_mm.engine.hooks import training_time
from trm_ml_mm.engine.hooks.training_time import TrainingTimeHook, duration
from trm_ml_mm.features import CacheFiller, splits_to_cache

# 4 epochs of 3 steps of 16 images, 24 images each for validation and test.
OPTIONS = {'train_cfg.max_epochs': 4}


def timed(runner, step, validation, start=0.):
    """Give the hook a clock of its own: every step and validation takes so
    long, an epoch so long to start."""
    hook = next(h for h in runner.hooks if isinstance(h, TrainingTimeHook))
    now = [100.]

    class Clock(type(hook)):
        pass

    def tick(method, seconds):
        def later(self, *args, **kwargs):
            now[0] += seconds
            return method(self, *args, **kwargs)
        return later

    Clock.after_train_iter = tick(TrainingTimeHook.after_train_iter, step)
    Clock.after_val_epoch = tick(TrainingTimeHook.after_val_epoch, validation)
    Clock.clock = staticmethod(lambda: now[0])

    def started(self, runner):
        self.epoch = now[0]
        now[0] += start

    Clock.before_train_epoch = started
    hook.__class__ = Clock
    return now


def said(folder, words):
    log = next(folder.rglob('*.log')).read_text()
    return [line.split('INFO - ')[1] for line in log.splitlines()
            if words in line]


def test_the_time_is_that_of_all_steps_and_evaluations(small_run, tmp_path):
    runner = small_run(OPTIONS)
    timed(runner, step=3., validation=6., start=2.)
    runner.train()
    # Two steps of 3 s after the first; an image takes 3 / 16 s.
    seconds = 9 * 3 + (4 * 24 + 2 * 24) * 3 / 16
    line, = said(tmp_path / 'run', 'This training will take')
    assert line == (
        f'This training will take about {duration(seconds)}: 9 more steps of '
        '3.0 s (2 were measured), 4 validations of 24 images, and a test of '
        '24.')
    # Three epochs, their validations and the test, as they are measured.
    seconds = 3 * (3 * 3 + 2) + (3 * 24 + 2 * 24) * 6 / 24
    line, = said(tmp_path / 'run', 'to go')
    assert line == (f'About {duration(seconds)} to go. A validation takes '
                    '6.0 s.')


def test_many_short_steps_are_measured(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(training_time, 'STEPS', 4)
    runner = small_run({
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.dataset.num_images': 112})
    timed(runner, step=.5, validation=1.)
    runner.train()
    line, = said(tmp_path / 'run', 'This training will take')
    assert f'{7 - 5} more steps of 500 ms (4 were measured)' in line


def test_a_long_training_says_what_to_do(small_run, tmp_path):
    runner = small_run()
    timed(runner, step=600., validation=6.)
    hook = next(h for h in runner.hooks if isinstance(h, TrainingTimeHook))
    hook.cache_command = 'python tools/cache_features.py c.py'
    runner.train()
    line, = said(tmp_path / 'run', 'This training will take')
    # 48 + 24 + 24 images of 37.5 s.
    assert line.endswith(
        'Most of that is the frozen tower. To compute its features once, in '
        'about 60 min, and to train from them in much less, as often as you '
        'like: python tools/cache_features.py c.py')


def test_from_features_there_is_other_advice(small_run, tmp_path):
    runner = small_run(work_dir='first')
    for split in splits_to_cache(runner.cfg):
        CacheFiller(runner.cfg, split, tmp_path / 'features').fill(workers=0)
    runner = small_run({'feature_cache': str(tmp_path / 'features')})
    timed(runner, step=600., validation=6.)
    runner.train()
    line, = said(tmp_path / 'run', 'This training will take')
    assert line.endswith('A GPU would take much less; so would smaller images '
                         '(image_size=224) or fewer epochs (epochs=5).')


@pytest.mark.parametrize('options', [
    {'train_cfg.max_epochs': 1},
    {'train_cfg': dict(_delete_=True, by_epoch=False, max_iters=9,
                       val_interval=3), 'param_scheduler': []},
], ids=['one epoch', 'steps'])
def test_other_loops(small_run, tmp_path, options):
    by_step = 'train_cfg' in options
    if by_step:
        options['train_dataloader.sampler'] = dict(
            type='InfiniteSampler', shuffle=True)
    runner = small_run(options)
    timed(runner, step=3., validation=6.)
    runner.train()
    line, = said(tmp_path / 'run', 'This training will take')
    assert ('6 more steps of 3.0 s (2 were measured), 3 validations'
            if by_step else '0 more steps of 3.0 s (2 were measured), 1 valid'
            ) in line
    if by_step:
        line, = said(tmp_path / 'run', 'to go')
        seconds = 6 * 3 + (2 * 24 + 2 * 24) * 6 / 24
        assert line.startswith(f'About {duration(seconds)} to go.')


def test_results_do_not_depend_on_it(small_run, tmp_path):
    """The same bits with and without the hook."""
    states = []
    for name in ('with', 'without'):
        runner = small_run(work_dir=name)
        if name == 'without':
            runner._hooks = [h for h in runner._hooks
                             if not isinstance(h, TrainingTimeHook)]
        runner.train()
        states.append(torch.load(tmp_path / name / 'epoch_2.pth',
                                 weights_only=True)['state_dict'])
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(value.nan_to_num(7), states[1][key].nan_to_num(7))


@pytest.mark.parametrize('seconds, words', [
    (.25, '250 ms'), (2.54, '2.5 s'), (12.4, '12 s'), (89, '89 s'),
    (90, '2 min'), (3600, '60 min'), (5399, '1 h 30 min'), (7500, '2 h 05 min'),
    (200000, '2.3 days')])
def test_a_time_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_real_training_says_a_time(small_run, tmp_path):
    small_run().train()
    line, = said(tmp_path / 'run', 'This training will take')
    assert re.search(
        r'about [\d.]+ m?s: 3 more steps of [\d.]+ m?s \(2 were', line)
