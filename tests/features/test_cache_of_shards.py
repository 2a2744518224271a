"""A feature cache belongs to images, in files or in shards."""
import numpy as np
import pytest
import trees
from tests_support import ROOT

from trm_ml_mm.cli.make_shards import listed_images
from trm_ml_mm.datasets.shards import write_shards
from trm_ml_mm.engine import build_dataset, load_config
from trm_ml_mm.features import CacheFiller, FeatureCache, use_cache, use_images
from trm_ml_mm.models.towers import save_random_weights


@pytest.fixture
def photos(tmp_path, tiny_clip):
    """A function that returns the config of three photos, and of a tower."""
    trees.csv(tmp_path / 'data')
    weights = str(tmp_path / 'tiny.pth')
    save_random_weights(tiny_clip, weights)
    return lambda **options: load_config(str(ROOT / 'configs/trm_ml_csv.py'), {
        'data_root': f'{tmp_path}/data/', 'arch': tiny_clip, 'image_size': 64,
        'model.backbone.weights': weights, **options})


def features(folder):
    cache = FeatureCache(folder)
    return {name: np.array(cache.features[e.part][e.row])
            for name, e in cache.entries.items()}


def filled(cfg, out):
    filler = CacheFiller(cfg, 'train', out)
    changed = filler.open()
    filler.fill(workers=0)
    return changed


@pytest.mark.parametrize('first', ['files', 'shards'])
def test_files_and_shards_share_a_cache(tmp_path, photos, first):
    write_shards(listed_images(photos()), tmp_path / 'shards')
    configs = dict(files=photos(), shards=photos(
        shards=str(tmp_path / 'shards')))
    second, = configs.keys() - {first}
    out = tmp_path / 'cache'
    assert filled(configs[first], out) == (3, 0)
    before = features(out / 'train')
    use_cache(configs[second].copy(), out, ['train'])
    assert filled(configs[second], out) == (0, 0)
    after = features(out / 'train')
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


def test_a_training_on_features_needs_no_image_files(tmp_path, photos):
    write_shards(listed_images(photos()), tmp_path / 'shards')
    for path in (tmp_path / 'data/images').iterdir():
        path.unlink()
    cfg = photos(shards=str(tmp_path / 'shards'))
    whole = cfg.train_dataloader.to_dict()
    filled(cfg, tmp_path / 'cache')
    use_cache(cfg, tmp_path / 'cache', ['train'])
    data, stored = build_dataset(cfg), features(tmp_path / 'cache/train')
    for i, name in enumerate(['a', 'b', 'c']):
        assert (data[i]['inputs'].numpy()
                == stored[f'images/{name}.jpg'][0]).all()
    # And back to the images in shards, as for pictures. (They are those of a
    # test: features had no augmentation.)
    use_images(cfg)
    backend = whole['dataset']['dataset']['pipeline'][0]['backend_args']
    load = cfg.train_dataloader.dataset.dataset.pipeline[0]
    assert load['backend_args'] == backend
    assert build_dataset(cfg)[0]['inputs'].shape == (3, 64, 64)


def test_a_replaced_image_in_shards_is_computed_again(tmp_path, photos):
    images = listed_images(photos())
    write_shards(images, tmp_path / 'shards')
    filled(photos(shards=str(tmp_path / 'shards')), tmp_path / 'cache')
    path = tmp_path / 'data/images/b.jpg'
    content = bytearray(path.read_bytes())
    content[-40] ^= 8  # the same size
    path.write_bytes(content)
    write_shards(images, tmp_path / 'others')
    cfg = photos(shards=str(tmp_path / 'others'))
    with pytest.raises(ValueError, match='lack 1 of 3 images'):
        use_cache(cfg.copy(), tmp_path / 'cache', ['train'])
    assert filled(cfg, tmp_path / 'cache') == (1, 0)
