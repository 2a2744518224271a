"""Labels of new images, and where they were seen."""
import csv
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from test_description import FEW
from tests_support import ROOT, build_small

from trm_ml_mm.apis import MultiLabelInferencer, load_model
from trm_ml_mm.apis.inferencer import merge_views, tile_views
from trm_ml_mm.cli import predict as command
from trm_ml_mm.datasets.base import UnreadableImage
from trm_ml_mm.datasets.scenes.rendering import (
    COLOURS,
    SceneObject,
    object_mask,
)
from trm_ml_mm.engine import build_dataset, build_runner, find_class
from trm_ml_mm.visualization.overlays import LONGEST, shortened


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A checkpoint, and photos that are larger than its model's input."""
    folder = tmp_path_factory.mktemp('predict')
    build_small(folder, FEW).train()
    shutil.copy(folder / 'run/epoch_1.pth', folder / 'model.pth')
    photos = folder / 'photos'
    (photos / 'sub').mkdir(parents=True)
    rng = np.random.RandomState(0)
    for name in ('a.png', 'b.png', 'sub/a.png', 'c.png', 'd.png'):
        small = rng.randint(0, 255, (6, 8, 3), np.uint8)
        cv2.imwrite(str(photos / name), cv2.resize(small, (160, 120)))
    return folder


@pytest.fixture(scope='module')
def predict(folder):
    return MultiLabelInferencer(folder / 'model.pth')


def scores(results):
    return [{label['name']: label['score'] for label in r['labels']}
            for r in results]


def test_scores_are_those_of_a_test(folder, predict):
    """The built-in scenes as arrays, against the runner's own data."""
    data = build_dataset(predict_config(folder), 'test')
    samples = [data[i] for i in range(4)]
    with torch.no_grad():
        expected = predict.model.test_step(pseudo_collate(samples))
    arrays = [s['inputs'].permute(1, 2, 0).numpy() for s in samples]
    for result, sample in zip(scores(predict(arrays)), expected):
        assert np.allclose([result[name] for name in predict.classes],
                           sample.pred_score.numpy(), atol=1e-6)


def predict_config(folder):
    from trm_ml_mm.engine import load_config
    return load_config(str(ROOT / 'configs/trm_ml_scenes.py'), {
        'test_dataloader.dataset.num_images': 4})


def test_every_label_is_there_sorted_with_its_threshold(folder, predict):
    result, = predict(str(folder / 'photos/a.png'))
    assert result['image'] == str(folder / 'photos/a.png')
    assert result['size'] == (160, 120)
    values = [label['score'] for label in result['labels']]
    assert values == sorted(values, reverse=True)
    assert {label['name'] for label in result['labels']} == set(
        predict.classes)
    assert result['present'] == [label['name'] for label in result['labels']
                                 if label['score'] >= label['threshold']]
    assert all(label['threshold'] == .5 for label in result['labels'])
    assert 'map' not in result['labels'][0]


def test_every_kind_of_input_gives_the_same(folder, predict):
    path = str(folder / 'photos/a.png')
    array = cv2.imread(path)
    expected = scores(predict(path))
    for inputs in (array, Image.open(path), [path], (array, ),
                   str(folder / 'photos/[a].png')):
        assert scores(predict(inputs)) == expected
    whole = predict(str(folder / 'photos'), batch_size=2)
    assert [r['image'] for r in whole] == [
        str(folder / 'photos' / n)
        for n in ('a.png', 'b.png', 'c.png', 'd.png', 'sub/a.png')]
    assert np.allclose(list(scores(whole)[0].values()),
                       list(expected[0].values()), atol=1e-5)


def test_peaks_and_boxes_are_in_pixels_of_the_image(folder, predict):
    result, = predict(str(folder / 'photos/a.png'), maps=True)
    for label in result['labels']:
        left, top, right, bottom = label['box']
        assert 0 <= left <= label['peak'][0] <= right <= 160
        assert 0 <= top <= label['peak'][1] <= bottom <= 120
        assert label['map'].shape == (6, 6)
        assert np.isclose(label['map'].sum(), 1, atol=1e-4)


