"""The command line tools that look at data, as a user calls them."""
import re

import cv2
import numpy as np
import pytest
import trees
from mmengine.dataset import pseudo_collate
from tests_support import ROOT, build_small, call_tool

from trm_ml_mm.apis import load_model
from trm_ml_mm.datasets import (
    Scenes,
    known_label_mask,
    load_mask,
    mask_hash,
)
from trm_ml_mm.labels import proposed_mask


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv('COLUMNS', '120')


def tool(name, *arguments, code=0):
    done = call_tool(f'tools/{name}.py', arguments)
    assert done.status == code, done.out + done.err[-3000:]
    return done.out


def test_make_masks_draws_saves_and_verifies(tmp_path):
    labels = np.random.RandomState(0).randint(0, 2, (500, 12))
    np.savez(tmp_path / 'labels.npz', packed=np.packbits(labels, axis=1),
             num_classes=12)
    out = tool('make_masks', tmp_path / 'labels.npz', '--known', .3,
               'single_positive', '--out', tmp_path / 'masks', '--per-class')
    mask = known_label_mask((500, 12), .3)
    for figure in (mask.sum(), (labels[mask] == 1).sum(), mask_hash(mask),
                   mask.sum(0)[7]):
        assert str(figure) in out
    files = sorted((tmp_path / 'masks').iterdir())
    assert len(files) == 2
    assert (load_mask(files[0]).mask == mask).all()
    out = tool('make_masks', tmp_path / 'labels.npz', '--verify', *files)
    assert out.count('as drawn') == 2
    labels[0] = 1 - labels[0]  # another data set: other positives
    np.save(tmp_path / 'labels.npy', labels)
    out = tool('make_masks', tmp_path / 'labels.npy', '--verify', *files,
               code=1)
    assert out.count('as drawn') == 1 and out.count('DIFFERS') == 1


def test_make_masks_of_a_config(tmp_path):
    trees.voc(tmp_path)
    out = tool('make_masks', 'configs/trm_ml_voc2007.py', '--known', 'all',
               '--cfg-options', f'data_root={tmp_path}/')
    assert '3 images, 20 classes, 2 positive labels' in out


FEW = ['--cfg-options', 'train_dataloader.dataset.dataset.num_images=40',
       'val_dataloader.dataset.num_images=8',
       'test_dataloader.dataset.num_images=8']


def test_a_weak_model_proposes_the_labels_of_a_mask(tmp_path):
    """Zero-shot CLIP on scenes; its scores as a file give the same mask."""
    from trm_ml_mm.apis import zero_shot_training_scores
    weak = 'configs/baselines/zero_shot_global.py'
    rule = ['--proposer', weak, '--random', '0.2']
    out = tool('make_masks', 'configs/trm_ml_scenes.py', '--known', '0.1',
               '--seed', '3', '--out', tmp_path, *rule, *FEW)
    file, = tmp_path.glob('proposed_0.1_*.npz')
    saved = load_mask(file)
    scores = zero_shot_training_scores(
        weak, {'train_dataloader.dataset.dataset.num_images': 40})
    assert scores.shape == (40, 30)
    assert (saved.mask == proposed_mask(scores, .1, .2, 3)).all()
    assert (saved.known, saved.seed) == ('proposed 0.1', '3')
    assert saved.mask.sum() == 120 and ' 120 ' in out and saved.hash in out
    np.save(tmp_path / 'scores.npy', scores)
    rule[1] = tmp_path / 'scores.npy'
    out = tool('make_masks', 'configs/trm_ml_scenes.py', '--verify', file,
               *rule, *FEW)
    assert out.count('as drawn') == 1
    failed = call_tool('tools/make_masks.py', [
        'configs/trm_ml_scenes.py', '--verify', file, *FEW])
    assert failed.status == 1 and 'give --proposer' in failed.err
    np.save(tmp_path / 'scores.npy', scores[1:])
    failed = call_tool('tools/make_masks.py', [
        'configs/trm_ml_scenes.py', '--known', '0.1', *rule, *FEW])
    assert failed.status == 1 and 'scores 39 images and 30' in failed.err


