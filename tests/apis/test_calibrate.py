"""Thresholds and probabilities that a checkpoint keeps."""
import csv
import json
import shutil

import numpy as np
import pytest
import torch
from test_description import FEW, SCENES
from tests_support import build_small, flat

from trm_ml_mm.apis import (
    MultiLabelInferencer,
    load_model,
    logits_of_config,
    logits_of_table,
    store_calibration,
)
from trm_ml_mm.apis.calibrate import matching_columns
from trm_ml_mm.apis.publish import publish_model
from trm_ml_mm.cli import calibrate as command
from trm_ml_mm.cli import make_scenes
from trm_ml_mm.engine import build_dataset, load_config, read_calibration
from trm_ml_mm.evaluation import (
    CalibratedMetrics,
    calibrate_logits,
    calibration_error,
    precision_recall,
)
from trm_ml_mm.labels import PRESENT, UNKNOWN
from trm_ml_mm.models import ZeroShotHead

VAL = {'val_dataloader.dataset.num_images': 40}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A checkpoint, and scenes as files with a table that has blanks."""
    folder = tmp_path_factory.mktemp('calibrate')
    build_small(folder, FEW).train()
    shutil.copy(folder / 'run/epoch_1.pth', folder / 'model.pth')
    call(make_scenes.main, '--out', str(folder / 'scenes'), '--images', '30',
         '--split', 'val', '--known', '0.6')
    return folder


@pytest.fixture(scope='module')
def loaded(folder):
    return load_model(folder / 'model.pth')


def call(main, *arguments):
    """A command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', ['command', *arguments])
        main()


@pytest.fixture(scope='module')
def found(loaded):
    return logits_of_config(loaded, SCENES, options=VAL)


@pytest.fixture
def calibrated(folder, loaded, found, tmp_path):
    """A calibrated checkpoint, and its calibration."""
    calibration = calibrate_logits(found.logits, found.labels,
                                   loaded.description.classes,
                                   source=found.source)
    return store_calibration(folder / 'model.pth', calibration,
                             tmp_path / 'calibrated.pth'), calibration


def test_logits_and_labels_of_a_config(loaded, found):
    cfg = load_config(SCENES, VAL)
    data = build_dataset(cfg, 'val')
    assert found.logits.shape == found.labels.shape == (40, 30)
    assert found.source == '40 images of the val split of trm_ml_scenes.py'
    predict = MultiLabelInferencer(loaded)
    for i in (0, 7, 39):
        image = data[i]['inputs'].permute(1, 2, 0).numpy()
        sample, = predict(image, return_datasamples=True)
        assert np.allclose(found.logits[i], sample.pred_logit, atol=1e-4)
        assert (found.labels[i] == data[i]['data_samples'].gt_score.numpy()
                ).all()


def test_labels_can_be_hidden(loaded, found):
    hidden = logits_of_config(loaded, SCENES, options=VAL, known=.3, seed=5)
    assert np.array_equal(hidden.logits, found.logits)
    known = hidden.labels != UNKNOWN
    assert .25 < known.mean() < .35
    assert (hidden.labels[known] == found.labels[known]).all()
    other = logits_of_config(loaded, SCENES, options=VAL, known=.3, seed=6)
    assert (other.labels != hidden.labels).any()
    assert hidden.source.endswith('labels known: 0.3')


def test_a_table_gives_the_same(folder, loaded, found):
    table = logits_of_table(loaded, folder / 'scenes/labels.csv',
                            folder / 'scenes/images', batch_size=7)
    assert np.allclose(table.logits, found.logits[:30], atol=1e-4)
    known = table.labels != UNKNOWN
    assert .5 < known.mean() < .7
    assert (table.labels[known] == found.labels[:30][known]).all()
    assert table.source == '30 images of labels.csv'


def test_an_unreadable_image_is_left_out_and_told(folder, loaded, tmp_path):
    shutil.copytree(folder / 'scenes', tmp_path / 'scenes')
    (tmp_path / 'scenes/images/00003.png').write_bytes(b'no image')
    table = logits_of_table(loaded, tmp_path / 'scenes/labels.csv',
                            tmp_path / 'scenes/images')
    whole = logits_of_table(loaded, folder / 'scenes/labels.csv',
                            folder / 'scenes/images')
    assert '00003.png cannot be decoded' in table.unreadable[0]
    rows = np.delete(np.arange(30), 3)
    assert np.allclose(table.logits, whole.logits[rows], atol=1e-4)
    assert np.array_equal(table.labels, whole.labels[rows])
    for image in (tmp_path / 'scenes/images').iterdir():
        image.write_bytes(b'no image')
    with pytest.raises(ValueError, match='No image of .*labels.csv can be '
                       'read. The image .*00000.png cannot be decoded'):
        logits_of_table(loaded, tmp_path / 'scenes/labels.csv',
                        tmp_path / 'scenes/images')