@pytest.mark.parametrize('x,y', [(24, 24), (70, 30), (50, 74)])
def test_a_peak_is_where_the_object_is(predict, x, y):
    """A photo of twice the size of the model's input."""
    image = np.full((96, 96, 3), 128, np.uint8)
    thing = SceneObject('purple', 'square', x, y, 12, 0.)
    image[object_mask(thing, 96) > 127] = COLOURS['purple'][::-1]
    result, = predict(cv2.resize(image, (192, 192)), maps=True)
    label = next(label for label in result['labels']
                 if label['name'] == 'purple square')
    assert np.hypot(label['peak'][0] - 2 * x, label['peak'][1] - 2 * y) < 24
    left, top, right, bottom = label['box']
    assert left < 2 * x < right and top < 2 * y < bottom


def test_an_unreadable_image_ends_it_or_is_named(folder, predict, tmp_path):
    shutil.copytree(folder / 'photos', tmp_path / 'photos')
    (tmp_path / 'photos/b.png').write_bytes(b'no image')
    with pytest.raises(UnreadableImage, match='b.png'):
        predict(str(tmp_path / 'photos'))
    results = predict(str(tmp_path / 'photos'), batch_size=2,
                      skip_unreadable=True)
    assert [('error' in r) for r in results] == [False, True, *[False] * 3]
    assert 'b.png cannot be decoded' in results[1]['error']
    good = predict([str(tmp_path / 'photos' / n) for n in ('a.png', 'c.png')])
    assert np.allclose(list(scores(good)[1].values()),
                       list(scores([results[2]])[0].values()), atol=1e-5)
    (tmp_path / 'photos/a.png').write_bytes(b'')
    first, *_ = predict(str(tmp_path / 'photos'), batch_size=2,
                        skip_unreadable=True)
    assert 'a.png' in first['error']  # a batch without any image


def test_samples_of_mmpretrain(folder, predict):
    sample, = predict(str(folder / 'photos/a.png'), return_datasamples=True)
    result, = predict(str(folder / 'photos/a.png'))
    assert [predict.classes[c] for c in sample.pred_label] == result['present']
    assert sample.pred_score.shape == (30, )


def test_augmentation_is_that_of_a_test(folder):
    """tools/test.py --tta, image by image."""
    path = str(folder / 'model.pth')
    runner = build_runner(
        str(ROOT / 'configs/trm_ml_scenes.py'), str(folder / 'tta'),
        {'test_dataloader.dataset.num_images': 3,
         'test_dataloader.num_workers': 0, 'custom_hooks': []},
        checkpoint=path, train=False, tta=(1., ))
    collected = []
    runner.test_evaluator.process = lambda data_samples, data_batch: (
        collected.extend(data_samples))
    runner.test_evaluator.evaluate = lambda size: {}
    runner.test()
    data = build_dataset(predict_config(folder), 'test')
    arrays = [data[i]['inputs'].permute(1, 2, 0).numpy() for i in range(3)]
    found = MultiLabelInferencer(path, tta=(1., ))
    for result, sample in zip(scores(found(arrays)), collected):
        assert np.allclose([result[n] for n in found.classes],
                           sample.pred_score.numpy(), atol=1e-5)


def test_views_are_merged_by_the_documented_rule():
    logits = torch.randn(7, 2, 3)
    assert torch.equal(merge_views(logits, 7), logits.mean(0))
    merged = merge_views(logits, 2)
    for b in range(2):
        for c in range(3):
            whole = sum(float(logits[v, b, c]) for v in range(2)) / 2
            tile = max(float(logits[v, b, c]) for v in range(2, 7))
            assert abs(float(merged[b, c]) - (whole + tile) / 2) < 1e-6


