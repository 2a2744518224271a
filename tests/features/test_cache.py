"""Features of the frozen tower: computed once, refused where they do not
fit, the same losses as without."""
import json
import shutil

import numpy as np
import pytest
import torch
import trees
from tests_support import ROOT, ranks

from trm_ml_mm.engine import build_dataset, load_config
from trm_ml_mm.features import (
    CacheFiller,
    FeatureCache,
    LoadCachedFeatures,
    splits_to_cache,
    use_cache,
)
from trm_ml_mm.features.storage import DONE, UNREADABLE

PLAIN = [dict(type='trm_ml_mm.RenderScene'), dict(type='PackInputs')]
SIZES = {'train_dataloader.dataset.dataset.num_images': 48,
         'val_dataloader.dataset.num_images': 24,
         'test_dataloader.dataset.num_images': 24}


def scenes(**options):
    return load_config(str(ROOT / 'configs/trm_ml_scenes.py'),
                       {**SIZES, **options})


def fill(cfg, out, **options):
    for split in splits_to_cache(cfg):
        CacheFiller(cfg, split, out, **options).fill(batch_size=16, workers=0)


@pytest.mark.parametrize('dtype,tolerance', [('float16', 1e-3),
                                             ('float32', 1e-6)])
def test_losses_are_those_without_a_cache(small_run, tmp_path, dtype,
                                          tolerance):
    fill(scenes(), tmp_path / 'cache', dtype=dtype)
    histories = []
    for name, option in (
            ('with', {'feature_cache': str(tmp_path / 'cache')}),
            ('without', {'train_dataloader.dataset.dataset.pipeline': PLAIN})):
        runner = small_run({**SIZES, **option}, name)
        runner.train()
        scalars = runner.message_hub.log_scalars
        histories.append({
            key: buffer.data[0] for key, buffer in scalars.items()
            if 'loss' in key or 'mAP' in key})
    assert {'train/loss_cls', 'train/loss_pseudo', 'val/multi-label/mAP'
            } <= set(histories[0])
    for key, values in histories[1].items():
        scale = 100 if 'mAP' in key else 1
        assert np.allclose(histories[0][key], values, rtol=tolerance,
                           atol=scale * tolerance), key


def test_an_interrupted_filling_goes_on(tmp_path):
    cfg = scenes()
    fill(cfg, tmp_path / 'straight', views=2)

    class Killed(Exception):
        pass

    def kill(done, total):
        assert total == 96
        raise Killed

    filler = CacheFiller(cfg, 'train', tmp_path / 'killed', views=2)
    with pytest.raises(Killed):
        filler.fill(32, 0, kill)
    cache = FeatureCache(tmp_path / 'killed/train')
    assert (np.asarray(cache.state) == 1).sum() == 32
    with pytest.raises(ValueError, match='lacks 64 of 96 views'):
        cache.check_complete()
    counts = []
    CacheFiller(cfg, 'train', tmp_path / 'killed', views=2).fill(
        32, 2, lambda done, total: counts.append((done, total)))
    assert counts[-1] == (64, 64)
    a, b = (FeatureCache(tmp_path / name / 'train').features
            for name in ('straight', 'killed'))
    # Batches differ, and with them the last bits of a sum.
    assert np.allclose(a, b, atol=1e-2)
    assert not np.array_equal(a[:, 0], a[:, 1])  # two views of an image


def test_two_ranks_share_the_work(tmp_path):
    cfg = scenes()
    fill(cfg, tmp_path / 'one')
    ranks('tools/cache_features.py', 2, 'configs/trm_ml_scenes.py', '--out',
          tmp_path / 'two', '--launcher', 'pytorch', '--workers', 0,
          '--cfg-options', *(f'{k}={v}' for k, v in SIZES.items()))
    for part in ('train', 'val', 'test'):
        one, two = (FeatureCache(tmp_path / n / part) for n in ('one', 'two'))
        two.check_complete()
        assert one.meta == two.meta
        assert np.allclose(one.features, two.features, atol=1e-2)


