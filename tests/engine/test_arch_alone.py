"""model.backbone.arch alone changes a tower, and all that belongs to it."""
import json
from pathlib import Path

import open_clip
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from open_clip.constants import OPENAI_DATASET_MEAN
from tests_support import ROOT, build_small

from trm_ml_mm.apis import MultiLabelInferencer, load_model
from trm_ml_mm.engine import build_dataset, fill_tower, load_config
from trm_ml_mm.export.inputs import input_rule
from trm_ml_mm.features import CacheFiller
from trm_ml_mm.features.fill import build_tower
from trm_ml_mm.models import CLIPPromptBackbone, load_clip
from trm_ml_mm.models.towers import default_weights, save_random_weights
from trm_ml_mm.models.towers.mini import MINI_CLIPS

COCO = str(ROOT / 'configs/trm_ml_coco.py')
TEXT = dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1)
# Architecture: size that a config of 448 px gets, and its weights.
EXPECTED = {
    'RN101': (448, 'openai'),
    'RN50x4': (448, 'openai'),
    'ViT-B-16': (224, 'openai'),
    'ViT-L-14-336': (336, 'openai'),
    'ViT-H-14': (224, 'laion2b_s32b_b79k'),
    'ViT-B-16-SigLIP2-512': (512, 'webli'),
    'convnext_base_w': (448, 'laion2b_s13b_b82k'),
    'EVA02-L-14-336': (336, 'merged2b_s6b_b61k'),
    'MobileCLIP2-S2': (448, 'dfndr2b'),
    'MobileCLIP-B': (224, 'datacompdr'),
    'PE-Core-S-16-384': (384, 'meta'),
    'coca_ViT-B-32': (224, 'laion2b_s13b_b90k'),
    'mini': (448, None),
}
TOWERS = sorted((ROOT / 'configs/towers').glob('*.py'))


def sizes(cfg):
    """Of the backbone and of all pipelines."""
    train = cfg.train_dataloader.dataset.dataset.pipeline[1].scale
    return [cfg.model.backbone.image_size, train, *(
        cfg[f'{split}_dataloader'].dataset.pipeline[1].scale
        for split in ('val', 'test'))]


def all_of(size):
    return [size, size, (size, size), (size, size)]


def child(folder, text, base=COCO):
    path = folder / 'child.py'
    path.write_text(f'_base_ = [{base!r}]\n{text}\n')
    return str(path)


def tiny(folder, name, **vision):
    """A tiny CLIP in open_clip's registry, and a file of its weights."""
    path = folder / f'{name}.json'
    path.write_text(json.dumps(dict(embed_dim=48, vision_cfg=vision,
                                    text_cfg=TEXT, quick_gelu=True)))
    open_clip.add_model_config(path)
    save_random_weights(name, str(folder / 'weights.pt'))
    return name, str(folder / 'weights.pt')


@pytest.fixture(scope='module')
def vit(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp('vit'), 'tiny-alone', layers=2,
                width=64, head_width=32, patch_size=16, image_size=64)


@pytest.mark.parametrize('arch', EXPECTED)
def test_size_and_weights_follow_by_every_way_in(tmp_path, arch):
    cfg = load_config(COCO, {'model.backbone.arch': arch})
    size, weights = EXPECTED[arch]
    assert sizes(cfg) == all_of(size)
    assert cfg.model.backbone.weights == weights
    short = load_config(COCO, {'arch': arch})
    for text in (f'arch = {arch!r}',
                 f'model = dict(backbone=dict(arch={arch!r}))'):
        file = load_config(child(tmp_path, text))
        assert file.model == short.model == cfg.model
        for split in ('train', 'val', 'test'):
            key = f'{split}_dataloader'
            assert file[key] == short[key] == cfg[key]


@pytest.mark.parametrize('arch', ['RN101', 'ViT-B-16', 'EVA02-L-14-336',
                                  'convnext_base_w'])
