"""A checkpoint that is the model: no config, no data set, no code."""
import copy
import json
import shutil

import pytest
import torch
from mmengine.dataset import pseudo_collate
from tests_support import ROOT, build_small

from trm_ml_mm.apis import load_model
from trm_ml_mm.engine import build_dataset, load_config, read_checkpoint
from trm_ml_mm.models.towers import save_random_weights

FEW = {'train_cfg.max_epochs': 1,
       'train_dataloader.dataset.dataset.num_images': 16,
       'val_dataloader.dataset.num_images': 4,
       'test_dataloader.dataset.num_images': 4,
       'test_evaluator': [dict(type='trm_ml_mm.MultiLabelAP')]}
SCENES = str(ROOT / 'configs/trm_ml_scenes.py')


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('described')
    build_small(folder, FEW).train()
    return folder / 'run'


@pytest.fixture
def changed(work_dir, tmp_path):
    """A function that edits a copy of the checkpoint, and gives its path."""
    def change(edit=lambda c: None):
        checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=True)
        edit(checkpoint)
        torch.save(checkpoint, tmp_path / 'epoch_1.pth')
        return tmp_path / 'epoch_1.pth'
    return change


def logits_of(model, batch):
    with torch.no_grad():
        samples = model(**model.data_preprocessor(copy.deepcopy(batch)),
                        mode='predict')
    return torch.stack([s.pred_logit for s in samples])


def batch_of(options=None):
    cfg = load_config(SCENES, {'val_dataloader.dataset.num_images': 3,
                               **(options or {})})
    data = build_dataset(cfg, 'val')
    return pseudo_collate([data[i] for i in range(3)])


def test_it_needs_no_config(changed):
    path = changed()
    alone, with_config = load_model(path), load_model(path, SCENES)
    batch = batch_of()
    assert torch.equal(logits_of(alone.model, batch),
                       logits_of(with_config.model, batch))
    about = alone.description
    for name in ('pipeline', 'classes', 'words'):
        assert getattr(about, name) == getattr(with_config.description, name)
    assert about.classes == tuple(alone.model.backbone.class_names)
    assert about.words == tuple(alone.model.backbone.text.words)
    assert about.pipeline == [dict(type='Resize', scale=[96, 96],
                                   interpolation='bicubic')]
    assert alone.meta['known_labels']['known'] == .1


def test_it_is_plain_data(changed):
    plain = read_checkpoint(changed())['meta']['trm_ml_mm']
    assert json.loads(json.dumps(plain)) == plain


def test_a_training_from_cached_features_says_how_images_get_in(
        tmp_path, work_dir):
    from trm_ml_mm.features import CacheFiller, build_tower
    runner = build_small(tmp_path, FEW)
    for split in ('train', 'val', 'test'):
        filler = CacheFiller(runner.cfg, split, tmp_path / 'features', 0,
                             'float32', 0, build_tower(runner.cfg))
        filler.open()
        filler.fill(16, 0, lambda done, total: None)
    build_small(tmp_path, {**FEW, 'feature_cache': str(
        tmp_path / 'features')}, 'cached').train()
    cached = load_model(tmp_path / 'cached/epoch_1.pth')
    plain = load_model(work_dir / 'epoch_1.pth')
    assert cached.description == plain.description
    assert cached.model.backbone.feature_grid is None
    assert logits_of(cached.model, batch_of()).isfinite().all()


def test_another_backbone_and_a_text_tower_of_its_own(tmp_path):
    build_small(tmp_path, {**FEW, 'model': dict(
        _delete_=True, type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        data_preprocessor=dict(mean=[1., 2, 3], std=[4., 5, 6], to_rgb=True),
        head=dict(type='trm_ml_mm.TextRegionMatchingHead', num_classes=30,
                  in_channels=512, text=dict(classes='scenes', arch='mini',
                                             weights=None),
                  loss=dict(type='trm_ml_mm.PartialAsymmetricLoss')))}
    ).train()
    loaded = load_model(tmp_path / 'run/epoch_1.pth')
    assert loaded.description.words[0] == loaded.model.head.text.words[0]
    assert loaded.model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert loaded.description.pipeline == []  # the set has no size either


