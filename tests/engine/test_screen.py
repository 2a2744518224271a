"""What a training shows: what matters; the log file has everything."""
import logging
import re
import runpy
import sys

import pytest
from mmengine.logging import MMLogger
from tests_support import ROOT, SMALL

from trm_ml_mm.datasets import Scenes, label_matrix
from trm_ml_mm.engine.hooks import ScreenHook
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.evaluation.per_class import class_list_hash
from trm_ml_mm.evaluation.run_record import LAST
from trm_ml_mm.labels import PRESENT, scene_classes
from trm_ml_mm.utils.screen import Screen, say, short_screen


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """A tool in this process; what it printed."""
    monkeypatch.chdir(tmp_path)
    yield lambda tool, *arguments: run(monkeypatch, capsys, tool, arguments)
    MMLogger._instance_dict.clear()


def run(monkeypatch, capsys, tool, arguments):
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    runpy.run_path(str(ROOT / f'tools/{tool}.py'), run_name='__main__')
    return ''.join(capsys.readouterr())


def small(*more):
    options = {**SMALL, 'train_cfg.max_epochs': 3}
    return [ROOT / 'configs/trm_ml_scenes.py', '--work-dir', 'run', *more,
            '--cfg-options', *(f'{k}={v}' for k, v in options.items())]


def log_of(folder):
    path, = folder.glob('run/*/*.log')
    return path.read_text(encoding='utf-8')


def test_a_training_in_forty_lines(call, tmp_path):
    shown = call('train', *small())
    lines = shown.splitlines()
    assert len(lines) <= 40, shown
    data, model = lines[1:3]  # after a warning on classes
    assert data.startswith('Data: 48 images to train on, 30 classes; 142 of '
                           '1440 labels known (9.9%), ')
    assert '24 images to validate on' in data
    assert model.startswith('Model: CLIP mini, frozen; Text')
    path = tmp_path / re.search(r'Log.*: (\S+\.log)', shown)[1]
    assert path.is_file()
    epochs = [line for line in lines if line.startswith('Epoch ')]
    assert [line.split('  ')[0] for line in epochs] == [
        'Epoch 1/3', 'Epoch 2/3', 'Epoch 3/3']
    figures = read_record(tmp_path / 'run').validation
    for name in ('mAP', 'CF1', 'OF1'):
        assert f'{name} {figures[name]:.2f}' in epochs[-1]
    assert re.search(r'pseudo \+\d+% \(\d+% right\), -\d+% \([\d.]+% right\)',
                     epochs[-1])
    assert f'{read_record(tmp_path / "run").row(LAST).metrics["mAP"]:.2f}' in (
        shown.split('last epoch')[1])
    log = log_of(tmp_path)
    for text in ('System environment', 'custom_hooks', 'Epoch(train)',
                 'multi-label/CP_top3', *epochs):
        assert text in log and (text in epochs or text not in shown)
    assert 'epoch_3.pth' in lines[-1] and str(tmp_path) not in shown


def test_a_mean_over_few_classes_is_called_so(call, tmp_path):
    shown = call('train', *small(), 'val_dataloader.dataset.num_images=2',
                 'test_dataloader.dataset.num_images=2')
    positives = {}
    for split in ('val', 'test'):
        labels = label_matrix(Scenes(split, 2, pipeline=[]))
        positives[split] = int((labels == PRESENT).any(0).sum())
    assert 0 < min(positives.values()) and max(positives.values()) < 30
    said = f'mAP is the mean of {positives["val"]} of 30 classes'
    assert shown.count(said) == 1
    of = f'{positives["test"]} of 30 classes'
    assert f'Test set, 2 images, {of}' in shown
    # Each row, and a test of the checkpoint, name the classes by a hash.
    found = {(row.scored, row.class_list) for row in
             read_record(tmp_path / 'run').rows}
    names = [name for name, labels in zip(
        scene_classes(), (labels == PRESENT).any(0)) if labels]
    assert found == {(len(names), class_list_hash(names))}
    shown = call('test', *small()[:1], 'run/epoch_3.pth', *small()[1:],
                 'test_dataloader.dataset.num_images=2')
    assert f'(mAP of {of} (list {class_list_hash(names)}))' in shown


def test_everything_with_verbose(call, tmp_path):
    shown = call('train', *small('--verbose', '--no-validate'))
    for text in ('System environment', 'custom_hooks', 'Epoch(train)',
                 'INFO - This training'):
        assert text in shown
    assert not re.search('^Epoch 1/3', shown, re.M)


def test_a_bar_where_there_is_a_terminal(call, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')
    monkeypatch.setenv('COLUMNS', '100')
    # MMEngine warns of two runs of one name within a second, in a long line.
    shown = call('train', *small('--no-validate'), 'experiment_name=bar')
    assert 'Epoch 1/3' in shown and '━' in shown and '\x1b[2K' in shown
    assert re.search(r'loss \d\.\d{3}', shown)
    plain = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '\n', shown)
    assert max(map(len, re.split(r'[\r\n]', plain))) <= 100
    flat = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', shown)
    assert re.search('┃ method .*┃ +OF1 ┃', flat)
    assert not Screen.current


def test_an_error_gives_the_terminal_back(monkeypatch, capsys):
    monkeypatch.setenv('FORCE_COLOR', '1')
    with pytest.raises(RuntimeError), short_screen():
        hook = ScreenHook()
        hook._open('Training', 10, 0)
        raise RuntimeError
    shown = capsys.readouterr().out
    assert shown.rindex('\x1b[?25h') > shown.rindex('\x1b[?25l')  # the cursor


def test_a_test_shows_its_table(call, tmp_path):
    call('train', *small())
    shown = call('test', *small()[:1], 'run/epoch_3.pth', *small()[1:])
    lines = shown.splitlines()
    assert lines[0].startswith('Test on 24 images. Log')
    assert len(lines) < 15 and 'Epoch(test)' not in shown
    row = read_record(tmp_path / 'run').row(LAST)
    assert f'{row.metrics["mAP"]:.2f}' in shown


def test_warnings_are_shown_and_noise_is_not(capsys):
    logger = MMLogger.get_current_instance()
    before = list(logger.handlers)
    with short_screen():
        Screen.current.replace_stream(logger)
        say('for people')
        logger.info('for the file')
        logger.warning('something [is] wrong')
        logger.warning('"FileClient" will be deprecated in future.')
    assert ''.join(capsys.readouterr()) == (
        'for people\nWarning: something [is] wrong\n')
    assert logger.handlers == before
    assert all(type(h) is not Screen for h in logger.handlers)
    assert logging.getLogger().handlers is not before
