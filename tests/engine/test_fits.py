"""Configs, runners, metrics and classifiers that are not the package's own."""
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import TimmClassifier
from tests_support import ROOT, SMALL, run

from trm_ml_mm.engine import SafeRunner, build_runner, load_config
from trm_ml_mm.engine.hooks.partial_label import (
    check_classifier,
    check_wrapper,
)
from trm_ml_mm.engine.hooks.report import without_prefix
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.evaluation.run_record import LAST
from trm_ml_mm.registry import RUNNERS

CONFIG = str(ROOT / 'configs/trm_ml_scenes.py')


@RUNNERS.register_module(force=True)
class NamedRunner(SafeRunner):
    """A runner of somebody's own."""


def test_the_runner_of_a_config_is_taken(small_run):
    assert type(small_run()) is SafeRunner
    assert type(small_run({'runner_type': 'trm_ml_mm.NamedRunner'},
                          'named')) is NamedRunner


@pytest.mark.parametrize('name, message', [
    ('FlexibleRunner', 'no subclass of trm_ml_mm.engine.SafeRunner'),
    ('mmengine.Runner', 'no subclass of trm_ml_mm.engine.SafeRunner'),
    ('SafestRunner', 'is not registered')])
def test_a_runner_that_trusts_checkpoints_is_refused(small_run, name, message):
    with pytest.raises(ValueError, match=message):
        small_run({'runner_type': name})


@pytest.mark.parametrize('kind', [
    'MMFullyShardedDataParallel', 'mmengine.MMFullyShardedDataParallel',
    type('MMDeepSpeedEngineWrapper', (), {})])
def test_sharding_is_refused(small_run, kind):
    with pytest.raises(ValueError, match='start with tools/dist_train.sh'):
        check_wrapper(kind)
    if isinstance(kind, str):
        with pytest.raises(ValueError, match='frozen tower'):
            small_run({'model_wrapper_cfg': dict(type=kind)})


def test_a_config_object_is_taken_and_left_alone(tmp_path):
    cfg = Config.fromfile(CONFIG)
    before = cfg.pretty_text
    runner = build_runner(cfg, work_dir=str(tmp_path),
                          options=dict(SMALL, lr=1e-2))
    assert runner.cfg.optim_wrapper.optimizer.lr == 1e-2
    assert cfg.pretty_text == before
    assert load_config(cfg).pretty_text == load_config(CONFIG).pretty_text
    assert load_config(cfg, dict(arch='mini-wide')) != load_config(cfg)


PURE = '''
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import PackInputs, RandomFlip
from torch.optim import AdamW

from trm_ml_mm.datasets import PartialLabelDataset, RenderScene, Scenes
from trm_ml_mm.engine import (AtomicCheckpointHook, PartialLabelHook,
                              PlainCheckpointHook, ReportHook, SafeRunner)
from trm_ml_mm.evaluation import MultiLabelAP
from trm_ml_mm.models import (CLIPClassifier, CLIPPromptBackbone,
                              PartialAsymmetricLoss, TextPixelHead)

default_scope = 'mmpretrain'
runner_type = SafeRunner
pipeline = [dict(type=RenderScene), dict(type=RandomFlip, prob=.5),
            dict(type=PackInputs)]
train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(type=PartialLabelDataset, known=.5, dataset=dict(
        type=Scenes, num_images=16, pipeline=pipeline)))
val_dataloader = test_dataloader = dict(
    batch_size=8, num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=Scenes, split='val', num_images=16, test_mode=True,
                 pipeline=[dict(type=RenderScene), dict(type=PackInputs)]))
val_evaluator = test_evaluator = [dict(type=MultiLabelAP)]
model = dict(
    type=CLIPClassifier,
    backbone=dict(type=CLIPPromptBackbone, arch='mini', classes='dataset',
                  image_size=96),
    head=dict(type=TextPixelHead, loss=dict(type=PartialAsymmetricLoss)))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = test_cfg = dict()
default_hooks = dict(checkpoint=dict(type=AtomicCheckpointHook))
custom_hooks = [dict(type=PlainCheckpointHook), dict(type=PartialLabelHook),
                dict(type=ReportHook, zero_shot=False)]
'''


def test_a_pure_python_config_trains_as_it_is_and_from_a_cache(tmp_path):
    path = tmp_path / 'pure.py'
    path.write_text(PURE)
    run([sys.executable, 'tools/cache_features.py', str(path), '--workers',
         '0', '--out', str(tmp_path / 'features')])
    found = {}
    for name, options in (
            ('images', {}),
            ('cached', dict(feature_cache=str(tmp_path / 'features')))):
        build_runner(str(path), work_dir=str(tmp_path / name), options=dict(
            options, epochs=1, image_size=96, arch='mini',
            randomness=dict(seed=1))).train()
        found[name] = read_record(tmp_path / name).row(LAST).metrics['mAP']
        again = Config.fromfile(next((tmp_path / name).glob('*.py')))
        assert again.model.head.type.endswith('.TextPixelHead')
    assert all(value > 20 for value in found.values())


def test_the_checkpoint_hook_needs_no_import_of_the_package():
    code = f'''
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmengine.registry import HOOKS
cfg = Config.fromfile({CONFIG!r})
hook = HOOKS.build(cfg.default_hooks.checkpoint)
print(type(get_file_backend('x', backend_args=hook.backend_args)).__name__)
'''
    found = subprocess.run([sys.executable, '-c', code], check=True, text=True,
                           capture_output=True).stdout
    assert found.split() == ['AtomicLocalBackend']


@pytest.mark.parametrize('metrics, refused', [
    ([dict(type='trm_ml_mm.MultiLabelF1', threshold=.5),
      dict(type='trm_ml_mm.MultiLabelF1', threshold=.3)], 'MultiLabelF1'),
    ([dict(type='trm_ml_mm.MultiLabelAP'),
      dict(type='AveragePrecision')], 'AveragePrecision'),
    ([dict(type='trm_ml_mm.MultiLabelF1', threshold=.5),
      dict(type='trm_ml_mm.MultiLabelF1', threshold=.3, prefix='at .3'),
      dict(type='AveragePrecision')], None)])
def test_metrics_with_the_same_names_are_refused_at_once(small_run, metrics,
                                                         refused):
    runner = small_run()
    if refused is None:
        assert len(runner.build_evaluator(metrics).metrics) == 3
        return
    with pytest.raises(ValueError, match=f'of them {refused}: give one a '
                       'prefix'):
        runner.build_evaluator(metrics)


def test_no_metric_hides_another():
    assert without_prefix({'multi-label/CF1': 1., 'other/CF1': 2.,
                           'other/mAP': 3.}) == {
        'CF1': 1., 'other/CF1': 2., 'mAP': 3.}


def test_scores_that_sum_to_one_are_refused():
    model = TimmClassifier('test_resnet', num_classes=3, loss=torch.nn.Module())
    with pytest.raises(ValueError, match='the backbone TIMMBackbone'):
        check_classifier(model)
