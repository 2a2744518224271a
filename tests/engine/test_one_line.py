"""Early stopping, balanced classes, pictures and TensorBoard: one line each."""
import math

import cv2
import numpy as np
import pytest
import torch
from tests_support import ROOT, SMALL

from trm_ml_mm.datasets import label_matrix
from trm_ml_mm.engine import build_dataset, build_runner, load_config
from trm_ml_mm.engine.hooks import WatchHook
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.labels import PRESENT, UNKNOWN

SCENES = str(ROOT / 'configs/trm_ml_scenes.py')


def test_a_training_stops_when_nothing_gets_better(small_run, tmp_path):
    runner = small_run({'early_stopping': 2, 'lr': 1e-9,
                        'train_cfg.max_epochs': 6})
    runner.train()
    assert runner.epoch == 3  # the first is the best, two are not better
    row = read_record(tmp_path / 'run').row('last')
    assert (row.unit, row.number) == ('epoch', 3)
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert 'did not improve in the last 2 records' in log


def test_a_training_that_gets_better_goes_on(small_run):
    runner = small_run({'early_stopping': 2})
    runner.train()
    assert runner.epoch == 2


def test_images_of_rare_classes_come_more_often(small_run):
    """As often as the rule says, with the same mask."""
    plain = build_dataset(load_config(SCENES, {
        'train_dataloader.dataset.dataset.num_images': 48}))
    positive = plain.labels == PRESENT
    frequency = positive.mean(0)
    times = [math.ceil(max([1., *(math.sqrt(.2 / f) for f in frequency[row])]))
             for row in positive]
    runner = small_run({'balance_classes': .2, 'train_cfg.max_epochs': 1,
                        'train_dataloader.dataset.known': .1})
    runner.train()
    data = runner.train_dataloader.dataset
    assert type(data).__name__ == 'ClassBalancedDataset'
    assert len(data) == sum(times) > 60
    counts = [0] * 48
    for i in range(len(data)):
        counts[data._get_ori_dataset_idx(i)] += 1
    assert counts == times
    assert runner.iter == math.ceil(sum(times) / 16)
    assert data.dataset.known_labels == plain.known_labels
    # How common labels are follows from the images as they are.
    statistics = runner.model.head.label_statistics
    assert statistics.positives.tolist() == positive.sum(0).tolist()


def test_balanced_classes_from_cached_features(tmp_path):
    from trm_ml_mm.features import CacheFiller, use_cache
    cfg = load_config(SCENES, {
        'balance_classes': .2,
        'train_dataloader.dataset.dataset.num_images': 24})
    CacheFiller(cfg, 'train', tmp_path).fill(workers=0)
    use_cache(cfg, tmp_path, ['train'])
    data = build_dataset(cfg)
    assert len(data) > 24
    for i in range(len(data)):  # rows of an embedding and 6 x 6 locations
        assert data[i]['inputs'].shape == (1 + 6 * 6, 128)


def test_a_dumped_config_is_not_wrapped_twice(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(f'_base_ = [{SCENES!r}]\nbalance_classes = 0.2\n'
                      'early_stopping = 4\n')
    cfg = load_config(str(config))
    cfg.dump(str(tmp_path / 'dumped.py'))
    again = load_config(str(tmp_path / 'dumped.py'), {'balance_classes': .3})
    assert again.train_dataloader.dataset.oversample_thr == .3
    assert again.train_dataloader.dataset.dataset.type.endswith(
        'PartialLabelDataset')
    assert again.default_hooks.early_stopping.patience == 4


def test_curves_go_to_tensorboard(small_run, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )
    runner = small_run({'tensorboard': True, 'watch': 1})
    runner.train()
    folder = next((tmp_path / 'run').rglob('events.out.tfevents*')).parent
    events = EventAccumulator(str(folder)).Reload()
    losses = events.Scalars('loss_cls')
    assert losses and all(math.isfinite(event.value) for event in losses)
    assert [event.step for event in events.Images('watched_0')] == [1, 2]
    found = [event.value for event in events.Scalars('multi-label/mAP')]
    assert len(found) == 2
    last = runner.message_hub.get_scalar('val/multi-label/mAP').current()
    assert found[-1] == pytest.approx(last)


def test_without_tensorboard_it_says_how_to_get_it(monkeypatch):
    from trm_ml_mm.engine import shorthands
    monkeypatch.setattr(shorthands, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match='needs the package tensorboard: pip '
                       'install tensorboard'):
        load_config(SCENES, {'tensorboard': True})
    assert load_config(SCENES, {'tensorboard': False}).visualizer == (
        load_config(SCENES).visualizer)


@pytest.mark.parametrize('options, message', [
    ({'early_stopping': 0}, 'positive number of validations .* got 0'),
    ({'early_stopping': True}, 'positive number of validations'),
    ({'balance_classes': 0}, r'ratio of images in \(0, 1\], got 0'),
    ({'balance_classes': 2}, r'ratio of images in \(0, 1\], got 2'),
    ({'tensorboard': 1}, 'is True or False, got 1'),
])
def test_values_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        load_config(SCENES, options)


@pytest.mark.parametrize('name, value, loader', [
    ('early_stopping', 3, 'val'), ('balance_classes', .1, 'train')])
def test_a_config_without_the_split(name, value, loader):
    cfg = load_config(SCENES)
    cfg[f'{loader}_dataloader'] = None
    with pytest.raises(ValueError, match=f'{name} needs .*no {loader}_data'):
        load_config(cfg, {name: value})


def test_images_are_watched(small_run, tmp_path):
    runner = small_run({'watch': 3}, 'watched')
    runner.train()
    hook, = (h for h in runner.hooks if isinstance(h, WatchHook))
    pictures = sorted(p.name for p in (tmp_path / 'watched/watched').iterdir())
    assert len(pictures) == 6 and pictures[0].endswith('epoch_1.jpg')
    assert cv2.imread(str(tmp_path / 'watched/watched' / pictures[0])
                      ).shape[1] > 400  # the image, and at least one label
    backend = {p.name for p in (tmp_path / 'watched').rglob(
        'vis_data/vis_image/*')}
    assert backend == {f'watched_{i}_{epoch}.png' for i in range(3)
                       for epoch in (1, 2)}
    # Every label that is drawn is known, or a pseudo-label of the last epoch.
    labels = label_matrix(runner.train_dataloader.dataset)
    assert (labels[hook.chosen] == PRESENT).any(1).all()
    assert (hook.pseudo[hook.known != UNKNOWN] == UNKNOWN).all()
    maps = np.random.RandomState(0).rand(30, 6, 6)
    found = hook.labels_of(0, [.5] * 30, maps, (96, 96))
    names = {label['name'] for label in found}
    assert names == {
        hook.classes[c] + ('' if hook.known[0, c] == PRESENT else ' (pseudo)')
        for c in range(30)
        if PRESENT in (hook.known[0, c], hook.pseudo[0, c])}
    same = small_run(work_dir='plain')
    same.train()
    for a, b in zip(runner.model.state_dict().values(),
                    same.model.state_dict().values()):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())  # only looked at


def test_what_cannot_be_watched_is_refused(tmp_path):
    for value in (0, True, 'all'):
        with pytest.raises(ValueError, match='watch is a positive number'):
            load_config(SCENES, {'watch': value})
    with pytest.raises(ValueError, match='looks at the whole image'):
        build_runner(str(ROOT / 'configs/baselines/linear_probe.py'),
                     str(tmp_path / 'probe'), {
                         'watch': 1, 'experiment_name': 'watch a probe',
                         **{key: value for key, value in SMALL.items()
                            if 'prototypes' not in key}}).train()
