"""Whole runs on the built-in set: train, save, resume, test, refuse."""
import logging
import os
import time

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend

from trm_ml_mm.datasets import Scenes
from trm_ml_mm.engine.hooks.partial_label import check_losses
from trm_ml_mm.evaluation.run_record import (
    BEST,
    LAST,
    ZERO_SHOT_DENSE,
    ZERO_SHOT_GLOBAL,
    read_record,
)
from trm_ml_mm.labels import summarize_labels
from trm_ml_mm.registry import MODELS

EMA = dict(custom_hooks=[
    dict(type='trm_ml_mm.PlainCheckpointHook'),
    dict(type='trm_ml_mm.EpochSeedHook'),
    dict(type='trm_ml_mm.PartialLabelHook'),
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=.05),
])
VAL_IS_TEST = {'test_dataloader.dataset.split': 'val'}


def load(path):
    return torch.load(path, weights_only=True)


def assert_same(a, b, where=''):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f'{where}.{key}')
    elif isinstance(a, (list, tuple)):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f'{where}[{i}]')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b) or (a.isnan() == b.isnan()).all() and (
            torch.equal(a.nan_to_num(), b.nan_to_num())), where
    else:
        assert a == b, where


def last_metrics(runner):
    """Of the last validation; a checkpoint is written before it."""
    return {
        key.removeprefix('val/'): buffer.data[0][-1].item()
        for key, buffer in runner.message_hub.log_scalars.items()
        if key.startswith('val/multi-label')
    }


def test_resumed_run_is_bit_identical(small_run, tmp_path):
    straight = small_run(dict(EMA), 'straight')
    straight.train()
    resumed = small_run(
        dict(EMA), 'resumed',
        resume=str(tmp_path / 'straight' / 'epoch_1.pth'))
    resumed.train()
    a = load(tmp_path / 'straight' / 'epoch_2.pth')
    b = load(tmp_path / 'resumed' / 'epoch_2.pth')
    for key in ('state_dict', 'ema_state_dict', 'optimizer',
                'param_schedulers'):
        assert_same(a[key], b[key], key)
    assert 'head.prototypes.visual' in a['state_dict']
    assert last_metrics(straight) == last_metrics(resumed)
    assert len(last_metrics(straight)) > 10


def test_two_runs_of_one_second_share_nothing(small_run, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, 'time', lambda: now)
    one, two = (small_run({'experiment_name': 'twin'}, work_dir=name)
                for name in ('one', 'two'))
    assert one.experiment_name == two.experiment_name
    for part in ('logger', 'message_hub', 'visualizer'):
        assert getattr(one, part) is not getattr(two, part)
    files = [{handler.baseFilename for handler in run.logger.handlers
              if isinstance(handler, logging.FileHandler)}
             for run in (one, two)]
    assert all(files) and not files[0] & files[1]


def test_resume_without_a_path_takes_the_latest(small_run, tmp_path):
    small_run({'train_cfg.max_epochs': 1}).train()
    again = small_run(resume='auto')
    again.train()
    assert again.epoch == 2
    assert (tmp_path / 'run' / 'epoch_2.pth').is_file()


def test_worker_processes_repeat_too(small_run, tmp_path):
    options = {'train_dataloader.num_workers': 2}
    small_run(options, 'a').train()
    small_run(options, 'b', resume=str(tmp_path / 'a/epoch_1.pth')).train()
    assert_same(load(tmp_path / 'a/epoch_2.pth')['state_dict'],
                load(tmp_path / 'b/epoch_2.pth')['state_dict'])


