"""A disk that is full, or a place that cannot be written to, is one sentence,
whatever a command writes; and what was there before stays."""
import errno
import shutil

import pytest
from tests_support import build_small, trm_ml

from trm_ml_mm.utils import io

TABLE = 'scenes/labels.csv', '--images', 'scenes/images'
COMMANDS = {
    'predict --json': ('predict', 'scenes/images', '--checkpoint', 'a.pth',
                       '--json', 'OUT'),
    'predict --csv': ('predict', 'scenes/images', '--checkpoint', 'a.pth',
                      '--csv', 'OUT'),
    'calibrate': ('calibrate', 'a.pth', *TABLE, '--out', 'OUT'),
    'fill': ('fill', *TABLE, '--checkpoint', 'a.pth', '--unseen', '--out',
             'OUT'),
    'import': ('fill', 'scenes/labels.csv', '--import', 'answers.json',
               '--out', 'OUT'),
    'export': ('export', 'a.pth', '--format', 'torchscript', '--rounds', '0',
               '--out', 'OUT'),
    'publish': ('publish', 'a.pth', '--out', 'OUT'),
    'split': ('split', *TABLE, '--out', 'OUT'),
}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp('place')
    build_small(folder, {'train_cfg.max_epochs': 1}).train()
    shutil.copy(folder / 'run/epoch_1.pth', folder / 'a.pth')
    (folder / 'answers.json').write_text('[]')
    trm_ml(['make-scenes', '--images', '24', '--out', str(folder / 'scenes')])
    return folder


@pytest.mark.parametrize('name', COMMANDS)
def test_a_full_disk(place, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(place)
    monkeypatch.setattr(io.os, 'fsync', full)
    out = tmp_path / 'out.pth'
    code = trm_ml([str(out) if a == 'OUT' else a for a in COMMANDS[name]])
    error = capsys.readouterr().err
    assert code == 2 and 'disk is full' in error, error
    assert 'Traceback' not in error
    left = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert left == []


def full(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('name', COMMANDS)
def test_a_place_that_cannot_be_written_to(place, tmp_path, monkeypatch,
                                           capsys, name):
    """Below a file; the rights of a folder mean nothing to root."""
    monkeypatch.chdir(place)
    (tmp_path / 'file').write_text('mine')
    out = tmp_path / 'file/out.pth'
    code = trm_ml([str(out) if a == 'OUT' else a for a in COMMANDS[name]])
    error = capsys.readouterr().err
    assert code == 2 and str(tmp_path / 'file') in error, error
    assert 'Traceback' not in error
    assert (tmp_path / 'file').read_text() == 'mine'