def test_classes_are_matched_by_name():
    assert matching_columns(['b', 'a', 'c'], ('a', 'b', 'c'), 'x') == [1, 0, 2]
    for names, word in ((['a', 'b'], 'the model has "c"'),
                        (['a', 'b', 'c', 'd'], 'the data set has "d"')):
        with pytest.raises(ValueError, match='conf.py has other classes than '
                           f'the model: only {word}'):
            matching_columns(names, ('a', 'b', 'c'), 'conf.py')


def test_another_scene_set_has_other_classes(loaded):
    with pytest.raises(ValueError, match='trm_ml_scenes.py has other classes '
                       'than the model'):
        logits_of_config(loaded, SCENES, options={**VAL, 'scene_set': 1})


def test_all_else_in_the_checkpoint_stays(folder, calibrated):
    path, calibration = calibrated
    before, after = (torch.load(p, weights_only=True) for p in (
        folder / 'model.pth', path))
    assert after['meta'].pop('calibration') == calibration.to_dict()
    before, after = flat(before), flat(after)
    assert before.keys() == after.keys() and len(before) > 50
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == after[name].dtype
            assert torch.allclose(value, after[name], 0, 0, equal_nan=True)
        else:
            assert type(value) is type(after[name]) and value == after[name]


def test_it_is_stored_in_place_or_not_at_all(folder, loaded, calibrated,
                                             tmp_path):
    _, calibration = calibrated
    path = tmp_path / 'model.pth'
    shutil.copy(folder / 'model.pth', path)
    assert store_calibration(path, calibration) == path
    again = load_model(path)
    stored = read_calibration(again.meta, path, again.description.classes)
    assert stored.to_dict() == calibration.to_dict()
    content = path.read_bytes()
    with pytest.raises(OSError):
        store_calibration(path, calibration, tmp_path / 'none/model.pth')
    assert path.read_bytes() == content
    assert read_calibration(loaded.meta, 'model.pth') is None


def test_predictions_use_it(found, calibrated):
    path, calibration = calibrated
    predict = MultiLabelInferencer(path)
    image = build_dataset(load_config(SCENES, VAL), 'val')[0]['inputs']
    result, = predict(image.permute(1, 2, 0).numpy())
    probabilities = calibration.probabilities.probabilities(found.logits[0])
    present = found.logits[0] >= calibration.thresholds
    values = [label['score'] for label in result['labels']]
    assert values == sorted(values, reverse=True)
    for label in result['labels']:
        c = predict.classes.index(label['name'])
        assert label['score'] == pytest.approx(probabilities[c], abs=1e-4)
        assert label['present'] == present[c]
        assert label['threshold'] == pytest.approx(
            calibration.probabilities.probabilities(
                calibration.thresholds)[c])
    assert set(result['present']) == {
        name for name, one in zip(predict.classes, present) if one}


def test_a_class_without_a_threshold_is_never_given(folder, loaded, found,
                                                    tmp_path):
    calibration = calibrate_logits(
        found.logits, found.labels, loaded.description.classes, 'precision',
        .999)
    path = store_calibration(folder / 'model.pth', calibration,
                             tmp_path / 'never.pth')
    result, = MultiLabelInferencer(path)(np.zeros((96, 96, 3), np.uint8))
    assert result['present'] == []
    assert {label['threshold'] for label in result['labels']} == {None}
    json.dumps(result, allow_nan=False)


def test_a_test_uses_it(calibrated, tmp_path, capsys):
    path, calibration = calibrated
    options = {'test_dataloader.dataset.num_images': 50}
    runner = build_small(tmp_path, {**FEW, **options}, train=False,
                         checkpoint=str(path))
    metrics = runner.test()
    test = logits_of_config(load_model(path), SCENES, 'test', options)
    labels = torch.from_numpy(test.labels)
    expected = precision_recall(
        torch.from_numpy(test.logits >= calibration.thresholds), labels)
    for name in ('CP', 'CF1', 'OF1'):
        assert metrics[f'calibrated/{name}'] == pytest.approx(
            100 * float(getattr(expected, name)), abs=1e-3)
    assert metrics['calibrated/ECE'] == pytest.approx(
        100 * calibration_error(
            calibration.probabilities.probabilities(test.logits),
            test.labels), abs=1e-3)
    printed = capsys.readouterr().out
    assert 'What calibration changes' in printed
    assert f'{metrics["calibrated/CF1"]:.2f}' in printed