def test_augmentation_differs_between_epochs():
    from trm_ml_mm.engine import EpochSeedHook

    class Runner:
        seed = 0

    draws = []
    for Runner.epoch in (0, 1, 0):
        EpochSeedHook().before_train_epoch(Runner)
        draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_checkpoint_holds_what_was_learned_and_loads_silently(
        small_run, tmp_path, caplog):
    runner = small_run(dict(EMA, **VAL_IS_TEST))
    runner.train()
    trained = last_metrics(runner)
    path = tmp_path / 'run' / 'epoch_2.pth'
    assert path.stat().st_size < 20e6
    names = set(load(path)['state_dict'])
    assert not any('visual.' in n and 'prototypes' not in n or
                   'transformer' in n for n in names), names
    with caplog.at_level(logging.DEBUG):
        tester = small_run(dict(EMA, **VAL_IS_TEST), 'test',
                           checkpoint=str(path))
        tested = tester.test()
    log = caplog.text + ''.join(
        p.read_text() for p in (tmp_path / 'test').rglob('*.log'))
    for noise in ('missing keys', 'unexpected key', 'size mismatch'):
        assert noise not in log
    compared = 0
    for key, value in tested.items():
        if key.startswith('multi-label/'):
            assert value == trained[key], key
            compared += 1
    assert compared > 10


def test_frozen_tower_is_bit_identical_after_training(small_run):
    runner = small_run()
    visual = runner.model.backbone.visual
    clip = runner.model.backbone.text.clip
    before = {k: v.clone() for k, v in clip.state_dict().items()}
    runner.train()
    assert runner.model.backbone.visual is visual
    assert_same(before, dict(clip.state_dict()))
    learned = {id(p) for g in runner.optim_wrapper.param_groups
               for p in g['params']}
    assert not learned & {id(p) for p in clip.parameters()}


def test_other_class_names_are_refused(small_run, tmp_path):
    small_run({'train_cfg.max_epochs': 1}).train()
    path = str(tmp_path / 'run' / 'epoch_1.pth')
    with pytest.raises(ValueError, match='other class names'):
        small_run({'scene_set': 1}, 'other', checkpoint=path).test()


def test_another_tower_is_refused(small_run, tmp_path):
    from trm_ml_mm.models.towers.mini import MINI_CLIPS
    small_run({'train_cfg.max_epochs': 1}).train()
    packed = load(MINI_CLIPS['mini'])
    packed['visual.conv1.weight'] += .01
    torch.save(packed, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='another frozen CLIP'):
        small_run({'model.backbone.weights': str(tmp_path / 'other.pth')},
                  'other', checkpoint=str(tmp_path / 'run/epoch_1.pth')).test()


@pytest.mark.parametrize('change', [
    {'train_dataloader.dataset.seed': 1},
    {'train_dataloader.dataset.known': .2},
    {'train_dataloader.dataset': dict(
        type='trm_ml_mm.Scenes', num_images=48, _delete_=True,
        pipeline=[dict(type='trm_ml_mm.RenderScene'),
                  dict(type='PackInputs')])},  # all labels
])
def test_resume_on_another_mask_is_refused(small_run, tmp_path, change):
    small_run({'train_cfg.max_epochs': 1}).train()
    with pytest.raises(ValueError, match='another mask of known labels'):
        small_run(change, 'other',
                  resume=str(tmp_path / 'run/epoch_1.pth')).train()


def test_model_and_data_must_agree(small_run):
    with pytest.raises(ValueError, match='^Class 0 is'):
        small_run({'model.backbone.classes': 'scenes:1'}).train()
    with pytest.raises(ValueError, match='num_classes=29'):
        small_run({'model.head.num_classes': 29}).train()
    with pytest.raises(ValueError, match='persistent_workers'):
        small_run({'train_dataloader.persistent_workers': True,
                   'train_dataloader.num_workers': 1}).train()


def test_losses_that_take_unknown_labels_as_numbers_are_refused(small_run):
    options = {'model.head.loss.type': 'mmpretrain.AsymmetricLoss'}
    with pytest.raises(ValueError, match='^AsymmetricLoss takes unknown labels '
                       r'\(-1\) as numbers: set .*PartialAsymmetricLoss'):
        small_run(options).train()
    model = torch.nn.Sequential(MODELS.build(dict(
        type='mmpretrain.AsymmetricLoss')))
    check_losses(model, summarize_labels(np.array([[1, 0]])))  # all known