@pytest.mark.parametrize('tiles', [2, 3, 5])
def test_tiles_cover_the_image_and_overlap(tiles):
    image = np.arange(101 * 64).reshape(101, 64, 1)
    parts = tile_views(image, tiles)
    assert len(parts) == tiles**2
    assert set(np.concatenate([p.ravel() for p in parts])) == set(image.flat)
    assert parts[0].shape[0] > 101 / tiles and parts[0].shape[1] > 64 / tiles
    assert tile_views(image, 1) == []


def test_tiles_see_small_objects(folder, predict):
    path = str(folder / 'photos/a.png')
    tiled = MultiLabelInferencer(load_model(folder / 'model.pth'), tiles=2)
    image = cv2.imread(path)
    views = predict([image, *tile_views(image, 2)], return_datasamples=True)
    logits = torch.stack([v.pred_logit for v in views])
    expected = merge_views(logits[:, None], 1)[0].sigmoid()
    found, = tiled(path, return_datasamples=True)
    assert torch.allclose(found.pred_score, expected, atol=1e-5)


def test_options_that_make_no_sense(folder):
    for options in (dict(tta=()), dict(tta=(0., )), dict(tiles=0)):
        with pytest.raises(ValueError, match='tta|tiles'):
            MultiLabelInferencer(folder / 'model.pth', **options)


def test_a_class_that_does_not_exist():
    with pytest.raises(ValueError, match='did you mean "red circle"'):
        find_class(('red circle', 'blue star'), 'red circel')
    assert find_class(('a', 'b'), 'b') == 1


def test_names_fit_over_a_panel():
    assert shortened('dog') == 'dog'
    assert len(shortened('a very long name of a class, indeed')) == LONGEST


def run(capsys, monkeypatch, *arguments, code=0, main=command.main):
    """The command in this process; what it printed."""
    monkeypatch.setattr(sys, 'argv', ['predict', *map(str, arguments)])
    monkeypatch.setenv('COLUMNS', '100')
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
    out = capsys.readouterr()
    assert status == code, out
    return out.out if code == 0 else out.err or out.out


def test_the_command_writes_what_it_was_asked_for(folder, predict, tmp_path,
                                                  capsys, monkeypatch):
    (folder / 'photos/broken.jpg').write_bytes(b'no')
    try:
        out = run(capsys, monkeypatch, folder / 'photos', '--checkpoint',
                  folder / 'model.pth', '--json', tmp_path / 'new/a.jsonl',
                  '--csv', tmp_path / 'a.csv', '--out', tmp_path / 'pictures',
                  '--top', 3, '--batch-size', 2)
    finally:
        (folder / 'photos/broken.jpg').unlink()
    assert '1 of 6 images could not be read' in out and 'broken.jpg' in out
    lines = [json.loads(line)
             for line in open(tmp_path / 'new/a.jsonl', encoding='utf-8')]
    assert len(lines) == 6 and sum('error' in line for line in lines) == 1
    assert all(len(line.get('labels', 'abc')) == 3 for line in lines)
    table = pd.read_csv(tmp_path / 'a.csv')
    assert list(table.columns) == ['image', *predict.classes]
    expected = scores(predict(list(table['image'])))
    for (_, row), one in zip(table.iterrows(), expected):
        assert np.allclose([row[n] for n in predict.classes],
                           list(map(one.get, predict.classes)), atol=1e-5)
    # Two images have the same name, in two folders.
    pictures = sorted(p.name for p in (tmp_path / 'pictures').iterdir())
    assert pictures == ['a.jpg', 'a_2.jpg', 'b.jpg', 'c.jpg', 'd.jpg']
    assert cv2.imread(str(tmp_path / 'pictures/a.jpg')) is not None


def test_the_command_gives_everything_with_all(folder, tmp_path, capsys,
                                               monkeypatch):
    run(capsys, monkeypatch, folder / 'photos/a.png', '--checkpoint',
        folder / 'model.pth', '--json', tmp_path / 'a.jsonl', '--all')
    line = json.loads((tmp_path / 'a.jsonl').read_text())
    assert len(line['labels']) == 30
    assert np.array(line['labels'][0]['map']).shape == (6, 6)