def test_the_metric_refuses_other_classes_and_takes_scores(calibrated):
    _, calibration = calibrated
    metric = CalibratedMetrics(calibration.to_dict(), 'model.pth')
    logits = torch.randn(6, 30)
    labels = torch.randint(0, 2, (6, 30)).float()
    batches = [
        [dict(pred_score=z.sigmoid(), gt_score=y, **more)
         for z, y, more in zip(logits, labels, (
             [dict(pred_logit=z) for z in logits] if own else [{}] * 6))]
        for own in (True, False)]
    values = []
    for samples in batches:
        metric.process(None, samples)
        values.append(metric.evaluate(6))
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    metric.dataset_meta = dict(classes=['cat', 'dog'])
    metric.process(None, batches[0])
    with pytest.raises(ValueError, match='^model.pth is of other classes'):
        metric.evaluate(6)


def test_a_damaged_calibration_is_refused(calibrated, tmp_path):
    path, _ = calibrated
    content = torch.load(path, weights_only=True)
    content['meta']['calibration']['thresholds'] = 'high'
    torch.save(content, path)
    message = (f'The calibration in {path} is damaged: its entry "thresholds" '
               'is missing or not what it must be; calibrate the model again.')
    with pytest.raises(ValueError) as caught:
        build_small(tmp_path, FEW, train=False, checkpoint=str(path))
    assert str(caught.value) == message
    with pytest.raises(ValueError, match='its entry "thresholds" is missing'):
        MultiLabelInferencer(path)


def test_a_release_has_it_and_its_card_says_so(calibrated, tmp_path):
    path, calibration = calibrated
    release = publish_model(path, tmp_path / 'out')
    stored = load_model(release.file).meta['calibration']
    assert stored == calibration.to_dict()
    card = release.card.read_text()
    assert (f'calibrated on {calibration.source}. The expected calibration '
            f'error is {100 * calibration.error_after:.2f}%') in card
    assert f'| {calibration.cuts[4]:.3f} |' in card


def test_the_command(folder, tmp_path, capsys):
    out = tmp_path / 'out.pth'
    data = [str(folder / 'scenes/labels.csv'), '--images',
            str(folder / 'scenes/images')]
    command.main([str(folder / 'model.pth'), *data, '--out', str(out)])
    printed = capsys.readouterr().out
    assert 'of labels.csv' in printed and f'Stored in {out}' in printed
    stored = load_model(out).meta['calibration']
    assert stored['criterion'] == 'f1'
    rows = {line.split()[0]: line.split()[1:]
            for line in printed.splitlines() if line.split()[1:]}
    with open(folder / 'scenes/labels.csv', encoding='utf-8') as file:
        first = [row['yellow star'] for row in csv.DictReader(file)]
    line, = [line for line in printed.splitlines()
             if line.startswith(' yellow star ')]
    assert line.split()[2:4] == [str(first.count('1')), str(first.count('0'))]
    assert rows['at'][-1] == f'{100 * stored["error_before"]:.2f}'
    assert rows['calibrated'][-1] == f'{100 * stored["error_after"]:.2f}'
    # A wanted precision, from a config, in place.
    shutil.copy(folder / 'model.pth', tmp_path / 'model.pth')
    command.main([
        str(tmp_path / 'model.pth'), SCENES, '--known', '0.5', '--precision',
        '0.7', '--confidence', '0.8', '--cfg-options',
        'val_dataloader.dataset.num_images=60'])
    printed = capsys.readouterr().out
    assert '30 of 30 classes have too few known labels' in printed
    assert 'With the confidence of 0.8, each threshold has at least the ' \
        'precision 0.7' in printed
    stored = load_model(tmp_path / 'model.pth').meta['calibration']
    assert (stored['target'], stored['confidence']) == (.7, .8)


def test_columns_of_the_table_may_be_no_classes(folder, tmp_path, capsys):
    lines = (folder / 'scenes/labels.csv').read_text().splitlines()
    table = tmp_path / 'noted.csv'
    table.write_text('\n'.join(f'{line},{"note" if not n else "by Anna"}'
                               for n, line in enumerate(lines)))
    found = []
    for data, more in ((folder / 'scenes/labels.csv', []),
                       (table, ['--ignore-columns', 'note'])):
        out = tmp_path / f'{data.stem}.pth'
        command.main([str(folder / 'model.pth'), str(data), '--images',
                      str(folder / 'scenes/images'), *more, '--out',
                      str(out)])
        found.append(load_model(out).meta['calibration'])
    for entry in ('thresholds', 'probabilities', 'positives', 'negatives'):
        assert found[0][entry] == found[1][entry]


