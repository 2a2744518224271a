"""tools/inspect_data.py judges what a config trains and tests on."""
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from tests_support import ROOT

from trm_ml_mm.cli import inspect_data
from trm_ml_mm.datasets.inspection import (
    image_problem,
    judge_labels,
    kind_of,
    shared_images,
    unnamed_images,
)
from trm_ml_mm.labels import summarize_labels

CONFIG = str(ROOT / 'configs/trm_ml_csv.py')
TEST = 'test_dataloader.dataset.ann_file=test.csv'


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Three tables with nothing to mend."""
    monkeypatch.setenv('COLUMNS', '200')
    for split, names in (('train', 'abc'), ('val', 'de'), ('test', 'fg')):
        for name in names:
            picture = np.full((20, 30, 3), ord(name), np.uint8)
            (tmp_path / 'images').mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / f'images/{name}.png'), picture)
        rows = [f'{name}.png,{i % 2},{1 - i % 2}\n'
                for i, name in enumerate(names)]
        (tmp_path / f'{split}.csv').write_text('image,dog,cat\n'
                                               + ''.join(rows))
    return tmp_path


def inspect(root, capsys, *options, arguments=(), code=0):
    try:
        inspect_data.main.__wrapped__([
            CONFIG, '--out', str(root / 'out'), *arguments, '--cfg-options',
            f'data_root={root}', *options])
        found = 0
    except SystemExit as end:
        found = end.code
    out = capsys.readouterr().out
    assert found == code, out
    return out


def said(out, level):
    return [line.removeprefix(f'{level}: ') for line in out.splitlines()
            if line.startswith(f'{level}: ')]


def test_good_tables_are_fine_and_the_next_command_is_whole(own, capsys):
    out = inspect(own, capsys, TEST, 'model.backbone.prompt.context=a photo')
    assert not said(out, 'Error') + said(out, 'Warning') + said(out, 'Note')
    assert out.splitlines()[-1] == (
        f'Nothing to mend. Train: python tools/train.py {CONFIG} '
        f"--cfg-options data_root={own} {TEST} "
        f"'model.backbone.prompt.context=a photo'")
    for split in ('train', 'val', 'test'):
        assert (own / f'out/samples_{split}.png').is_file()


def test_one_value_in_another_split_than_the_training_is_fine(own, capsys):
    (own / 'val.csv').write_text('image,dog,cat\nd.png,0,1\ne.png,0,0\n')
    out = inspect(own, capsys, TEST)
    assert 'same value in every row' not in out
    (own / 'train.csv').write_text('image,dog,cat\na.png,0,1\nb.png,0,0\n'
                                   'c.png,0,1\n')
    out = inspect(own, capsys, TEST, code=1)
    assert '"dog"' in next(line for line in said(out, 'Warning')
                           if 'same value in every row' in line)


def test_one_split_alone(own, capsys):
    out = inspect(own, capsys, arguments=['--split', 'val', '--no-decode'])
    assert not (own / 'out/samples_train.png').exists()
    assert (own / 'out/samples_val.png').is_file()
    assert 'unreadable' not in out and 'test set' not in out


def test_validation_that_is_the_test_says_so(own, capsys):
    out = inspect(own, capsys)
    note = said(out, 'Note')
    assert note[0].startswith('The test set is the validation set')
    assert f'{own}/test.csv is there: {TEST} tests on it' in note[0]
    assert note[1] == f'2 images in {own}/images are in no table: f.png, g.png'
    (own / 'test.csv').unlink()
    assert 'is there' not in said(inspect(own, capsys), 'Note')[0]


def test_every_table_is_judged_at_once(own, capsys):
    """Missing images, stray columns and a missing table, in one run."""
    (own / 'train.csv').write_text(
        'image,dog,cat,id,remark,place,checked\n' + ''.join(
            f'{name}.png,{i % 2},,{17 + i},text {i},north,1\n'
            for i, name in enumerate('abc')))
    (own / 'val.csv').write_text('image,dog,cat\nx.png,1,0\nd.png,0,1\n'
                                 'y.png,,\n')
    (own / 'test.csv').unlink()
    out = inspect(own, capsys, TEST, code=1)
    errors = said(out, 'Error')
    assert len(errors) == 3
    assert errors[0] == (
        f'train: {own}/train.csv has columns that are no labels: "id" '
        '(numbers, different in nearly every row, such as "17"), "remark" '
        '(text, different in nearly every row, such as "text 0"), "place" '
        '(text, 1 values, such as "north"). If they are no classes: '
        'ignore_columns=id,remark,place')
    assert errors[1].startswith(f'val: 2 of 3 images of {own}/val.csv are not '
                                f'in {own}/images: x.png, y.png')
    assert 'test.csv does not exist' in errors[2]
    assert said(out, 'Warning') == [
        f'train: {own}/train.csv has columns with the same value in every '
        'row: "checked". If they are no classes: '
        'ignore_columns=id,remark,place,checked']
    assert 'Nothing to mend' not in out
    # The advice works.
    out = inspect(own, capsys, 'ignore_columns=id,remark,place,checked',
                  arguments=['--split', 'train'], code=1)
    assert said(out, 'Warning') == ['train: 1 of 2 classes have no known label '
                                    'at all, so nothing is learned about '
                                    'them: "cat"']


def test_a_slip_in_a_column_is_no_stray_column(own, capsys):
    (own / 'train.csv').write_text('image,dog,cat\na.png,1,0\nb.png,yes,\n'
                                   'c.png,0,1\n')
    out = inspect(own, capsys, TEST, code=1)
    assert said(out, 'Error') == [
        f'train: {own}/train.csv line 3, column "dog" has the value "yes"; '
        'labels are 1 (present), 0 (absent) or blank (unknown).']


def judged(labels, classes, training):
    return judge_labels(summarize_labels(labels), classes, training)


def test_labels_are_judged_for_their_use():
    labels = np.array([[1, 0, 1, -1, 0], [0, 0, -1, -1, 1]])
    classes = ['good', 'no positive', 'no negative', 'nothing', 'good too']
    found = judged(labels, classes, True)
    assert [(level, text.split(': ')[1]) for level, text in found] == [
        ('Warning', '"nothing"'), ('Warning', '"no positive"'),
        ('Note', '"no negative"')]
    found = judged(labels, classes, False)
    assert [(level, text.split(': ')[1]) for level, text in found] == [
        ('Note', '"no positive", "nothing"'), ('Note', '"no negative"')]
    assert judged(labels[:, :1], ['a'], True) == []
    assert 'there is no mAP' in judged(labels[:, 1:2], ['a'], False)[0][1]
    many = judged(np.full((2, 9), -1), list('abcdefghi'), True)
    assert many[0].text.endswith('"a", "b", "c", "d", "e" and 4 more')


def test_images_of_two_splits_are_found(own, capsys):
    shutil.copy(own / 'images/a.png', own / 'images/d.png')
    out = inspect(own, capsys, TEST, code=1)
    assert said(out, 'Warning') == [
        '1 images of val are in train too, so figures of val are too good: '
        'a.png = d.png']
    (own / 'images/x.png').write_bytes(
        b'0' * (own / 'images/a.png').stat().st_size)  # only as large
    paths = {'train': [str(own / 'images/a.png'), str(own / 'gone.png')],
             'val': [str(own / 'images/x.png')],
             'test': [str(own / 'images/a.png')]}
    assert list(shared_images(paths)) == [('train', 'test')]


def test_unnamed_images_are_those_of_no_table(tmp_path):
    for name in ('a.jpg', 'b.PNG', 'c.txt', 'sub/d.webp'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert unnamed_images(str(tmp_path), [f'{tmp_path}/./a.jpg']) == [
        str(tmp_path / 'b.PNG'), str(tmp_path / 'sub/d.webp')]


def test_the_decoder_of_the_training_decides(own, capsys, tmp_path):
    path = own / 'images/a.png'
    Image.fromarray(cv2.imread(str(path))).save(path, 'PCX')
    assert cv2.imread(str(path)) is None  # Pillow alone reads this format
    out = inspect(own, capsys, TEST, code=1)
    assert 'although Pillow can: save it as JPEG or PNG' in out
    out = inspect(own, capsys, TEST, 'train_dataloader.dataset.dataset'
                  '.pipeline.0.imdecode_backend=pillow')
    assert not said(out, 'Error')
    assert image_problem(str(path), lambda path: True) is None
    assert 'Pillow can' in image_problem(str(path), lambda path: False)


@pytest.mark.parametrize('cells, what', [
    (['1.5', '1.5', '2'], 'numbers, 2 values, such as "1.5"'),
    (['a', 'b', 'c'], 'text, different in nearly every row, such as "a"'),
    (['7', 'x', 'x', 'x'], 'text, 2 values, such as "7"'),
])
def test_what_a_column_seems_to_be(cells, what):
    assert kind_of(cells) == what
