"""Features of the frozen tower: computed once, refused where they do not
fit, the same losses as without."""
import json
import os
import pickle
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


def rows(folder):
    """Features and states of a cache, (N, K, 1 + L, D) and (N, K), in the
    order of the names."""
    cache = FeatureCache(folder)
    entries = [cache.entries[name] for name in sorted(cache.entries)]
    return (np.stack([cache.features[e.part][e.row] for e in entries]),
            np.stack([cache.state[e.part][e.row] for e in entries]))



def alike(a, b):
    """Batches differ, and with them the last bits of a sum: one step of
    float16."""
    return np.allclose(a, b, rtol=2**-10, atol=1e-2)


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
    assert (rows(tmp_path / 'killed/train')[1] == DONE).sum() == 32
    with pytest.raises(ValueError, match='lacks 64 of 96 views'):
        FeatureCache(tmp_path / 'killed/train').check_complete(filler.files)
    counts = []
    CacheFiller(cfg, 'train', tmp_path / 'killed', views=2).fill(
        32, 2, lambda done, total: counts.append((done, total)))
    assert counts[-1] == (64, 64)
    a, b = (rows(tmp_path / name / 'train')[0]
            for name in ('straight', 'killed'))
    assert alike(a, b)
    assert not np.array_equal(a[:, 0], a[:, 1])  # two views of an image


def test_two_ranks_share_the_work(tmp_path):
    cfg = scenes()
    fill(cfg, tmp_path / 'one')
    ranks('tools/cache_features.py', 2, 'configs/trm_ml_scenes.py', '--out',
          tmp_path / 'two', '--launcher', 'pytorch', '--workers', 0,
          '--cfg-options', *(f'{k}={v}' for k, v in SIZES.items()))
    for part in ('train', 'val', 'test'):
        one, two = (tmp_path / n / part for n in ('one', 'two'))
        assert FeatureCache(one).meta == FeatureCache(two).meta
        assert FeatureCache(one).entries == FeatureCache(two).entries
        assert (rows(two)[1] == DONE).all()
        assert alike(rows(one)[0], rows(two)[0])