def test_missing_files_and_gpus_are_named(small_run):
    with pytest.raises(FileNotFoundError, match='none.pth does not exist'):
        small_run(checkpoint='none.pth')
    with pytest.raises(FileNotFoundError, match='none.py does not exist'):
        small_run(config='none.py')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='--amp needs a GPU'):
            small_run(amp=True)


@pytest.mark.parametrize('options', [
    {'model.head.distillation': None},
    {'model.head.contrast': None},
    {'model.head.pseudo_weight': 0},
    {'model.head.contrast': None, 'model.head.pseudo_weight': 0,
     'model.head.prototypes': None, 'model.head.distillation': None},
    {'model.head.region_loss': dict(type='trm_ml_mm.PartialAsymmetricLoss')},
    {'model.head.scores': 'query', 'model.head.relations': 0},
    {'train_dataloader.dataset.known': 'single_positive'},
    {'model.backbone.prompt.pair': True,
     'model.backbone.prompt.learnable': True},
    {'model.backbone.prompt.learnable': True,
     'model.backbone.text_residual': .3},
    {'model.backbone.prompt.context': 4,
     'model.backbone.prompt.learnable': True},
    {'model.head.region.residual': False, 'model.head.region.num_heads': 4},
])
def test_every_switch_trains(small_run, options):
    runner = small_run({'train_cfg.max_epochs': 1, **options})
    runner.train()
    assert 'multi-label/mAP' in str(runner.message_hub.log_scalars.keys())


def test_a_kill_while_writing_leaves_the_previous_file(tmp_path, monkeypatch):
    import os

    from trm_ml_mm.engine import AtomicLocalBackend  # noqa: F401
    backend = get_file_backend('x', backend_args=dict(backend='atomic'))
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'whole', str(path))

    def killed(*args):
        raise KeyboardInterrupt

    backend.remove(str(path))  # as the hook does, before it writes the next
    assert path.read_bytes() == b'whole'
    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b'half', str(tmp_path / 'epoch_2.pth'))
    assert path.read_bytes() == b'whole'
    monkeypatch.undo()
    backend.put(b'next', str(tmp_path / 'epoch_2.pth'))
    assert (tmp_path / 'epoch_2.pth').read_bytes() == b'next'
    assert path.exists()  # 'last_checkpoint' may still name it
    backend.put(b'third', str(tmp_path / 'epoch_3.pth'))
    assert not path.exists()


def test_training_learns(small_run):
    """The loss falls, and the report's own figures say that scenes it has
    not seen are told better than by zero-shot CLIP."""
    runner = small_run({
        'train_dataloader.dataset.dataset.num_images': 640,
        'train_dataloader.dataset.known': .9,
        'test_dataloader.dataset.num_images': 200,
        'custom_hooks.4.zero_shot': True,
    })
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss_cls').data[0]
    assert losses[-10:].mean() < .9 * losses[:10].mean()
    record = read_record(runner.work_dir)
    dense, pooled, ours = (
        record.row(kind).metrics['mAP'] for kind in (
            ZERO_SHOT_DENSE, ZERO_SHOT_GLOBAL, LAST))
    assert ours > dense > pooled


def test_pipeline_hides_labels_from_the_model():
    from trm_ml_mm.datasets import PartialLabelDataset
    data = PartialLabelDataset(
        Scenes(num_images=4, pipeline=[dict(type='trm_ml_mm.RenderScene'),
                                       dict(type='PackInputs')]), known=.1)
    sample = data[0]['data_samples']
    assert 'gt_label' not in sample
    assert (sample.gt_score == -1).sum() > 15


