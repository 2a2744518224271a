"""Every config builds its data on a made tree and its model on a tiny tower,
and both fit."""
from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmpretrain.registry import MODELS
from tests_support import ROOT
from trees import MAKERS

from trm_ml_mm.engine import build_dataset, fill_classes, load_config
from trm_ml_mm.experiments.suites import TRAINED
from trm_ml_mm.models import ZeroShotHead
from trm_ml_mm.models.towers.mini import MINI_CLIPS

CONFIGS = sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in p.parts)


def make_tree(cfg, root):
    """The folder of the config's data set, with a few images."""
    inner = cfg.train_dataloader.dataset
    while 'dataset' in inner:
        inner = inner.dataset
    kind = inner.type.split('.')[-1]
    if kind == 'Scenes':
        return {f'{place}.num_images': 3 for place in (
            'train_dataloader.dataset.dataset', 'val_dataloader.dataset',
            'test_dataloader.dataset')}
    year = [2017] if '2017' in str(inner.get('ann_file')) else []
    MAKERS[kind](root, *year)
    return {'data_root': f'{root}/'}


def tiny_model(cfg, clip):
    """Small towers of random weights."""
    if cfg.model.backbone.get('arch') == 'mini':
        return {}
    if cfg.model.backbone.type.startswith('trm_ml_mm'):
        return {'arch': clip, 'model.backbone.weights': None}
    small = {'model.backbone.init_cfg': None, 'model.head.text.arch': clip,
             'model.head.text.weights': None}
    if cfg.model.backbone.type == 'ResNet':
        return {**small, 'model.backbone.depth': 18,
                'model.head.in_channels': 512}
    return {**small, 'model.backbone.arch': 'deit-tiny',
            'model.head.in_channels': 192}


def test_every_data_set_has_both_protocols():
    single = [(ROOT / c).read_text() for c in CONFIGS if c.endswith('_sp.py')]
    for name in ('scenes', 'coco', 'coco2017', 'voc2007', 'voc2012', 'vg200',
                 'nuswide', 'cub', 'csv'):
        assert sum(f"'../trm_ml_{name}.py'" in text for text in single) == 1
        assert f'configs/trm_ml_{name}.py' in CONFIGS


def test_sets_whose_labels_are_missing_hide_no_more():
    for name in ('lvis', 'vaw', 'chexpert'):
        assert f'configs/trm_ml/trm-ml_rn101_1xb32_{name}-448px.py' in CONFIGS
        cfg = load_config(str(ROOT / f'configs/trm_ml_{name}.py'))
        assert cfg.train_dataloader.dataset.known == 'all'
        assert cfg.model.backbone.classes == 'dataset'


def leaves(value, where=()):
    if isinstance(value, dict):
        return {k: v for key, inner in value.items()
                for k, v in leaves(inner, (*where, key)).items()}
    return {where: value}


@pytest.mark.parametrize('path', [
    c for c in CONFIGS if 'ablations/base_' in c])
def test_a_component_added_to_the_base_is_the_methods_own(path):
    """What differs from the base is as in the method, or as it is added to the
    method, except for the choice of prototypes."""
    method = {'base_contrast': 'ablations/contrast',
              'base_mean': 'ablations/mean_level'}.get(
                  Path(path).stem, 'trm_ml_scenes')
    added, base, whole = (
        leaves(load_config(str(ROOT / c)).model.to_dict()) for c in (
            path, 'configs/ablations/base.py', f'configs/{method}.py'))
    changed = {k for k in {*added, *base} if added.get(k) != base.get(k)}
    assert changed
    for key in changed:
        if key in added and key[-1] not in ('modalities', 'scale'):
            assert added[key] == whole[key], key


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds_and_gives_a_loss(path, tmp_path, tiny_clip):
    plain = load_config(str(ROOT / path))
    cfg = load_config(str(ROOT / path), {
        **make_tree(plain, tmp_path), **tiny_model(plain, tiny_clip)})
    fill_classes(cfg)
    model = MODELS.build(dict(
        cfg.model, data_preprocessor=cfg.get('data_preprocessor')))
    for split in ('train', 'val', 'test'):
        dataset = build_dataset(cfg, split)
        batch = pseudo_collate([dataset[i % len(dataset)] for i in range(2)])
        data = model.data_preprocessor(batch)
        count = len(dataset.metainfo['classes'])
        assert data['data_samples'][0].gt_score.shape == (count, )
        if split == 'train':
            if path.endswith('_sp.py'):
                assert ((dataset.labels == 1).sum(1) <= 1).all()
                assert not (dataset.labels == 0).any()
            if getattr(model.head, 'prototypes', None) is not None:
                model.head.prototypes.prepare(len(dataset))
            if isinstance(model.head, ZeroShotHead):
                continue  # nothing to train
            losses = model(**data, mode='loss')
            loss, _ = model.parse_losses(losses)
            assert torch.isfinite(loss)
            loss.backward()
    model.eval()
    with torch.no_grad():
        out = model(**data, mode='predict')
    assert out[0].pred_score.shape == (count, )


@pytest.mark.parametrize('arch', MINI_CLIPS)
@pytest.mark.parametrize('name', ['trm_ml_scenes', *(
    f'baselines/{name}' for name in TRAINED)])
def test_no_setting_belongs_to_one_tower(monkeypatch, name, arch):
    """The scales of the built-in towers are those of a real CLIP."""
    monkeypatch.setenv('TRM_ML_BASE', 'trm_ml_coco')
    real = load_config(str(ROOT / f'configs/{name}.py' if '/' in name else
                           ROOT / 'configs/trm_ml_coco.py'))
    monkeypatch.delenv('TRM_ML_BASE')
    small = load_config(str(ROOT / f'configs/{name}.py'), {'arch': arch})
    assert small.model.head == real.model.head
    assert small.optim_wrapper == real.optim_wrapper
    tower = dict(arch=None, weights=None, image_size=None, classes=None)
    assert {**small.model.backbone, **tower} == {**real.model.backbone, **tower}
    assert small.model.backbone.align is True