def test_only_the_classes_that_were_asked_for(folder, tmp_path, capsys,
                                              monkeypatch):
    every = MultiLabelInferencer(folder / 'model.pth')
    chosen = [every.classes[c] for c in (7, 2)]
    table = tmp_path / 'a.csv'
    run(capsys, monkeypatch, folder / 'photos/a.png', '--checkpoint',
        folder / 'model.pth', '--csv', table, '--classes', *chosen)
    row, = csv.DictReader(open(table, encoding='utf-8'))
    assert list(row) == ['image', chosen[1], chosen[0]]
    expected, = scores(every(str(folder / 'photos/a.png')))
    for name in chosen:
        assert float(row[name]) == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize('inputs,options,match', [
    ('none.jpg', [], 'none.jpg does not exist'),
    ('empty', [], 'has no image'),
    ('*.tif', [], 'No file matches'),
    ('photos/a.png', ['--checkpoint', 'none.pth'], 'none.pth does not exist'),
    ('photos/a.png', ['--checkpoint', 'other.pth'],
     'does not say what its model is'),
    ('photos/a.png', ['--checkpoint', 'photos/a.png'], 'read safely'),
    ('photos/a.png', ['--weights', 'none.pt'], 'not at hand'),
    ('photos/a.png', ['--out', 'model.pth'], 'model.pth'),
    ('photos/a.png', ['--json', 'model.pth/a.json'], 'model.pth'),
    ('photos/a.png', ['--tiles', '0'], 'tiles must be at least 1'),
    ('photos/a.png', ['--classes', 'red circel'], 'has no class "red circel"'),
])
def test_bad_input_is_one_sentence(folder, capsys, monkeypatch, inputs,
                                   options, match):
    (folder / 'empty').mkdir(exist_ok=True)
    torch.save(dict(state_dict={}), folder / 'other.pth')
    monkeypatch.chdir(folder)
    error = run(capsys, monkeypatch, inputs, '--checkpoint', 'model.pth',
                *options, code=2)
    assert match in error
    assert 'Traceback' not in error and error.count('\n') == 1


@pytest.mark.skipif(sys.platform != 'linux', reason='/dev/full is of Linux')
def test_a_full_disk_is_one_sentence(folder, capsys, monkeypatch, tmp_path):
    """Writing to a file that is a full device."""
    import trm_ml_mm.utils.io as io
    monkeypatch.setattr(io.os, 'fsync', lambda descriptor: (
        _ for _ in ()).throw(OSError(28, 'No space left on device')))
    error = run(capsys, monkeypatch, folder / 'photos/a.png', '--checkpoint',
                folder / 'model.pth', '--json', tmp_path / 'a.json', code=2)
    assert 'the disk is full' in error and error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_only_unreadable_images_are_a_failure(folder, tmp_path, capsys,
                                              monkeypatch):
    (tmp_path / 'a.jpg').write_bytes(b'no')
    out = run(capsys, monkeypatch, tmp_path, '--checkpoint',
              folder / 'model.pth', code=2)
    assert '1 of 1 images could not be read' in out


def test_the_console_command_runs_the_same_script(folder, tmp_path):
    """A checkpoint alone in an empty folder."""
    shutil.copy(folder / 'model.pth', tmp_path / 'epoch_10.pth')
    shutil.copy(folder / 'photos/a.png', tmp_path)

    def trm_ml(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, '-m', 'trm_ml_mm.cli.main', *arguments],
            cwd=tmp_path, text=True, capture_output=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)})
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    out = trm_ml('predict', 'a.png', '--checkpoint', 'epoch_10.pth')
    assert 'a.png' in out
    assert 'predict' in trm_ml() and 'trm-ml has no command' in trm_ml(
        'none', code=1)
    error = trm_ml('train', 'no_such_config', code=2)
    assert 'such as trm_ml_scenes' in error and 'Traceback' not in error
