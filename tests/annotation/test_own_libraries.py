"""The files load in the tools' own libraries, and theirs load here.

``bash .ci/annotation_tools`` installs them beside the environment.
"""
import importlib
import json
import re
import sys

import cv2
import numpy as np
import pytest
from odd_tables import Case
from tests_support import ROOT

from trm_ml_mm.annotation import (
    FORMATS,
    apply_answers,
    cvat_name,
    safe_name,
)
from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    LabelTable,
    TableColumns,
    read_table,
    write_table,
)

WORDS = {PRESENT: 'present', ABSENT: 'absent', UNKNOWN: 'unknown'}
CLASSES = ['dog', 'Dog', 'dog!', '"dog" <$x> & y', "o'dog", 'a,b', '犬', 'é',
           'two\nlines', 'x' * 80, 'has::bill_(up)', '{{idx}}', 'name="image"']
IMAGES = ['a.jpg', 'park 1/ü "b".jpg', 'park 1/c&d.png']


@pytest.fixture(scope='module')
def library():
    """Imports a library, or skips."""
    sys.path.append(str(ROOT / '.annotation-tools'))

    def get(name, *parts):
        try:
            importlib.import_module(name)
        except ImportError as error:
            if error.name is None or error.name.partition('.')[0] != name:
                raise
            pytest.skip(f'{name} is not installed: bash .ci/annotation_tools')
        return [importlib.import_module(f'{name}.{part}') for part in parts]

    yield get
    sys.path.remove(str(ROOT / '.annotation-tools'))


@pytest.fixture
def case(tmp_path):
    """A third of the labels is known; a third of the rest is asked for."""
    rng = np.random.RandomState(0)
    size = len(IMAGES), len(CLASSES)
    labels = rng.choice([PRESENT, ABSENT, UNKNOWN], size).astype(np.int8)
    write_table(tmp_path / 'table.csv', LabelTable(IMAGES, CLASSES, labels))
    cells = [(r, c) for r in range(size[0]) for c in range(size[1])
             if (r + c) % 3 == 0]
    return Case(read_table(tmp_path / 'table.csv'),
                [(IMAGES[r], CLASSES[c]) for r, c in cells],
                rng.random_sample(size),
                dict(zip(cells, rng.choice([PRESENT, ABSENT, UNKNOWN],
                                           len(cells)).tolist())))


def check(case, answers):
    done = apply_answers(case.table, answers)
    assert np.array_equal(done.table.labels, case.expected)
    contradicted = [cell for cell, value in case.said.items()
                    if UNKNOWN not in (value, case.table.labels[cell])
                    and value != case.table.labels[cell]]
    assert contradicted and len(done.conflicts) == len(contradicted)
    assert done.filled == (case.expected != case.table.labels).sum() > 0


def test_label_studio(library, case, tmp_path):
    interface, converter = library(
        'label_studio_sdk', 'label_interface.interface',
        'converter.converter')
    tool = FORMATS['labelstudio']
    tasks, config = (path.read_text() for path in tool.export(
        case.table, tmp_path / 'tasks.json', case.asked, case.probabilities))
    tasks = json.loads(tasks)

    own = interface.LabelInterface(config)
    own.validate()
    controls = [f'class_{safe_name(name)}' for name in CLASSES]
    assert {c.name: c.labels for c in own.controls if c.name != 'asked'} == (
        dict.fromkeys(controls, list(WORDS.values())))
    assert own.get_control('asked').labels == list(map(safe_name, CLASSES))
    for task in tasks:
        assert own.validate_task(dict(data=task['data']))
        for prediction in task['predictions']:
            assert own.validate_prediction(prediction, return_errors=True
                                           ) == []
    wrong = json.loads(json.dumps(tasks[0]['predictions'][0]).replace(
        '"absent"', '"no"'))
    assert own.validate_prediction(wrong, return_errors=True)

    entries = []
    for number, task in enumerate(tasks, 1):
        row = IMAGES.index(task['data']['table_image'])
        results = {r['from_name']: r
                   for r in task['predictions'][0]['result']}
        for (r, column), value in case.said.items():
            if r == row:
                region = own.get_control(controls[column]).label(
                    [WORDS[value]])
                results[controls[column]] = dict(
                    region._dict(), id=str(column))
        annotation = dict(
            id=number, completed_by=1, result=list(results.values()),
            was_cancelled=False, created_at='2030-01-01T00:00:00Z',
            updated_at='2030-01-01T00:00:00Z', lead_time=1.0)
        assert own.validate_annotation(annotation)
        entries.append(dict(task, id=number, annotations=[annotation]))
    whole = tmp_path / 'answers.json'
    whole.write_text(json.dumps(entries))
    check(case, tool.read_answers(whole, case.table))

    own = converter.Converter(config, str(tmp_path))
    for form in ('JSON', 'JSON_MIN'):
        own.convert(str(whole), str(tmp_path / form), form, is_dir=False)
        check(case, tool.read_answers(tmp_path / form / 'result.json',
                                      case.table))


