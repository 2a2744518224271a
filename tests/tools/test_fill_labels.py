"""tools/fill_labels.py on a table as a user has it."""
import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests_support import ROOT, build_small

from trm_ml_mm.annotation import safe_name
from trm_ml_mm.cli import fill_labels, make_scenes
from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    TableColumns,
    read_table,
    scene_classes,
    write_table,
)

CLASSES = scene_classes(0)
IMAGES = 40
NOTED = TableColumns(ignored=('note', ))
QUICK = ['--folds', '2', '--cfg-options', 'epochs=1',
         'train_dataloader.batch_size=8']
SURE = ['--precision', '0.7', '0.9']


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    """Images, a checkpoint, and a table whose columns are in another order,
    with one that is no class."""
    folder = tmp_path_factory.mktemp('own')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', [
            'make_scenes', '--out', str(folder / 'data'), '--images',
            str(IMAGES), '--known', '0.5'])
        make_scenes.main()
    build_small(folder, {
        'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.dataset.num_images': 16,
        'val_dataloader.dataset.num_images': 4, 'test_dataloader': None,
        'test_evaluator': None, 'test_cfg': None}).train()
    table = read_table(folder / 'data/labels.csv', CLASSES)
    header = ['note', *reversed(CLASSES), 'image']
    write_table(folder / 'table.csv', replace(
        table, header=header, columns=NOTED,
        extra=dict(note=[f'"{i}", kept' for i in range(IMAGES)])))
    return folder


@pytest.fixture
def run(own, capsys, monkeypatch):
    """The command in this process: what it said."""
    def run(*options, table='table.csv', code=0, images=True,
            checkpoint=True):
        arguments = [str(own / table) if '.' in table else table]
        if images:
            arguments += ['--images', str(own / 'data/images')]
        if checkpoint:
            arguments += ['--checkpoint', str(own / 'run/epoch_1.pth')]
        monkeypatch.setenv('COLUMNS', '100')
        monkeypatch.chdir(own)
        capsys.readouterr()
        try:
            fill_labels.main([*arguments, *map(str, options)])
            status = 0
        except SystemExit as end:
            status = end.code
        out = capsys.readouterr()
        assert status == code, out
        return out.err if code else out.out
    return run


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def test_a_table_is_filled_in_and_asked_about(own, run):
    said = run('--out', 'filled.csv', '--ignore-columns', 'note', *SURE,
               *QUICK, '--features', 'features', '--ask', 30, '--suspicious',
               5, '--export', 'labelstudio', 'tasks.json')
    before = read_table(own / 'table.csv', CLASSES, NOTED)
    assert 'Epoch ' not in said  # of the models that judge
    after = read_table(own / 'filled.csv', CLASSES, NOTED)
    known = before.labels != UNKNOWN
    assert np.array_equal(after.labels[known], before.labels[known])
    assert (after.labels[~known] != UNKNOWN).mean() > .3
    assert (after.header, after.images, after.extra) == (
        before.header, before.images, before.extra)
    assert (own / 'filled.csv').read_text().splitlines()[0] == (
        own / 'table.csv').read_text().splitlines()[0]

    chances = pd.read_csv(own / 'filled_probabilities.csv', index_col='image')
    assert list(chances.columns) == list(CLASSES)
    assert chances.index.tolist() == before.images
    assert chances.to_numpy().min() >= 0 and chances.to_numpy().max() <= 1
    new = ~known & (after.labels != UNKNOWN)
    likely = np.where(chances > .5, PRESENT, ABSENT)
    assert np.array_equal(after.labels[new], likely[new])

    asked = rows_of(own / 'filled_questions.csv')
    assert len(asked) == 30
    place = {name: i for i, name in enumerate(before.images)}
    for row in asked:
        i, c = place[row['image']], CLASSES.index(row['class'])
        assert before.labels[i, c] == UNKNOWN and row['label'] == ''
        assert float(row['probability']) == chances.iloc[i, c]
    for row in rows_of(own / 'filled_suspicious.csv'):
        i, c = place[row['image']], CLASSES.index(row['class'])
        assert row['label'] == str(before.labels[i, c])
    tasks = json.loads((own / 'tasks.json').read_text())
    questions = sum(len(task['predictions'][0]['result'][0]['value'][
        'choices']) for task in tasks)
    assert 30 <= questions <= 35
    count = int(new.sum())
    assert f'{count} of {int((~known).sum())} unknown labels' in said
    assert f'{int(known.sum())} known labels of the table' in said
    for name in ('filled.csv', 'filled_probabilities.csv', 'tasks.json',
                 'tasks_config.xml', 'filled_questions.csv'):
        assert f'Written: {name}' in said