def test_another_setting_is_refused(tmp_path):
    fill(scenes(), tmp_path)
    use_cache(scenes(), tmp_path)  # fits
    cfg = scenes()
    cfg.val_dataloader = None  # a training without validation
    use_cache(cfg, tmp_path)
    weights = tmp_path / 'other.pth'
    from trm_ml_mm.models.towers.mini import MINI_CLIPS
    packed = torch.load(MINI_CLIPS['mini'], weights_only=True)
    packed['visual.conv1.weight'] += .01
    torch.save(packed, weights)
    for change, message in [
        ({'model.backbone.weights': str(weights)}, 'another frozen tower'),
        ({'train_dataloader.dataset.dataset.num_images': 49},
         'lack 1 of 49 images, which are new or changed, such as '),
        ({'scene_set': 1}, 'lack 48 of 48 images'),
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
    cache = FeatureCache(tmp_path / 'train')
    entries = [cache.entries[data.get_data_info(i)['img_path']]
               for i in range(48)]
    own = [cache.features[entry.part][entry.row] for entry in entries]
    # An image of which one view is flipped, the other is not.
    i = next(i for i in range(48) if not np.allclose(*own[i], atol=1e-3))
    drawn = [data[i]['inputs'].numpy() for _ in range(20)]
    equal = [[np.array_equal(x, own[i][v]) for v in range(2)] for x in drawn]
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
    assert not list((tmp_path / 'train').glob('part_*'))


def own(root, clip, **options):
    return load_config(str(ROOT / 'configs/trm_ml_csv.py'), {
        'data_root': f'{root}/', 'arch': clip,
        'model.backbone.weights': None, **options})


@pytest.fixture
def photos(tmp_path, tiny_clip):
    """A function that returns the config of three photos, and of a tower."""
    from trm_ml_mm.models.towers import save_random_weights
    trees.csv(tmp_path)
    (tmp_path / 'val.csv').write_text('image,dog,hot dog,red car\na.jpg,1,,\n')
    weights = tmp_path / 'tiny.pth'
    save_random_weights(tiny_clip, str(weights))
    return lambda **options: own(tmp_path, tiny_clip, **{
        'model.backbone.weights': str(weights), 'image_size': 64, **options})


def filled(cfg, out, **options):
    """Fill the cache of the training set: what changed, and how many views
    went through the tower."""
    filler = CacheFiller(cfg, 'train', out, **options)
    encode, computed = filler.encode, []

    def counted(inputs):
        computed.extend(inputs)
        return encode(inputs)

    filler.encode = counted
    changed = filler.open()
    filler.fill(batch_size=1, workers=0)
    return changed, len(computed)


def features_by_name(folder):
    cache = FeatureCache(folder)
    return {name: np.array(cache.features[e.part][e.row])
            for name, e in cache.entries.items()}


def test_photos_that_break_are_skipped(tmp_path, photos):
    skip = {'train_dataloader.dataset.dataset.on_error': 'skip'}
    (tmp_path / 'images/b.jpg').write_bytes(b'no picture')
    cfg = photos(**skip)
    fill(cfg, tmp_path / 'cache')
    use_cache(cfg, tmp_path / 'cache')
    sample = build_dataset(cfg)[1]  # b: the next one takes its place
    assert sample['data_samples'].img_path.endswith('c.jpg')
    assert sample['data_samples'].skipped_images[0].endswith('b.jpg')
    load = LoadCachedFeatures(str(tmp_path / 'cache/train'), str(tmp_path))
    with pytest.raises(ValueError, match='b.jpg could not be decoded when'):
        load(dict(img_path=str(tmp_path / 'images/b.jpg')))
    with pytest.raises(ValueError, match='has no features of images/x.jpg'):
        load(dict(img_path=str(tmp_path / 'images/x.jpg')))
    # The first one may break as well.
    (tmp_path / 'images/a.jpg').write_bytes(b'no picture either')
    CacheFiller(photos(**skip), 'train', tmp_path / 'other').fill(workers=0)
    states = rows(tmp_path / 'other/train')[1]
    assert states[:, 0].tolist() == [UNREADABLE, UNREADABLE, DONE]


def test_added_photos_are_added_and_nothing_else_is_computed(tmp_path, photos):
    out = tmp_path / 'cache'
    assert filled(photos(), out) == ((3, 0), 3)
    before = features_by_name(out / 'train')
    assert filled(photos(), out) == ((0, 0), 0)
    for name in 'de':
        trees.image(tmp_path / f'images/more {name}.jpg')
    table = tmp_path / 'train.csv'
    lines = table.read_text().splitlines()
    # In front: no image keeps its number.
    table.write_text('\n'.join([lines[0], 'more d.jpg,1,0,', 'more e.jpg,,,1',
                                *lines[1:]]) + '\n')
    with pytest.raises(ValueError, match='lack 2 of 5 images, which are new '
                       'or changed, such as images/more d.jpg'):
        use_cache(photos(), out, ['train'])
    assert filled(photos(), out) == ((2, 0), 2)
    after = features_by_name(out / 'train')
    assert len(after) == 5
    for name, value in before.items():
        assert np.array_equal(after[name], value)
    # Each sample of a training gets the features of its own image.
    cfg = photos()
    use_cache(cfg, out, ['train'])
    data = build_dataset(cfg)
    assert len(data) == 5
    for i in range(5):
        sample = data[i]
        name = sample['data_samples'].img_path.removeprefix(f'{tmp_path}/')
        assert np.array_equal(sample['inputs'].numpy(), after[name][0])


def test_photos_that_are_gone_are_dropped(tmp_path, photos):
    out = tmp_path / 'cache'
    filled(photos(), out)
    before = features_by_name(out / 'train')
    table = tmp_path / 'train.csv'
    lines = table.read_text().splitlines()
    table.write_text('\n'.join(lines[:2] + lines[3:]) + '\n')
    # Another table: the photo is still there, and so are its features.
    assert filled(photos(), out) == ((0, 0), 0)
    assert features_by_name(out / 'train').keys() == before.keys()
    use_cache(photos(), out, ['train'])
    (tmp_path / 'images/b.jpg').unlink()
    assert filled(photos(), out) == ((0, 1), 0)
    after = features_by_name(out / 'train')
    assert after.keys() == before.keys() - {'images/b.jpg'}
    assert all(np.array_equal(after[n], before[n]) for n in after)
    use_cache(photos(), out, ['train'])


def test_a_replaced_photo_is_computed_again(tmp_path, photos):
    """Also if the other one has the same name and size."""
    out, path = tmp_path / 'cache', tmp_path / 'images/b.jpg'
    filled(photos(), out)
    before = features_by_name(out / 'train')
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-40] ^= 8  # the last rows of the picture
    path.write_bytes(content)
    assert path.stat().st_size == status.st_size
    with pytest.raises(ValueError, match='lack 1 of 3 images'):
        use_cache(photos(), out, ['train'])
    assert filled(photos(), out) == ((1, 0), 1)
    after = features_by_name(out / 'train')
    changed = [n for n in before if not np.array_equal(before[n], after[n])]
    assert changed == ['images/b.jpg']
    # All photos replaced: nothing of the first part is used any more.
    assert (out / 'train/part_0').is_dir()
    for name in 'abc':
        trees.image(tmp_path / f'images/other {name}.jpg')
        (tmp_path / f'images/other {name}.jpg').replace(
            tmp_path / f'images/{name}.jpg')
    assert filled(photos(), out)[0].added == 3
    assert [p.name for p in (out / 'train').glob('part_*')] == ['part_2']