def test_a_given_size_wins(tmp_path, arch):
    for options in ({'image_size': 320}, {'image_size': 512}):
        assert sizes(load_config(COCO, {
            'model.backbone.arch': arch, **options})) == all_of(
                options['image_size'])
    assert sizes(load_config(child(
        tmp_path, f'arch = {arch!r}\nimage_size = 448'))) == all_of(448)
    found = load_config(COCO, {'model.backbone.arch': arch,
                               'model.backbone.image_size': 448})
    assert sizes(found) == all_of(448)
    small = load_config(str(ROOT / 'configs/trm_ml_csv_small.py'),
                        {'model.backbone.arch': arch})
    assert sizes(small) == all_of(224)


def test_a_config_on_the_small_one_may_have_another_tower(tmp_path):
    small = str(ROOT / 'configs/trm_ml_csv_small.py')
    for text in ("arch = 'RN101'", "model = dict(backbone=dict(arch='RN101'))"):
        cfg = load_config(child(tmp_path, text, small))
        assert cfg.model.backbone.arch == 'RN101' and sizes(cfg) == all_of(224)


def test_pipelines_follow_a_size_of_the_backbone_where_it_must_fit(tmp_path):
    text = 'model = dict(backbone=dict(arch={!r}, image_size=320))'
    assert sizes(load_config(child(tmp_path, text.format('ViT-B-16')))
                 ) == all_of(320)
    assert sizes(load_config(child(tmp_path, text.format('RN50')))
                 ) == [320, *all_of(448)[1:]]


def test_a_crop_keeps_its_ratio_to_the_resize_before_it(tmp_path):
    cfg = load_config(child(tmp_path, '''
arch = 'ViT-B-16'
_steps = [dict(type='LoadImageFromFile'),
          dict(type='ResizeEdge', scale=512),
          dict(type='CenterCrop', crop_size=448), dict(type='PackInputs')]
val_dataloader = dict(dataset=dict(pipeline=_steps))
test_dataloader = dict(dataset=dict(pipeline=_steps))
'''))
    _, resize, crop, _ = cfg.test_dataloader.dataset.pipeline
    assert (resize.scale, crop.crop_size) == (256, 224)
    assert cfg.train_dataloader.dataset.dataset.pipeline[1].scale == 224


@pytest.mark.parametrize('arch', ['RN101', 'ViT-B-16', 'MobileCLIP2-S2'])
def test_a_dumped_config_is_filled_and_stays(tmp_path, arch):
    cfg = load_config(COCO, {'arch': arch})
    cfg.dump(str(tmp_path / 'dumped.py'))
    again = load_config(str(tmp_path / 'dumped.py'))
    assert again.model == cfg.model and sizes(again) == sizes(cfg)
    before = cfg.to_dict()
    fill_tower(cfg)
    assert cfg.to_dict() == before


def test_the_width_of_a_head_follows_an_option_too(tmp_path):
    path = child(tmp_path, 'model = dict(head=dict(dim=512))')
    assert load_config(path).model.head.dim == 512
    assert load_config(path, {'model.backbone.arch': 'RN50'}
                       ).model.head.dim == 1024
    assert load_config(path, {'model.backbone.arch': 'RN50',
                              'model.head.dim': 7}).model.head.dim == 7


def test_text_of_another_backbone_has_default_weights_too():
    path = str(ROOT / 'configs/trm_ml_vit_coco.py')
    for arch, tag in (('RN101', 'openai'), ('convnext_base_w',
                                            'laion2b_s13b_b82k')):
        cfg = load_config(path, {'arch': arch})
        assert cfg.model.head.text.weights == tag
        assert cfg.model.backbone.img_size == 448


def test_weights_that_do_not_exist_are_a_sentence(vit):
    with pytest.raises(FileNotFoundError, match='no weights for tiny-alone: '
                       'give a file.*model.backbone.weights=PATH'):
        load_clip(vit[0], 'default')
    cfg = load_config(COCO, {'arch': vit[0]})  # can still be looked at
    assert cfg.model.backbone.weights == 'default'
    with pytest.raises(FileNotFoundError, match='one of the tags of EVA02-B-16'
                       ': merged2b_s8b_b131k'):
        load_clip('EVA02-B-16', 'openai')
    for name in ('ViT-B-61', 'MobileCLIP2-S22'):
        with pytest.raises(ValueError, match='knows no architecture'):
            default_weights(name)
        with pytest.raises(ValueError, match='knows no architecture'):
            load_config(COCO, {'model.backbone.arch': name})