def test_a_run_longer_than_its_schedule_is_refused(small_run):
    with pytest.raises(ValueError, match='ends at epoch 10: set epochs=20'):
        small_run({'train_cfg.max_epochs': 20})


def test_blended_labels_are_refused(small_run):
    runner = small_run({'model.train_cfg': dict(
        augments=dict(type='Mixup', alpha=.8))})
    with pytest.raises(ValueError, match='Mixup'):
        runner.train()


def test_config_says_what_to_load(small_run, tmp_path):
    small_run({'train_cfg.max_epochs': 1}).train()
    path = str(tmp_path / 'run/epoch_1.pth')
    runner = small_run({'load_from': path}, 'next')
    assert runner._load_from == path and not runner._resume


def test_logged_history_does_not_grow_checkpoints(small_run, tmp_path,
                                                  monkeypatch):
    from trm_ml_mm.engine.hooks import plain_checkpoint
    monkeypatch.setattr(plain_checkpoint, 'KEPT_VALUES', 4)
    small_run().train()
    scalars = load(tmp_path / 'run/epoch_2.pth')['message_hub']['log_scalars']
    assert max(len(log) for log, _ in scalars.values()) == 4


def test_learning_rates_keep_their_ratio(small_run):
    runner = small_run({'optim_wrapper.paramwise_cfg': dict(
        custom_keys={'head.region': dict(lr_mult=.05)})})
    runner.train()
    rates = {group['lr'] for group in runner.optim_wrapper.param_groups}
    assert len(rates) == 2
    assert min(rates) == pytest.approx(.05 * max(rates))


def test_the_mask_is_kept_in_the_work_dir(small_run, tmp_path):
    from trm_ml_mm.datasets import load_mask, save_mask
    small_run({'train_cfg.max_epochs': 1}).train()
    path, = (tmp_path / 'run').glob('known_labels_*.npz')
    saved = load_mask(path)
    assert path.stem.endswith(saved.hash) and saved.known == '0.1'
    runner = small_run(resume='auto')
    runner.train()  # the file is there, and fits
    assert (runner.train_dataloader.dataset.mask == saved.mask).all()
    save_mask(path, ~saved.mask, .1)
    with pytest.raises(ValueError, match="another mask than this run's"):
        small_run(resume='auto').train()


def test_a_run_killed_before_its_last_validation_makes_up_for_it(
        small_run, tmp_path):
    """The last checkpoint is written before its validation."""
    def results(name):
        return read_record(tmp_path / name).validation

    small_run(work_dir='straight').train()
    small_run(work_dir='killed',
              resume=str(tmp_path / 'straight/epoch_2.pth')).train()
    assert results('killed') == results('straight')
    assert results('killed')['mAP'] > 0


def train_so_that_the_first_validates_best(runner):
    """Whatever is learned: every validation is worse than the one before."""
    def after_val_epoch(runner, metrics=None):
        metrics['multi-label/mAP'] = 90. - runner.iter / 1000

    runner.hooks[-1].after_val_epoch = after_val_epoch
    runner._hooks.insert(0, runner._hooks.pop())
    runner.train()


def test_last_and_best_epoch_are_both_reported(small_run, tmp_path):
    """The best checkpoint is evaluated, and the last one stands again."""
    runner = small_run({'custom_hooks.4.zero_shot': False, 'lr': 3e-3,
                        **VAL_IS_TEST})

    train_so_that_the_first_validates_best(runner)
    rows = read_record(tmp_path / 'run').rows
    assert [(row.kind, row.unit, row.number, row.picked_on) for row in rows
            ] == [(LAST, 'epoch', 2, None), (BEST, 'epoch', 1, 'test')]
    assert rows[0].metrics['mAP'] != rows[1].metrics['mAP']
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert 'best epoch,\nwhich was picked on them, are optimistic.' in log
    for row in rows:
        file = f'epoch_{row.number}.pth'
        tested = small_run(dict(VAL_IS_TEST), 'test',
                           checkpoint=str(tmp_path / 'run' / file)).test()
        assert tested['multi-label/mAP'] == row.metrics['mAP']
    saved = load(tmp_path / 'run/epoch_2.pth')['state_dict']
    assert_same({k: runner.model.state_dict()[k] for k in saved}, dict(saved))