def moved(path):
    def edit(checkpoint):
        checkpoint['meta']['trm_ml_mm']['model']['backbone'].update(
            weights=path)
    return edit


def test_weights_are_found_where_they_were_beside_it_or_as_given(
        changed, tmp_path):
    from trm_ml_mm.models.towers.mini import MINI_CLIPS
    own = tmp_path / 'mini.pth'
    path = changed(moved('/nowhere/mini.pth'))
    with pytest.raises(FileNotFoundError, match='--weights FILE') as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert '/nowhere/mini.pth' in str(caught.value)
    shutil.copy(MINI_CLIPS['mini'], tmp_path / 'own.pth')
    assert load_model(path, weights=str(tmp_path / 'own.pth'))
    shutil.copy(MINI_CLIPS['mini'], own)
    assert load_model(path).cfg.model.backbone.weights == str(own)


def test_another_clip_is_refused(changed, tmp_path, tiny_clip):
    save_random_weights(tiny_clip, str(tmp_path / 'tiny.pt'))

    def edit(checkpoint):
        checkpoint['meta']['trm_ml_mm']['model']['backbone'].update(
            arch=tiny_clip, weights=str(tmp_path / 'tiny.pt'))

    with pytest.raises(ValueError, match='another frozen CLIP'):
        load_model(changed(edit))


def described(**entries):
    return lambda c: c['meta']['trm_ml_mm'].update(entries)


def part(**options):
    return lambda c: c['meta']['trm_ml_mm']['model']['head'].update(options)


@pytest.mark.parametrize('edit,match', [
    (lambda c: c['meta'].pop('trm_ml_mm'), 'does not say what its model is'),
    (lambda c: c['meta'].update(trm_ml_mm=[]), 'damaged'),
    (described(version=99), 'newer version'),
    (described(version='1'), 'damaged'),
    (described(model=3), '"model" is no dict'),
    (described(classes=[1, 2]), 'classes are no words'),
    (described(pipeline=['Resize']), "'Resize'"),
    (described(pipeline=[dict(type='os.system')]), "'os.system'"),
    (part(loss=dict(type='subprocess.run', args='true')), 'subprocess.run'),
    (part(loss=dict(type='mmpretrain.AutoModelForCausalLM')), 'AutoModel'),
    (part(type=['list']), 'list'),
    (part(loss=dict(type='builtins.print')), 'builtins.print'),
    (part(relations=dict(type='trm_ml_mm.engine.load_config')), 'load_config'),
    (lambda c: c['meta']['trm_ml_mm']['model'].update(
        type='mmpretrain.HuggingFaceClassifier'), 'HuggingFaceClassifier'),
])
def test_a_stranger_s_description_is_refused_in_one_sentence(changed, edit,
                                                            match):
    path = changed(edit)
    with pytest.raises(ValueError, match=match) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_description_imports_nothing(changed, tmp_path, monkeypatch):
    """MMEngine's registries import what a type names."""
    (tmp_path / 'evil_module.py').write_text(
        f'open({str(tmp_path / "ran")!r}, "w")\nclass Loss: pass\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match='evil_module.Loss'):
        load_model(changed(part(loss=dict(type='evil_module.Loss'))))
    assert not (tmp_path / 'ran').exists()


def test_options_need_a_config(changed):
    with pytest.raises(ValueError, match='give the config too'):
        load_model(changed(), options={'lr': 1.})


def test_weights_need_a_clip(changed):
    def edit(checkpoint):
        checkpoint['meta']['trm_ml_mm']['model']['backbone'] = dict(
            type='ResNet', depth=18)
    with pytest.raises(ValueError, match='has no CLIP'):
        load_model(changed(edit), weights='a.pt')


def test_words_of_this_training_stay(small_run, tmp_path):
    """A later version may have other words for a class."""
    small_run({**FEW, 'model.backbone.prompt_names': {
        'purple star': 'blue star'}}).train()
    found = load_model(tmp_path / 'run/epoch_1.pth')
    index = found.description.classes.index('purple star')
    assert found.description.words[index] == 'blue star'
    assert tuple(found.model.backbone.text.words) == found.description.words