def test_a_trained_model_proposes_no_labels():
    done = call_tool('tools/make_masks.py', [
        'configs/trm_ml_scenes.py', '--known', '0.1', '--proposer',
        'configs/trm_ml_scenes.py', *FEW])
    assert done.status == 2 and 'learned nothing yet' in done.err


def test_the_class_prior_is_the_mean_prediction(tmp_path):
    """And a training with the selective loss takes it."""
    build_small(tmp_path, {'train_cfg.max_epochs': 1},
                config='ablations/no_pseudo.py').train()
    path = tmp_path / 'prior.npy'
    out = tool('class_prior', 'configs/ablations/no_pseudo.py',
               tmp_path / 'run/epoch_1.pth', '--out', path, *FEW)
    assert '30 classes' in out
    model = load_model(tmp_path / 'run/epoch_1.pth').model
    scenes = Scenes(num_images=40, pipeline=[dict(type='trm_ml_mm.RenderScene'),
                                             dict(type='PackInputs')])
    data = pseudo_collate([scenes[i] for i in range(40)])
    expected = np.mean([sample.pred_score.detach().numpy()
                        for sample in model.test_step(data)], 0)
    assert np.allclose(np.load(path), expected, atol=1e-5)
    runner = build_small(tmp_path, {
        'train_cfg.max_epochs': 1, 'model.head.loss.prior': str(path),
        'model.head.loss.prior_threshold': float(expected.min()) - .01},
        'selective', 'unknown_labels/no_pseudo_selective.py')
    runner.train()  # every class is common: unknown labels are left out
    assert (runner.model.head.loss_module._prior > 0).all()