def test_further_labels_sharpen_the_thresholds(own, run):
    shutil.copy(own / 'data/labels.csv', own / 'val.csv')
    said = run('--out', 'filled2.csv', '--ignore-columns', 'note', *SURE,
               '--unseen', '--calibrate-on', 'table.csv', '--tta')
    known = (read_table(own / 'table.csv', CLASSES, NOTED).labels
             != UNKNOWN).sum()
    assert (f'Thresholds are from {known} known labels of the table and '
            f'{known} known labels of the validation set') in said


def test_lists_of_classes_keep_their_form(own, run):
    table = read_table(own / 'data/labels.csv', CLASSES)
    write_table(own / 'lists.csv', replace(
        table, header=['image', 'negative', 'positive']))
    run('--out', 'lists_filled.csv', '--unseen', *SURE, table='lists.csv')
    after = read_table(own / 'lists_filled.csv', CLASSES)
    assert after.header == ['image', 'negative', 'positive']
    known = table.labels != UNKNOWN
    assert np.array_equal(after.labels[known], table.labels[known])
    assert (after.labels[~known] != UNKNOWN).any()


def test_an_image_that_cannot_be_read_is_named_and_stays(own, run):
    table = read_table(own / 'data/labels.csv', CLASSES)
    broken = replace(table, images=['gone.png', *table.images[1:]], lines=None)
    write_table(own / 'broken.csv', broken)
    for options in (['--unseen'], [*QUICK, '--seed', '1']):
        said = run('--out', 'broken_filled.csv', *options, *SURE,
                   table='broken.csv')
        assert 'gone.png cannot be read: its labels stay' in said
        after = read_table(own / 'broken_filled.csv', CLASSES)
        assert np.array_equal(after.labels[0], table.labels[0])
        assert (after.labels[1:] != table.labels[1:]).any()
        chances = pd.read_csv(own / 'broken_filled_probabilities.csv',
                              index_col='image')
        assert chances.iloc[0].isna().all() and not chances.iloc[1:].isna(
            ).any(axis=None)


def test_the_training_set_of_a_config_is_a_table_too(own, run):
    said = run('--out', 'scenes.csv', '--unseen', *SURE, '--cfg-options',
               'train_dataloader.dataset.dataset.num_images=12',
               'val_dataloader.dataset.num_images=12',
               'train_dataloader.dataset.known=0.5', table='trm_ml_scenes',
               images=False)
    after = read_table(own / 'scenes.csv', CLASSES)
    assert after.images == [f'{i}.png' for i in range(12)]
    assert 'and 360 known labels of the validation set' in said


def test_a_table_without_a_blank_is_left_as_it_is(own, run):
    table = read_table(own / 'data/labels.csv', CLASSES)
    full = replace(table, labels=np.where(table.labels == UNKNOWN, ABSENT,
                                          table.labels))
    write_table(own / 'full.csv', full)
    said = run('--out', 'full_filled.csv', '--unseen', '--ask', 3,
               table='full.csv')
    assert 'Every label is known: there is nothing to fill in.' in said
    assert (own / 'full.csv').read_text() == (
        own / 'full_filled.csv').read_text()
    assert rows_of(own / 'full_filled_questions.csv') == []


def test_positives_alone_are_no_random_sample_and_it_is_said(own, run):
    table = read_table(own / 'data/labels.csv', CLASSES)
    tags = np.where(table.labels == PRESENT, PRESENT, UNKNOWN)
    tags[:2] = np.where(table.labels[:2] == ABSENT, ABSENT, tags[:2])
    write_table(own / 'tags.csv', replace(table, labels=tags))
    said = run('--out', 'tags_filled.csv', '--unseen', *SURE,
               table='tags.csv')
    assert 'do not look like a random sample' in said
    assert '--calibrate-on' in said


def test_what_cannot_be_shown_is_not_filled_in(own, run):
    said = run('--out', 'few.csv', '--unseen', '--ignore-columns', 'note',
               '--precision', .999, '--guarantee', .9)
    assert 'No label is filled in as present: known labels are too few' in said


