"""A training that starts from a checkpoint of other classes."""
import pytest
import torch
from mmengine.hooks import Hook
from tests_support import ROOT, build_small

from trm_ml_mm.engine import load_config, read_checkpoint
from trm_ml_mm.labels import scene_classes
from trm_ml_mm.models.class_entries import ClassChange

EMA = [dict(type='trm_ml_mm.PlainCheckpointHook'),
       dict(type='trm_ml_mm.EpochSeedHook'),
       dict(type='trm_ml_mm.PartialLabelHook'),
       dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=.5)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp('first')
    build_small(folder, {'custom_hooks': EMA}).train()
    return folder / 'run/epoch_2.pth'


class Look(Hook):
    """Keeps the state that the first step starts from."""

    def __init__(self, kept):
        self.kept = kept

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if not self.kept:
            self.kept.update({key: value.clone() for key, value in
                              runner.model.state_dict().items()})


def log_of(folder):
    return next(folder.rglob('*.log')).read_text()


@pytest.mark.parametrize('hooks', [None, EMA], ids=['plain', 'EMA'])
def test_a_training_on_other_classes_says_what_it_keeps(
        small_run, checkpoint, tmp_path, hooks):
    options = {'load_from': str(checkpoint), 'scene_set': 1,
               'train_cfg.max_epochs': 1}
    if hooks:
        options['custom_hooks'] = hooks
    runner = small_run(options, 'next')
    at_start = {}
    runner.register_hook(Look(at_start), 'VERY_HIGH')
    runner.train()
    old, new = scene_classes(0), scene_classes(1)
    kept, fresh, dropped = ClassChange.between(old, new)
    assert kept and fresh and dropped
    log = log_of(tmp_path / 'next')
    line = next(x for x in log.splitlines() if 'Fine-tuning from' in x)
    assert (f'{len(kept)} of 30 classes keep what they learned: '
            f'{", ".join(kept[:20])}') in line
    assert f'{len(fresh)} classes start anew: {fresh[0]}, ' in line
    assert (f'{len(dropped)} classes of the checkpoint are not used: '
            f'{dropped[0]}, ') in line
    assert 'size mismatch' not in log and 'missing keys' not in log
    saved = read_checkpoint(checkpoint)['state_dict']
    bias = at_start['head.bias']
    for name in kept:
        assert bias[new.index(name)] == saved['head.bias'][old.index(name)]
    assert not bias[[new.index(name) for name in fresh]].any()
    assert torch.equal(at_start['head.region.key_proj.weight'],
                       saved['head.region.key_proj.weight'])
    assert at_start['head.label_statistics.seen'] == 0
    assert runner.epoch == 1


def test_the_same_classes_need_no_word(small_run, checkpoint, tmp_path):
    small_run({'load_from': str(checkpoint), 'train_cfg.max_epochs': 1},
              'next').train()
    assert 'Fine-tuning' not in log_of(tmp_path / 'next')


def test_other_words_for_a_class_are_no_other_class(small_run, checkpoint,
                                                    tmp_path):
    name = scene_classes(0)[0]
    small_run({'load_from': str(checkpoint), 'train_cfg.max_epochs': 1,
               'model.backbone.prompt_names': {name: 'red circle'}},
              'next').train()
    assert 'Fine-tuning' not in log_of(tmp_path / 'next')


def test_another_tower_is_still_refused(small_run, checkpoint):
    runner = small_run({'load_from': str(checkpoint), 'scene_set': 1,
                        'arch': 'mini-wide'}, 'next')
    with pytest.raises(ValueError, match='another frozen CLIP'):
        runner.train()


def test_a_checkpoint_without_names_is_still_refused(small_run, checkpoint,
                                                     tmp_path):
    saved = read_checkpoint(checkpoint)
    saved['meta']['dataset_meta'] = dict(classes=[1, 2])
    torch.save(saved, tmp_path / 'a.pth')
    runner = small_run({'load_from': str(tmp_path / 'a.pth'), 'scene_set': 1},
                       'next')
    with pytest.raises(ValueError, match='other class names'):
        runner.train()


def test_the_option_is_one_line():
    cfg = load_config(str(ROOT / 'configs/trm_ml_scenes.py'),
                      {'load_from': 'a.pth'})
    assert cfg.load_from == 'a.pth' and not cfg.resume
