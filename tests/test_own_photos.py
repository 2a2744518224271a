"""docs/own_photos.md, done as it says: each command, and what it prints."""
import re
import shlex
import sys

import pytest
from mmengine.logging import MMLogger
from tests_support import ROOT

from trm_ml_mm.cli import main, next_command

PAGE = ROOT / 'docs/own_photos.md'


def words(text):
    """A text without what may differ: digits, units, frames and widths."""
    text = re.sub(r'\d+(\.\d+)?( m?s\b|%)?', '#', text)
    return ' '.join(re.sub(r'[\u2500-\u257f]', ' ', text).split())


def steps():
    """(Commands, lines of the output after them) in the order of the page."""
    found = []
    for kind, text in re.findall('```(bash|text)\n(.*?)```',
                                 PAGE.read_text(encoding='utf-8'), re.S):
        if kind == 'bash':
            found.append((text.splitlines(), []))
        else:
            found[-1][1].extend(text.splitlines())
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    page = PAGE.read_text(encoding='utf-8')
    config, = re.findall('```python\n(.*?)```', page, re.S)
    (tmp_path / 'photos.py').write_text(config, encoding='utf-8')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '80')
    monkeypatch.setattr(next_command, 'COMMAND_NAMES', {})
    yield tmp_path
    MMLogger._instance_dict.clear()


def test_the_whole_way(folder, monkeypatch, capfd):
    """One test, so that the page is followed once."""
    for commands, expected in steps():
        shown = ''
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == 'trm-ml'
            monkeypatch.setattr(sys, 'argv', [program, *arguments])
            try:
                main.main()
            except SystemExit as end:
                assert not end.code, (command, capfd.readouterr())
            shown += ''.join(capfd.readouterr())
            MMLogger._instance_dict.clear()
        shown = words(shown.replace(f'{folder}/', ''))
        for line in expected:
            if line != '...':
                assert words(line) in shown, f'{commands}: {line}\n{shown}'
    for name in ('photos', 'cached', 'more'):
        assert list((folder / 'work_dirs' / name).glob('epoch_*.pth'))
