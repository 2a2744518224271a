import json

import pytest

from trm_ml_mm.evaluation.run_record import (
    BEST,
    FILE,
    KINDS,
    LAST,
    ZERO_SHOT_DENSE,
    ResultRow,
    RunRecord,
    read_record,
    title,
    write_record,
)

RECORD = RunRecord(
    head='Head', config='c.py', seed=3,
    known_labels=dict(known=.1, seed=None, hash='ab', labels='cd'),
    versions=dict(torch='2'), code='1234567', validation=dict(mAP=1.5),
    rows=[ResultRow(ZERO_SHOT_DENSE, dict(mAP=2.25)),
          ResultRow(LAST, dict(mAP=3.5, CF1=None), unit='epoch', number=9),
          ResultRow(BEST, dict(mAP=4.5), unit='epoch', number=2,
                    picked_on='test')])


def test_what_is_written_is_read(tmp_path):
    assert read_record(tmp_path) is None
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path) == RECORD
    assert RECORD.row(LAST).metrics['mAP'] == 3.5
    assert RECORD.row('zero_shot_global') is None


def test_a_record_without_the_later_entries_is_read(tmp_path):
    write_record(tmp_path, RECORD._replace(
        command="trm-ml train 'a b.py'", training_labels=dict(present=1)))
    content = json.loads((tmp_path / FILE).read_text())
    assert content['command'] == "trm-ml train 'a b.py'"
    for name in ('command', 'training_labels'):
        content.pop(name)
    (tmp_path / FILE).write_text(json.dumps(content))
    assert read_record(tmp_path) == RECORD


def test_undefined_metrics_are_valid_json(tmp_path):
    nan = RECORD._replace(rows=[ResultRow(LAST, dict(mAP=float('nan')))])
    write_record(tmp_path, nan)
    content = json.loads((tmp_path / FILE).read_text(),
                         parse_constant=lambda name: pytest.fail(name))
    assert content['rows'][0]['metrics'] == dict(mAP=None)


def test_titles_are_for_people():
    assert [title(row, 'Head') for row in RECORD.rows] == [
        'zero-shot CLIP, dense', 'Head, last epoch',
        'Head, best epoch (2), picked on the TEST set']


@pytest.mark.parametrize('text,message', [
    ('{"rows": [], "known_labels": null}', 'another version .*format 1'),
    ('{"format": 99}', 'format 99, this version reads 2'),
    ('[]', 'another version'),
    ('{"format": 2', 'is not valid JSON'),
    ('{"format": 2, "rows": []}', 'is not a whole run record'),
    ('{"format": 2, "rows": [{"kind": "last"}]}', 'is not a whole run record'),
])
def test_other_files_are_refused(tmp_path, text, message):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_record(tmp_path)


def test_unknown_kinds_are_refused(tmp_path):
    write_record(tmp_path, RECORD._replace(rows=[ResultRow('first', {})]))
    with pytest.raises(ValueError, match="kind 'first'"):
        read_record(tmp_path)
    assert 'first' not in KINDS