def test_inspect_data_counts_and_names_unreadable_files(tmp_path):
    trees.csv(tmp_path)
    out = tool('inspect_data', 'configs/trm_ml_csv.py', '--out', tmp_path,
               '--split', 'train', '--cfg-options', f'data_root={tmp_path}/',
               code=1)
    assert 'known to have them: "hot dog"' in out
    facts = {}
    for line in out.splitlines():
        cells = [cell.strip() for cell in line.strip('│').split('│')]
        facts[cells[0]] = cells[1:]
    assert facts['red car'] == ['2', '1', '1', '1']
    assert facts['images'] == ['3'] and facts['classes'] == ['3']
    assert facts['known labels'] == ['6 (66.67%)']
    assert facts['images without a known label'] == ['0']
    assert facts['unreadable files'] == ['0']
    assert 'hash=' in facts['mask'][0]
    picture = cv2.imread(str(tmp_path / 'samples_train.png'))
    assert picture.std() > 20
    whole = (tmp_path / 'images/b.jpg').read_bytes()
    (tmp_path / 'images/b.jpg').write_bytes(whole[:len(whole) // 2])
    out = tool('inspect_data', 'configs/trm_ml_csv.py', '--out', tmp_path,
               '--cfg-options', f'data_root={tmp_path}/', code=1)
    assert 'b.jpg: image file is truncated' in out
    assert out.count('1 of 3 images cannot be used') == 2  # train and val


@pytest.mark.parametrize('split', ['train', 'test'])
def test_inspect_data_of_the_built_in_set(tmp_path, split):
    inner = '.dataset' if split == 'train' else ''
    out = tool('inspect_data', 'configs/trm_ml_scenes.py', '--split', split,
               '--out', tmp_path, '--samples', 5, '--cfg-options',
               f'{split}_dataloader.dataset{inner}.num_images=20',
               code=int(split == 'train'))
    assert 'unreadable' not in out and 'striped star' in out
    assert ('no image that is known to have them' in out) == (
        split == 'train')  # 20 images, of which 10% of the labels are known
    assert (tmp_path / f'samples_{split}.png').is_file()


def inspected(*options):
    out = tool('inspect_tower', 'configs/trm_ml_scenes.py', '--images', 48,
               '--cfg-options', 'val_dataloader.dataset.num_images=48',
               *options)
    values = re.findall(r'│ (.+?) +│ +([-.0-9]+) │', out)
    return {name: float(value) for name, value in values}, out


def test_the_built_in_tower_has_the_joint_space_of_a_real_clip():
    """In the range that is reported for OpenAI's CLIP."""
    found, out = inspected()
    assert 'Warning' not in out
    assert found['logit scale'] == pytest.approx(100, abs=.1)
    assert found['text, lowest'] > .6
    gap = found['image, right text'] - found['image, wrong text']
    assert .03 < gap < .1 and .15 < found['image, wrong text'] < .25
    assert found['spread over locations'] < .06
    assert found['spread after alignment'] == pytest.approx(.25, abs=.02)
    assert found['zero-shot mAP, dense'] > 65
    wide, _ = inspected('arch=mini-wide')
    assert wide['logit scale'] < 24 and wide['text, lowest'] < .1
    assert wide['spread over locations'] > 3 * found['spread over locations']


def test_inspect_tower_warns():
    _, out = inspected('model.backbone.align=False')
    assert 'Warning: texts share a narrow cone' in out
    _, out = inspected('model.data_preprocessor.mean=[90000,0,0]')
    assert 'Warning: ' in out  # such images say nothing about their classes


def test_inspect_tower_compares_dense_maps():
    _, out = inspected()
    rows = re.findall(r'│ (value|region)\b.*│ +(\S+) +│ +([\d.]+)\*? │ '
                      r'+([\d.]+)\*? │', out)
    assert [row[:2] for row in rows] == [('value', '-'), ('region', '-')]
    (_, _, *value), (_, _, *region) = rows
    assert out.count('*') == 2 + 1  # of two columns, and the title's
    assert f'{float(value[0]):.2f}' in re.search(
        r'zero-shot mAP, dense .*', out)[0]
    assert float(region[1]) > float(value[1]) > 40
    assert 'Best pointing: set model.backbone.dense=region.' in out
    assert re.search(r'pointing: \d\d\d present labels with a box', out)
    # What it says is an option: then it is the tower's own row.
    _, again = inspected('model.backbone.dense=region',
                         'model.backbone.windows.size=64',
                         'model.backbone.windows.stride=32')
    assert 'region          │ 64/32' in again


def test_inspect_tower_with_windows_and_without_boxes():
    out = tool('inspect_tower', 'configs/trm_ml_scenes.py', '--images', 8,
               '--dense', 'region', '--windows', 64, 32, '--split', 'train',
               '--cfg-options', 'train_dataloader.dataset.dataset.'
               'num_images=200')
    assert 'region │ -' in out and 'region │ 64/32' in out
    done = call_tool('tools/inspect_tower.py', [
        'configs/trm_ml_scenes.py', '--dense', 'sclip', '--images', '4'])
    assert done.status == 2
    assert "mini cannot make the dense map 'sclip': set dense to" in done.err


def test_inspect_tower_refuses_other_backbones():
    done = call_tool('tools/inspect_tower.py',
                     ['configs/trm_ml_resnet50_coco.py'])
    assert done.status == 1
    assert 'the backbone ResNet, which has no joint' in done.err


def test_make_scenes_writes_files_that_train(tmp_path):
    """The pictures and known labels are those of the built-in set."""
    from trm_ml_mm.datasets import CSVMultiLabel, PartialLabelDataset, Scenes
    out = tool('make_scenes', '--out', tmp_path / 's', '--images', 40,
               '--known', .3)
    assert re.search(r'[23]\d% of the labels known', out)
    scenes = Scenes('train', 40, pipeline=[dict(type='trm_ml_mm.RenderScene')])
    expected = PartialLabelDataset(scenes, .3)
    table = CSVMultiLabel('labels.csv', str(tmp_path / 's'), 'images')
    assert table.metainfo['classes'] == scenes.metainfo['classes']
    for i in (0, 17, 39):
        info = table.get_data_info(i)
        assert (info['gt_score'] == expected.labels[i]).all()
        assert (cv2.imread(info['img_path']) == scenes[i]['img']).all()
    assert tool('make_scenes', '--out', tmp_path / 's', code=2) == ''