def test_copied_moved_and_touched_photos_are_known(tmp_path, photos):
    out = tmp_path / 'cache'
    filled(photos(), out)
    before = features_by_name(out / 'train')
    # As a copy of the whole folder has it: other times, the same content.
    for name in 'abc':
        os.utime(tmp_path / f'images/{name}.jpg', (1, 1))
    use_cache(photos(), out, ['train'])
    assert filled(photos(), out) == ((0, 0), 0)
    # Renamed, and in another folder.
    (tmp_path / 'images').rename(tmp_path / 'photos')
    options = {'image_folder': str(tmp_path / 'photos')}
    with pytest.raises(ValueError, match='lack 3 of 3 images'):
        use_cache(photos(**options), out, ['train'])
    assert filled(photos(**options), out) == ((0, 3), 0)
    after = features_by_name(out / 'train')
    assert {n.replace('photos', 'images'): v.tolist()
            for n, v in after.items()} == {n: v.tolist()
                                           for n, v in before.items()}
    use_cache(photos(**options), out, ['train'])


def test_views_belong_to_the_image_and_not_to_its_number(tmp_path, photos):
    """An image that is added later gets the views it would have had."""
    straight, later = tmp_path / 'straight', tmp_path / 'later'
    filled(photos(), straight, views=2)
    table = tmp_path / 'train.csv'
    whole = table.read_text()
    lines = whole.splitlines()
    table.write_text('\n'.join([lines[0], lines[3]]) + '\n')
    filled(photos(), later, views=2)
    table.write_text(whole)
    filled(photos(), later, views=2)
    one, two = (features_by_name(p / 'train') for p in (straight, later))
    assert one.keys() == two.keys()
    for name in one:
        assert alike(one[name], two[name])


def test_an_update_that_is_cut_off_leaves_the_cache_as_it_was(
        tmp_path, photos, monkeypatch):
    from trm_ml_mm.features import storage
    out = tmp_path / 'cache'
    filled(photos(), out)
    before = features_by_name(out / 'train')
    trees.image(tmp_path / 'images/more.jpg')
    with open(tmp_path / 'train.csv', 'a') as file:
        file.write('more.jpg,1,0,\n')
    write = storage.write_text

    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, 'write_text', killed)
    with pytest.raises(KeyboardInterrupt):
        filled(photos(), out)
    assert (out / 'train/part_1').is_dir()
    now = features_by_name(out / 'train')
    assert now.keys() == before.keys()
    monkeypatch.setattr(storage, 'write_text', write)
    assert filled(photos(), out) == ((1, 0), 1)
    assert sorted(p.name for p in (out / 'train').glob('part_*')) == [
        'part_0', 'part_2']


def test_a_cache_of_an_earlier_version_is_refused(tmp_path):
    fill(scenes(), tmp_path)
    path = tmp_path / 'val/meta.json'
    meta = json.loads(path.read_text())
    for change in (dict(files='0123456789abcdef'), dict(format=3)):
        path.write_text(json.dumps({**meta, **change}))
        with pytest.raises(ValueError, match='is a feature cache of another '
                           'version of trm_ml_mm.*: delete it and make it '
                           'again'):
            use_cache(scenes(), tmp_path)


@pytest.mark.parametrize('entry', [
    [0, 99, -1, 0, 'x'], [-1, 0, -1, 0, 'x'], [0, True, -1, 0, 'x'], [0, 0],
    [0, 0, -1, 0, 5], ['../..', 0, -1, 0, 'x'], 7])
def test_a_damaged_index_is_refused(tmp_path, entry):
    CacheFiller(scenes(), 'val', tmp_path).open()
    path = tmp_path / 'val/images.json'
    index = json.loads(path.read_text())
    index[next(iter(index))] = entry
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match='val is damaged .*delete it'):
        FeatureCache(tmp_path / 'val')


def test_folds_share_the_features_of_the_whole_set(tmp_path):
    """A KFoldDataset numbers its images anew."""
    fill(scenes(), tmp_path)
    cfg = scenes()
    cfg.train_dataloader.dataset = dict(
        type='KFoldDataset', num_splits=4, fold=1, test_mode=True, seed=3,
        dataset=cfg.train_dataloader.dataset.dataset)
    use_cache(cfg, tmp_path)
    fold = build_dataset(cfg)
    assert len(fold) == 12
    known = features_by_name(tmp_path / 'train')
    for i in range(12):
        sample = fold[i]
        assert np.array_equal(sample['inputs'].numpy(),
                              known[sample['data_samples'].img_path][0])


def test_the_loader_travels_to_workers_without_the_features(tmp_path):
    fill(scenes(), tmp_path)
    load = LoadCachedFeatures(str(tmp_path / 'train'))
    again = pickle.loads(pickle.dumps(load))
    assert again.cache is None and len(pickle.dumps(load)) < 1000
    name = next(iter(load.cache.entries))
    assert torch.equal(*(one(dict(img_path=name))['features']
                         for one in (load, again)))