def test_answers_come_back_into_the_table(own, run):
    table = read_table(own / 'table.csv', CLASSES, NOTED)
    row, column = np.argwhere(table.labels == UNKNOWN)[5]
    entry = dict(
        data=dict(table_image=table.images[row]), annotations=[dict(
            was_cancelled=False, result=[dict(
                from_name=f'class_{safe_name(CLASSES[column])}',
                to_name='image', type='choices',
                value=dict(choices=['present']))])])
    (own / 'answers.json').write_text(json.dumps([entry]))
    said = run('--import', 'answers.json', '--out', 'table2.csv',
               '--ignore-columns', 'note', checkpoint=False, images=False)
    assert said.startswith('1 labels filled in, 0 confirmed')
    after = read_table(own / 'table2.csv', CLASSES, NOTED)
    changed = np.argwhere(after.labels != table.labels).tolist()
    assert changed == [[row, column]]
    assert after.labels[row, column] == PRESENT
    assert (after.header, after.extra) == (table.header, table.extra)


UNSEEN = ['--unseen', '--ignore-columns', 'note']


@pytest.mark.parametrize('options,where,sentence', [
    (['--out', 'o.csv'], dict(checkpoint=False), 'Give the --checkpoint'),
    (['--out', 'o.csv'], dict(images=False), 'give --images'),
    (['--out', 'table.csv'], {}, 'is the table itself'),
    (['--out', 'no/o.csv'], {}, 'The folder no does not exist'),
    (['--out', 'o.csv', '--precision', '.9', '.9', '.9'], {}, 'takes one '
     'number, or two'),
    (['--out', 'o.csv', '--precision', '95'], {}, 'must lie between 0 and 1'),
    (['--out', 'o.csv', '--guarantee', '1'], {}, 'must lie between 0 and 1'),
    (['--out', 'o.csv', '--ask', '0'], {}, '--ask must be a positive'),
    (['--out', 'o.csv', '--export', 'cvat', 't.xml'], {}, 'give --ask N'),
    (['--out', 'o.csv', '--ask', '3', '--export', 'paper', 't.xml'], {},
     "must be 'labelstudio' or 'cvat'"),
    (['--out', 'o.csv', '--unseen'], {}, '"note" is a column of the file but '
     'not among classes'),
    (['--out', 'o.csv', *UNSEEN], dict(table='less.csv'), f'"{CLASSES[3]}" is '
     'among classes but no column'),
    (['--out', 'o.csv', *UNSEEN], dict(table='gone.csv'), 'gone.csv does not '
     'exist'),
    (['--out', 'o.csv', *UNSEEN, '--images', 'nowhere'], {}, 'Image folder'),
    (['--out', 'o.csv', *UNSEEN, '--images', 'run'], {}, 'No image of the '
     'table can be read'),
    (['--out', 'o.csv', '--ignore-columns', 'note', '--folds', '41'], {},
     '40 images cannot be dealt out to 41 folds'),
    (['--out', 'o.csv', *UNSEEN], dict(table='empty.csv'), 'No positive label '
     'is known'),
    (['--out', 'o.csv', *UNSEEN, '--cfg-options', 'scene_set=1'],
     dict(table='trm_ml_scenes', images=False), 'has other classes than the '
     'model'),
    (['--out', 'o.csv', '--import', 'answers.txt'], {}, 'give an export of '
     'Label Studio'),
    (['--out', 'o.csv', '--import', 'gone.json', *UNSEEN], {},
     'gone.json does not exist'),
])
def test_bad_input_ends_in_a_sentence(own, run, options, where, sentence):
    table = read_table(own / 'data/labels.csv', CLASSES)
    write_table(own / 'less.csv', replace(
        table, classes=[*CLASSES[:3], *CLASSES[4:]], header=None,
        labels=np.delete(table.labels, 3, 1)))
    write_table(own / 'empty.csv', replace(
        table, labels=np.full_like(table.labels, UNKNOWN)))
    said = run(*options, code=2, **where)
    assert sentence in said and len(said.splitlines()) == 1
    assert not (own / 'o.csv').exists()


def test_the_strategies_are_those_of_the_package():
    from trm_ml_mm.annotation import FORMATS
    from trm_ml_mm.evaluation import STRATEGIES
    assert list(fill_labels.STRATEGIES) == list(STRATEGIES)
    assert set(fill_labels.TOOLS) == set(FORMATS)
    assert (ROOT / 'tools/fill_labels.py').is_file()