def test_the_command_warns(folder, tmp_path, capsys):
    """Of labels that were drawn by their value, and of training images."""
    with open(folder / 'scenes/labels.csv', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    for row in rows:  # negatives of one class are never known
        row[1] = '1' if row[1] == '1' else ''
        row[2:] = [cell or '0' for cell in row[2:]]
    # Positives of that class on many images.
    for row in rows[:12]:
        row[1] = '1'
    with open(tmp_path / 'labels.csv', 'w', encoding='utf-8') as file:
        csv.writer(file).writerows([header, *rows])
    command.main([str(folder / 'model.pth'), str(tmp_path / 'labels.csv'),
                  '--images', str(folder / 'scenes/images'), '--recall', '.7',
                  '--out', str(tmp_path / 'out.pth')])
    printed = capsys.readouterr().out
    assert '1 of 30 classes have known positives and no known negative: ' \
        'checkered heart.' in printed
    assert 'The guarantee does not hold.' in printed
    command.main([str(folder / 'model.pth'), SCENES, '--split', 'train',
                  '--cfg-options',
                  'train_dataloader.dataset.dataset.num_images=60',
                  'train_dataloader.dataset.known=0.9',
                  '--out', str(tmp_path / 'out.pth')])
    printed = capsys.readouterr().out
    assert 'The model was trained on these images' in printed
    assert 'Thresholds and probabilities may be wrong.' in printed


@pytest.mark.parametrize('arguments,sentence', [
    (['labels.csv'], 'labels.csv needs --images, the folder that its paths '
     'start from.'),
    (['labels.csv', '--images', 'x', '--known', '.3'],
     '--known changes a config, and labels.csv is a table: leave it out.'),
    (['labels.csv', '--images', 'x', '--cfg-options', 'epochs=3'],
     '--cfg-options changes a config, and labels.csv is a table: leave it '
     'out.'),
    ([SCENES, '--images', 'x'], f'--images belongs to a CSV file, and '
     f'{SCENES} is none: leave it out.'),
    ([SCENES, '--known', 'single_positive', '--cfg-options',
      'val_dataloader.dataset.num_images=20'],
     'No negative label is known: thresholds and probabilities need known '
     'positives and known negatives.'),
    ([SCENES, '--precision', '95'],
     '--precision must be above 0 and below 1, got 95.0.'),
    ([SCENES, '--recall', '.9', '--confidence', '1'],
     '--confidence must be above 0 and below 1, got 1.0.'),
    (['labels.csv', '--images', 'nowhere'],
     'CSV file labels.csv does not exist; correct its path.'),
])
def test_mistakes_end_the_command_with_a_sentence(folder, tmp_path, capsys,
                                                  arguments, sentence):
    with pytest.raises(SystemExit) as end:
        command.main([str(folder / 'model.pth'), *arguments,
                      '--out', str(tmp_path / 'out.pth')])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(f'{sentence}\n')
    assert not (tmp_path / 'out.pth').exists()


def test_zero_shot_scores_are_calibrated_too(loaded, found):
    """Cosines are no logits at all: their spread is far below 1."""
    head = ZeroShotHead()
    model = loaded.model
    data = build_dataset(load_config(SCENES, {
        'val_dataloader.dataset.num_images': 200}), 'val')
    samples = [data[i] for i in range(200)]
    batch = model.data_preprocessor(dict(
        inputs=torch.stack([s['inputs'] for s in samples]),
        data_samples=[s['data_samples'] for s in samples]))
    with torch.no_grad():
        predicted = head.predict(model.backbone(batch['inputs'], pooled=True),
                                 batch['data_samples'])
    cosines = torch.stack([s.pred_logit for s in predicted]).numpy()
    labels = torch.stack([s.gt_score for s in predicted]).numpy()
    calibration = calibrate_logits(cosines, labels,
                                   loaded.description.classes)
    assert calibration.error_after < .02 < .2 < calibration.error_before
    f1 = precision_recall(torch.from_numpy(calibration.predict(cosines)),
                          torch.from_numpy(labels)).OF1
    everything = 2 / (1 + 1 / (labels == PRESENT).mean())  # all predicted
    assert f1 > everything + .1
