"""Every image is judged by a model that has not seen it."""
import numpy as np
import pytest
import torch
from tests_support import ROOT, SMALL

from trm_ml_mm.apis import cross_fit, load_model
from trm_ml_mm.apis.cross_fit import (
    checkpoint_logits,
    fill_views,
    fit,
    in_folds,
    view_logits,
)
from trm_ml_mm.datasets import find_masks
from trm_ml_mm.engine import load_config
from trm_ml_mm.engine.tta import view_pipelines, views_of
from trm_ml_mm.labels import save_mask
from trm_ml_mm.registry import DATASETS

QUICK = {**SMALL, 'epochs': 1, 'train_dataloader.dataset.known': .5}
del QUICK['train_cfg.max_epochs'], QUICK['test_dataloader.num_workers']


def scenes(**options):
    return load_config(str(ROOT / 'configs/trm_ml_scenes.py'),
                       {**QUICK, **options})


@pytest.fixture(scope='module')
def features(tmp_path_factory):
    return tmp_path_factory.mktemp('features')


@pytest.fixture(scope='module')
def judged(features):
    told = []
    found = cross_fit(scenes(), features, folds=2, progress=lambda *step:
                      told.append(step))
    return found, told


def test_every_image_is_judged(judged):
    found, told = judged
    assert found.train.shape == (48, 30) and found.validation.shape == (24, 30)
    assert np.isfinite(found.train).all()
    assert np.isfinite(found.validation).all()
    assert told[-1] == ('Training without a fold', 2, 2)


def test_labels_of_an_image_do_not_change_how_it_is_judged(judged, features,
                                                           tmp_path):
    """Another mask: labels of half of the images are all known. The judge of
    these images has never seen them, so it stays the same."""
    dataset = scenes().train_dataloader.dataset
    dataset.dataset.pipeline = []
    mask = DATASETS.build(dataset).mask
    seen, = find_masks(DATASETS.build(in_folds(
        dataset, fold=0, num_splits=2, seed=0)))
    rows = [seen.wrapped_index(i) for i in range(len(seen))]
    unseen = np.setdiff1d(np.arange(48), rows)
    assert len(rows) == len(unseen) == 24
    mask[unseen] = True
    save_mask(tmp_path / 'more.npz', mask, .5)
    found = cross_fit(scenes(**{
        'train_dataloader.dataset.known': str(tmp_path / 'more.npz')}),
        features, folds=2)
    assert np.array_equal(found.train[unseen], judged[0].train[unseen])
    assert not np.array_equal(found.train[rows], judged[0].train[rows])


def test_validation_images_are_dealt_out_to_all_judges(judged, features):
    cfg = scenes()
    caches = fill_views(cfg, features)
    cfg.train_dataloader.dataset = in_folds(
        cfg.train_dataloader.dataset, fold=1, num_splits=2, seed=0)
    model, rows = fit(cfg, features, seed=1)
    odd = np.arange(1, 24, 2)
    assert np.array_equal(view_logits(model, caches['val'], odd),
                          judged[0].validation[odd].astype(np.float32))
    unseen = np.setdiff1d(np.arange(48), rows)
    assert np.array_equal(view_logits(model, caches['train'], unseen),
                          judged[0].train[unseen].astype(np.float32))


def test_more_folds_than_images_is_an_error(features):
    with pytest.raises(ValueError, match='48 images cannot be dealt out to '
                       '49 folds'):
        cross_fit(scenes(), features, folds=49)


def test_views_are_averaged(features, tmp_path):
    """One model, from cached features and from images."""
    cfg = scenes()
    caches = fill_views(cfg, tmp_path, scales=[1., 1.25])
    assert [len(views) for views in caches.values()] == [4, 4]
    model, _ = fit(cfg, tmp_path)
    rows = np.arange(24)
    cached = view_logits(model, caches['val'], rows)
    assert not np.allclose(cached, view_logits(model, caches['val'][:1], rows),
                           atol=.01)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'm.pth')
    loaded = load_model(tmp_path / 'm.pth', scenes())
    seen = checkpoint_logits(loaded.model, scenes(), scales=[1., 1.25])
    assert np.allclose(seen.validation, cached, atol=.02)
    assert seen.train.shape == (48, 30)


def test_view_pipelines_are_those_of_a_test():
    pipeline = [dict(type='LoadImageFromFile'),
                dict(type='Resize', scale=(64, 64)),
                dict(type='Other'), dict(type='PackInputs')]
    views = view_pipelines(pipeline, [1., 1.5])
    sizes = [step['scale'] for view in views for step in view
             if step['type'] == 'Resize']
    assert sizes == [(64, 64), (64, 64), (96, 96), (96, 96)]
    flips = [sum(step['type'] == 'RandomFlip' for step in view)
             for view in views]
    assert flips == [0, 1, 0, 1]
    assert all(view[-1] == pipeline[-1] and view[2] == pipeline[2]
               for view in views)
    together = views_of(pipeline, [1., 1.5])[-1]['transforms']
    assert len(together[0]) * len(together[2]) == len(views)