def test_classes_go_to_a_file_beside_the_log(small_run, tmp_path, monkeypatch):
    small_run({'train_cfg.max_epochs': 1}).train()
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert 'optimistic' not in log  # validation and test are two sets
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    small_run(work_dir='test',
              checkpoint=str(tmp_path / 'run/epoch_1.pth')).test()
    for name in ('run', 'test'):
        file, = (tmp_path / name).rglob('per_class.csv')
        lines = file.read_text().splitlines()
        assert lines[0].startswith('class,AP') and len(lines) == 31
    assert not os.listdir()  # nothing outside the work dir


def test_skipped_images_are_counted_and_listed(tmp_path):
    from mmpretrain.structures import DataSample

    from trm_ml_mm.engine import SkippedImagesHook

    class Runner:
        rank, work_dir = 0, str(tmp_path)

    hook = SkippedImagesHook()
    for paths in (['b.jpg'], ['b.jpg', 'a.jpg'], []):
        sample = DataSample()
        if paths:
            sample.set_field(paths, 'skipped_images', field_type='metainfo')
        hook.after_train_iter(Runner, 0, dict(data_samples=[sample]))
    hook.after_train_epoch(Runner)
    assert (tmp_path / 'skipped_images.txt').read_text() == 'a.jpg\nb.jpg\n'


def test_classes_follow_the_data_set(small_run):
    runner = small_run({
        'scene_set': 1, 'train_cfg.max_epochs': 1,
        'model.head.prototypes.warmup_images': None})
    assert runner.model.backbone.class_names == Scenes(
        num_images=1, scene_set=1).metainfo['classes']
    runner.train()
    assert runner.model.head.prototypes.warmup_images == 48


def test_the_test_set_is_checked_before_the_training(small_run):
    with pytest.raises(ValueError, match='in the test set and .* in the model'):
        small_run({'test_dataloader.dataset.scene_set': 1}).train()
    with pytest.raises(ValueError, match='num_images must be at least 1'):
        small_run({'test_dataloader.dataset.num_images': 0}).train()


def test_resume_on_other_labels_is_refused(small_run, tmp_path):
    """The same mask, over labels that changed."""
    options = {'train_dataloader.dataset.known': 'all'}
    small_run({'train_cfg.max_epochs': 1, **options}).train()
    with pytest.raises(ValueError, match='trained on other labels'):
        small_run({'scene_set': 1, **options}, 'other',
                  resume=str(tmp_path / 'run/epoch_1.pth')).train()


def test_a_cut_mask_file_is_written_anew(small_run, tmp_path):
    from trm_ml_mm.datasets import load_mask
    small_run({'train_cfg.max_epochs': 1}).train()
    path, = (tmp_path / 'run').glob('known_labels_*.npz')
    path.write_bytes(path.read_bytes()[:50])
    small_run(resume='auto').train()
    assert path.stem.endswith(load_mask(path).hash)


def test_iterations_are_reported_as_such(small_run, tmp_path):
    runner = small_run({
        'train_cfg': dict(_delete_=True, by_epoch=False, max_iters=6,
                          val_interval=2),
        'param_scheduler': [], 'custom_hooks.4.zero_shot': False,
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.logger.log_metric_by_epoch': False})

    train_so_that_the_first_validates_best(runner)
    rows = read_record(tmp_path / 'run').rows
    assert [(row.unit, row.number) for row in rows] == [
        ('iteration', 6), ('iteration', 2)]
    assert rows[0].metrics['mAP'] != rows[1].metrics['mAP']