def test_cvat(library, case, tmp_path):
    annotation, dataset = library(
        'datumaro', 'components.annotation', 'components.dataset')
    kind = annotation.AnnotationType.label
    folder = tmp_path / 'cvat'
    for name in IMAGES:
        (folder / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        ok, pixels = cv2.imencode('.png', np.zeros((4, 6, 3), np.uint8))
        assert ok
        (folder / 'images' / name).write_bytes(pixels.tobytes())
    tool = FORMATS['cvat']
    path, labels = tool.export(case.table, folder / 'annotations.xml',
                               case.asked, case.probabilities)
    names = list(map(cvat_name, CLASSES))
    assert [label['name'] for label in json.loads(labels.read_text())] == names

    own = dataset.Dataset.import_from(str(folder), 'cvat')
    categories = own.categories()[kind]
    assert [item.name for item in categories.items] == names
    assert all({'answer', 'probability'} <= item.attributes
               for item in categories.items)
    asked = set(case.said)
    assert {item.id for item in own} == {
        name.rpartition('.')[0] for name in IMAGES}
    for item in own:
        row = [name.rpartition('.')[0] for name in IMAGES].index(item.id)
        found = {a.label: a.attributes['answer'] for a in item.annotations}
        assert found == {
            column: WORDS[case.table.labels[row, column]]
            for column in range(len(CLASSES)) if (row, column) in asked
            or case.table.labels[row, column] != UNKNOWN}
        for one in item.annotations:  # a person answers
            if (row, one.label) in asked:
                one.attributes['answer'] = WORDS[case.said[row, one.label]]
            assert float(one.attributes['probability']) == pytest.approx(
                case.probabilities[row, one.label], abs=1e-4)

    own.export(str(tmp_path / 'out'), 'cvat')
    path, = (tmp_path / 'out').rglob('*.xml')
    check(case, tool.read_answers(path, case.table))


def test_the_documented_example_runs(case, tmp_path, monkeypatch, capsys):
    page = (ROOT / 'docs/annotation.md').read_text()
    code, = re.findall('```python\n(.*?)```', page, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'table.csv').write_text(
        'image,dog,cat\na.jpg,1,\nb.jpg,,0\n')
    (tmp_path / 'answers.json').write_text(json.dumps([dict(
        table_image='a.jpg', **{f'class_{safe_name("cat")}': 'absent',
                                f'class_{safe_name("dog")}': 'present'})]))
    exec(code, {})
    assert capsys.readouterr().out == '1 filled, 1 confirmed\n\n'
    assert (tmp_path / 'table2.csv').read_text() == (
        'image,dog,cat\na.jpg,1,0\nb.jpg,,0\n')
    assert len(json.loads((tmp_path / 'tasks.json').read_text())) == 2


def test_a_table_of_lists_goes_the_same_way(tmp_path):
    """Export, answer, import, write: only the answered cells change."""
    text = 'note,image,positive,negative\n=1,a.jpg,dog,\n,b.jpg,,cat\n'
    (tmp_path / 'a.csv').write_text(text)
    table = read_table(tmp_path / 'a.csv', ['dog', 'cat'],
                       TableColumns(ignored=('note', )))
    tool = FORMATS['cvat']
    path, _ = tool.export(table, tmp_path / 'a.xml', [('a.jpg', 'cat')])
    path.write_text(path.read_text().replace('>unknown</attribute>',
                                             '>absent</attribute>'))
    done = apply_answers(table, tool.read_answers(path, table))
    write_table(tmp_path / 'b.csv', done.table)
    assert (tmp_path / 'b.csv').read_text() == text.replace(
        'a.jpg,dog,', 'a.jpg,dog,cat')