def test_another_setting_is_refused(tmp_path):
    fill(scenes(), tmp_path)
    use_cache(scenes(), tmp_path)  # fits
    weights = tmp_path / 'other.pth'
    from trm_ml_mm.models.towers.mini import MINI_CLIPS
    packed = torch.load(MINI_CLIPS['mini'], weights_only=True)
    packed['visual.conv1.weight'] += .01
    torch.save(packed, weights)
    for change, message in [
        ({'model.backbone.weights': str(weights)}, 'another frozen tower'),
        ({'train_dataloader.dataset.dataset.num_images': 49}, 'other images'),
        ({'scene_set': 1}, 'other images'),
        ({'val_dataloader.dataset.pipeline': [PLAIN[0], dict(
            type='RandomFlip', prob=1., direction='horizontal'), PLAIN[1]]},
         'another pipeline'),
        ({'model.data_preprocessor': dict(mean=[0.] * 3)},
         'another normalisation'),
        ({'model.backbone.frozen': False}, 'a frozen CLIPPromptBackbone only'),
    ]:
        with pytest.raises(ValueError, match=message):
            use_cache(scenes(**change), tmp_path)
    old = tmp_path / 'val/meta.json'
    meta = json.loads(old.read_text())
    old.write_text(json.dumps({k: v for k, v in meta.items()
                               if k != 'normalisation'}))
    with pytest.raises(ValueError, match='another version of trm_ml_mm'):
        use_cache(scenes(), tmp_path)
    old.write_text(json.dumps(meta))
    CacheFiller(scenes(), 'train', tmp_path / 'two', views=2).open()
    with pytest.raises(ValueError, match='another number of views'):
        CacheFiller(scenes(), 'train', tmp_path / 'two', views=3).open()
    with pytest.raises(ValueError, match='another precision'):
        CacheFiller(scenes(), 'val', tmp_path, dtype='float32').open()
    shutil.rmtree(tmp_path / 'val')
    with pytest.raises(FileNotFoundError, match='val/meta.json does not exist'):
        use_cache(scenes(), tmp_path)


def test_augmented_views_fit_the_training_pipeline(tmp_path):
    fill(scenes(), tmp_path, views=2)
    cfg = scenes()
    use_cache(cfg, tmp_path)
    data = build_dataset(cfg, 'train')
    rows = FeatureCache(tmp_path / 'train').features
    # An image of which one view is flipped, the other is not.
    i = next(i for i in range(48) if not np.allclose(*rows[i], atol=1e-3))
    drawn = [data[i]['inputs'].numpy() for _ in range(20)]
    equal = [[np.array_equal(x, rows[i, v]) for v in range(2)] for x in drawn]
    assert [True, False] in equal and [False, True] in equal
    assert [False, False] not in equal
    assert (data[i]['data_samples'].gt_score == torch.tensor(
        data.labels[i])).all()


def test_a_full_disk_is_seen_before_the_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match='need 0.0 GB and .* free: take another'):
        CacheFiller(scenes(), 'train', tmp_path).open()
    assert not (tmp_path / 'train/meta.json').exists()


def own(root, clip, **options):
    return load_config(str(ROOT / 'configs/trm_ml_csv.py'), {
        'data_root': f'{root}/', 'arch': clip,
        'model.backbone.weights': None, **options})


def test_photos_that_change_or_break(tmp_path, tiny_clip):
    trees.csv(tmp_path)
    torch.manual_seed(0)
    weights = tmp_path / 'tiny.pth'
    from trm_ml_mm.models.towers import save_random_weights
    save_random_weights(tiny_clip, str(weights))
    skip = {'train_dataloader.dataset.dataset.on_error': 'skip',
            'model.backbone.weights': str(weights)}
    whole = (tmp_path / 'images/b.jpg').read_bytes()
    (tmp_path / 'images/b.jpg').write_bytes(b'no picture')
    (tmp_path / 'val.csv').write_text('image,dog,hot dog,red car\na.jpg,1,,\n')
    cfg = own(tmp_path, tiny_clip, **skip)
    fill(cfg, tmp_path / 'cache')
    use_cache(cfg, tmp_path / 'cache')
    sample = build_dataset(cfg)[1]  # b: the next one takes its place
    assert sample['data_samples'].img_path.endswith('c.jpg')
    assert sample['data_samples'].skipped_images[0].endswith('b.jpg')
    # The first one may break as well.
    first = (tmp_path / 'images/a.jpg').read_bytes()
    (tmp_path / 'images/a.jpg').write_bytes(b'no picture')
    CacheFiller(own(tmp_path, tiny_clip, **skip), 'train',
                tmp_path / 'other').fill(workers=0)
    state = FeatureCache(tmp_path / 'other/train').state
    assert np.asarray(state)[:, 0].tolist() == [UNREADABLE, UNREADABLE, DONE]
    (tmp_path / 'images/a.jpg').write_bytes(first)
    load = LoadCachedFeatures(str(tmp_path / 'cache/train'))
    with pytest.raises(ValueError, match='b.jpg could not be decoded when'):
        load(dict(sample_idx=1, img_path='b.jpg'))
    (tmp_path / 'images/b.jpg').write_bytes(whole)
    with pytest.raises(ValueError, match='a file\'s size'):
        use_cache(own(tmp_path, tiny_clip, **skip), tmp_path / 'cache')