def test_windows_leave_the_pipelines_at_their_size():
    cfg = load_config(COCO, {
        'model.backbone.arch': 'ViT-B-16',
        'model.backbone.windows': dict(size=224, stride=112)})
    assert sizes(cfg) == [None, 448, (448, 448), (448, 448)]


def test_the_built_in_vit(tmp_path):
    cfg = load_config('trm_ml_scenes', dict(arch='mini-vit'))
    assert cfg.model.backbone.image_size == 96
    assert MINI_CLIPS['mini-vit'].stat().st_size < 4e6
    backbone = CLIPPromptBackbone('mini-vit', None, 'scenes').eval()
    assert backbone(torch.zeros(1, 3, 96, 96)).dense.shape == (1, 128, 8, 8)


def test_a_mini_clip_has_its_own_weights():
    assert load_clip('mini', 'default').fingerprint == load_clip(
        'mini', None).fingerprint


def test_a_backbone_by_itself_has_the_size_of_its_weights(vit, tiny_clip):
    alone = CLIPPromptBackbone(vit[0], vit[1])
    assert alone(torch.randn(1, 3, 64, 64))[0].shape == (1, 48, 4, 4)
    larger = CLIPPromptBackbone(vit[0], vit[1], image_size=96)
    assert larger(torch.randn(1, 3, 96, 96))[0].shape == (1, 48, 6, 6)
    any_size = CLIPPromptBackbone(tiny_clip)
    assert any_size(torch.randn(1, 3, 96, 96))[0].shape == (1, 32, 3, 3)


def test_normalisation_and_width_follow():
    """MobileCLIP-S1 with random values."""
    cfg = load_config(COCO, {'model.backbone.arch': 'MobileCLIP-S1',
                             'model.backbone.weights': None})
    model = MODELS.build(cfg.model)
    assert model.head.dim == 512
    assert model.data_preprocessor.mean.flatten().tolist() == [0, 0, 0]
    assert model.data_preprocessor.std.flatten().tolist() == [255, 255, 255]


def test_all_that_a_run_leaves_fits_the_tower(tmp_path, vit):
    """A ViT for 64 px on scenes of 96: training, checkpoint, prediction,
    export, cached features."""
    options = {'model.backbone.arch': vit[0], 'train_cfg.max_epochs': 1,
               'model.backbone.weights': vit[1]}
    runner = build_small(tmp_path, options)
    assert build_dataset(runner.cfg, 'val')[0]['inputs'].shape[1:] == (64, 64)
    runner.train()
    loaded = load_model(tmp_path / 'run/epoch_1.pth')
    assert loaded.model.head.dim == 48
    assert loaded.description.pipeline == [dict(
        type='Resize', scale=[64, 64], interpolation='bicubic')]
    predict = MultiLabelInferencer(loaded, device='cpu')
    rule = input_rule(predict)
    assert rule.size == (64, 64)
    assert rule.mean == pytest.approx([255 * v for v in OPENAI_DATASET_MEAN])
    dumped, = Path(runner.work_dir).glob('*.py')
    assert Config.fromfile(dumped).model.backbone.image_size == 64
    for split in ('train', 'val', 'test'):
        filler = CacheFiller(runner.cfg, split, tmp_path / 'features', 0,
                             'float32', 0, build_tower(runner.cfg))
        filler.open()
        assert filler.meta.grid == (4, 4)
        filler.fill(16, 0, lambda done, total: None)
    cached = build_small(tmp_path, {
        **options, 'feature_cache': str(tmp_path / 'features')}, 'cached')
    cached.train()
    assert cached.model.head.dim == 48
    assert load_model(tmp_path / 'cached/epoch_1.pth'
                      ).description == loaded.description


@pytest.mark.parametrize('path', TOWERS, ids=lambda path: path.stem)
def test_configs_of_towers_have_what_their_tower_needs(path):
    """Also that a tag that they name belongs to the architecture."""
    cfg = load_config(str(path))
    backbone = cfg.model.backbone
    assert sizes(cfg) == all_of(EXPECTED[backbone.arch][0])
    assert backbone.weights in open_clip.list_pretrained_tags_by_model(
        backbone.arch)
