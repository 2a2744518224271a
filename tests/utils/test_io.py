"""Files are whole or not there."""
import os

import pytest

from trm_ml_mm.utils.io import atomic_write, read_json, write_text


def test_a_failed_write_leaves_the_old_content_and_no_other_file(tmp_path):
    path = tmp_path / 'a.txt'
    write_text(path, 'old')
    with pytest.raises(RuntimeError):
        with atomic_write(path) as fresh:
            fresh.write_text('half')
            raise RuntimeError
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']
    write_text(path, 'new')
    assert path.read_text() == 'new'
    assert os.listdir(tmp_path) == ['a.txt']


def test_content_is_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    calls = []
    real = os.fsync, os.replace

    def fsync(descriptor):
        calls.append('sync')
        return real[0](descriptor)

    def replace(source, target):
        calls.append('rename')
        return real[1](source, target)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', replace)
    write_text(tmp_path / 'a.txt', 'content')
    assert calls[:2] == ['sync', 'rename']


def test_what_a_json_file_drops_is_gone_everywhere(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('{"a": [{"x": 1, "b": {"x": [2]}}], "x": 3}')
    assert read_json(path, 'file', drop=('x', 'y')) == {'a': [{'b': {}}]}
    assert read_json(path, 'file')['x'] == 3
