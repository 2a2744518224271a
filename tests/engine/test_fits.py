"""Configs, runners, metrics and classifiers that are not the package's own."""
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmpretrain.models import TimmClassifier
from mmpretrain.registry import MODELS
from tests_support import ROOT, SMALL, call_tool

from trm_ml_mm.datasets import CSVMultiLabel
from trm_ml_mm.engine import (
    PartialLabelHook,
    SafeRunner,
    build_runner,
    load_config,
)
from trm_ml_mm.engine.hooks.partial_label import (
    check_classifier,
    check_wrapper,
)
from trm_ml_mm.engine.hooks.report import without_prefix
from trm_ml_mm.engine.launch import save_predictions
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.evaluation.run_record import LAST
from trm_ml_mm.features.fill import resolve_dataset_config
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
    with pytest.raises(ValueError, match='needs a work_dir'):
        build_runner(Config(cfg.to_dict()))


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
    batch_size=8, num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=True),
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
    done = call_tool(ROOT / 'tools/cache_features.py', [
        path, '--workers', '0', '--out', tmp_path / 'features'])
    assert done.status == 0, done.err
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
from mmengine.dataset import RepeatDataset
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
      dict(type='AveragePrecision')], None),
    ([dict(type='MultiLabelMetric'),  # MMPretrain's own names differ
      dict(type='MultiLabelMetric', average='micro'),
      dict(type='MultiLabelMetric', thr=.3)], None)])
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
    with pytest.raises(ValueError, match='such as TIMMBackbone'):
        check_classifier(model)


def test_another_classifier_trains_and_is_reported(small_run, tmp_path):
    """With every hook of the package, and no part of CLIP."""
    small_run({
        'model': dict(
            _delete_=True, type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='MultiLabelLinearClsHead', num_classes=30,
                      in_channels=512,
                      loss=dict(type='trm_ml_mm.PartialAsymmetricLoss'))),
        'train_cfg.max_epochs': 1}).train()
    record = read_record(tmp_path / 'run')
    assert record.head == 'MultiLabelLinearClsHead'
    assert record.row(LAST).metrics['mAP'] > 0
    assert record.known_labels['known'] == .1


def test_two_masks_of_a_run_are_saved_and_checked(small_run, tmp_path):
    def options(seed):
        base = load_config(CONFIG).train_dataloader.dataset
        parts = []
        for split, mask_seed in (('train', 0), ('val', seed)):
            part = base.to_dict()
            part['dataset'].update(split=split, num_images=24)
            parts.append(dict(part, seed=mask_seed))
        return {'train_cfg.max_epochs': 2, 'train_dataloader.dataset': dict(
            _delete_=True, type='ConcatDataset', datasets=parts)}

    small_run({**options(7), 'train_cfg.max_epochs': 1}).train()
    masks = sorted((tmp_path / 'run').glob('known_labels_*.npz'))
    saved = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=True)
    hashes = saved['meta']['known_labels']['hash'].split('+')
    assert sorted(f'known_labels_{h}' for h in hashes) == [
        path.stem for path in masks] and len(set(hashes)) == 2
    counts = saved['state_dict']['head.label_statistics.images']
    assert counts.sum() == 48
    small_run({**options(7), 'train_cfg.max_epochs': 1},
              resume=str(tmp_path / 'run/epoch_1.pth')).train()
    with pytest.raises(ValueError, match='another mask of known labels'):
        small_run({**options(8), 'train_cfg.max_epochs': 1}, 'other',
                  resume=str(tmp_path / 'run/epoch_1.pth')).train()
    quality = (tmp_path / 'run/pseudo_labels.csv').read_text().splitlines()
    assert len(quality) == 2


def test_a_training_without_validation(small_run, tmp_path):
    runner = small_run({'train_cfg.max_epochs': 1}, validate=False)
    runner.train()
    assert runner.val_loop is None
    record = read_record(tmp_path / 'run')
    assert [row.kind for row in record.rows][-1] == LAST
    assert not record.validation


def test_the_rate_follows_the_batch_size_if_asked(small_run):
    plain, scaled = (
        small_run({'train_dataloader.batch_size': 16}, f'{scale}',
                  scale_lr=scale) for scale in (False, True))
    for runner in (plain, scaled):  # what Runner.train does
        runner.optim_wrapper = runner.build_optim_wrapper(
            runner.cfg.optim_wrapper)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    rates = [runner.optim_wrapper.get_lr()['lr'][0]
             for runner in (plain, scaled)]
    assert rates[1] == pytest.approx(rates[0] * 16 / 64)
    with pytest.raises(ValueError, match='auto_scale_lr.base_batch_size'):
        small_run({'auto_scale_lr': dict(_delete_=True)}, scale_lr=True)


def test_predictions_are_written_and_drawn(small_run, tmp_path):
    import pickle

    import cv2
    small_run({'train_cfg.max_epochs': 1}).train()
    path = str(tmp_path / 'run/epoch_1.pth')
    runner = small_run({'test_dataloader.dataset.num_images': 6}, 'test',
                       checkpoint=path, train=False,
                       out=str(tmp_path / 'p.pkl'),
                       show_dir=str(tmp_path / 'drawn'))
    runner.test()
    with open(tmp_path / 'p.pkl', 'rb') as file:
        predicted = pickle.load(file)
    assert [len(p['pred_score']) for p in predicted] == [30] * 6
    drawn = {int(p.name.split('_')[0]): cv2.imread(str(p))
             for p in (tmp_path / 'drawn').iterdir()}
    assert sorted(drawn) == list(range(6))
    for i, picture in drawn.items():
        scene = runner.test_loop.dataloader.dataset[i]['inputs']
        scene = cv2.resize(scene.permute(1, 2, 0).numpy(), (320, 320),
                           interpolation=cv2.INTER_LINEAR)
        assert picture.shape == (320, 320, 3)
        same, swapped = (abs(picture.astype(int) - image).mean()
                         for image in (scene, scene[..., ::-1]))
        assert same < swapped  # red is red
    with pytest.raises(ValueError, match='ends in .pkl'):
        small_run(checkpoint=path, train=False, out='p.json')


def test_pictures_need_images(small_run):
    with pytest.raises(ValueError, match='makes several: test twice'):
        small_run(train=False, tta=[], show_dir='folder')
    with pytest.raises(ValueError, match='--show-dir needs images'):
        save_predictions(Config(dict(feature_cache='x')), None, 'folder')


def test_unknown_labels_of_a_table_are_seen_without_a_mask(tmp_path):
    (tmp_path / 'a.csv').write_text('image,cat,dog\na.png,1,\n')
    (tmp_path / 'a.png').touch()
    head = dict(type='MultiLabelLinearClsHead', num_classes=2, in_channels=512)
    model = MODELS.build(dict(
        type='ImageClassifier', backbone=dict(type='ResNet', depth=18),
        neck=dict(type='GlobalAveragePooling'), head=head))
    dataset = CSVMultiLabel(data_root=str(tmp_path), ann_file='a.csv')
    runner = SimpleNamespace(model=model, train_dataloader=SimpleNamespace(
        dataset=RepeatDataset(dataset, 2)))
    with pytest.raises(ValueError, match='takes unknown labels'):
        PartialLabelHook().before_train(runner)


def test_a_wrapper_with_a_pipeline_of_its_own_is_not_cached():
    masked = 'trm_ml_mm.PartialLabelDataset'
    cfg = Config(dict(train_dataloader=dict(dataset=dict(
        type=masked, pipeline=[], dataset=dict(type='Scenes', pipeline=[])))))
    with pytest.raises(ValueError, match='a pipeline in trm_ml_mm.Partial'):
        resolve_dataset_config(cfg, 'train')
