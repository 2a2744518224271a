"""Label Studio: what is written, what comes back, what is refused."""
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from odd_tables import cases

from trm_ml_mm.annotation import (
    FORMATS,
    apply_answers,
    from_label_studio,
    label_studio_config,
    read_label_studio,
    safe_name,
    to_label_studio,
)
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, LabelTable

WORDS = {PRESENT: 'present', ABSENT: 'absent', UNKNOWN: 'unknown'}
DOG, CAT = (f'class_{safe_name(name)}' for name in ('dog', 'cat'))


def table(labels=((1, -1), (-1, 0))):
    return LabelTable(['a.jpg', 'b c/d.jpg'], ['dog', 'cat'],
                      np.array(labels, np.int8))


def submit(task, said, number=1):
    """What Label Studio exports as JSON if a person opens the task, finds the
    prediction filled in, gives some answers, and submits."""
    results = {r['from_name']: r for r in task['predictions'][0]['result']}
    for control, word in said.items():
        results[control] = dict(
            id=control, type='choices', from_name=control, to_name='image',
            value=dict(choices=[word]), origin='manual')
    return dict(id=number, data=task['data'], drafts=[], predictions=[7],
                annotations=[dict(id=number, completed_by=1, task=number,
                                  was_cancelled=False,
                                  result=list(results.values()))])


def flat(entry):
    """The same as JSON-MIN."""
    annotation, = entry['annotations']
    return dict(
        entry['data'], id=entry['id'], annotator=1, annotation_id=1,
        **{r['from_name']: r['value']['choices'][0]
           if len(r['value']['choices']) == 1 else r['value']
           for r in annotation['result']})


def filled_in(task):
    return {r['from_name']: r['value']['choices'][0]
            for r in task['predictions'][0]['result']
            if r['from_name'] != 'asked'}


def ticked(task):
    return task['predictions'][0]['result'][0]['value']['choices']


@settings(max_examples=60, deadline=None)
@given(cases())
def test_answers_land_in_their_cells(case):
    tasks = json.loads(json.dumps(
        to_label_studio(case.table, case.asked, case.probabilities)))
    rows = {name: row for row, name in enumerate(case.table.images)}
    entries = []
    for task in tasks:
        row = rows[task['data']['table_image']]
        entries.append(submit(task, {
            f'class_{safe_name(case.table.classes[c])}': WORDS[value]
            for (r, c), value in case.said.items() if r == row}))
    for export in (entries, list(map(flat, entries))):
        answers = from_label_studio(export, case.table)
        done = apply_answers(case.table, answers)
        assert np.array_equal(done.table.labels, case.expected)
        everything = apply_answers(case.table, answers, overwrite=True)
        for cell, value in case.said.items():
            assert everything.table.labels[cell] == (
                case.table.labels[cell] if value == UNKNOWN else value)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_what_is_not_asked_is_known_or_left_open(case):
    """If the form is submitted as it is filled in, without any proposal."""
    tasks = to_label_studio(case.table, case.asked)
    done = apply_answers(case.table, from_label_studio(
        [submit(task, {}) for task in tasks], case.table))
    assert np.array_equal(done.table.labels, case.table.labels)
    assert not done.conflicts and not done.filled


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_config_has_one_question_per_class(case):
    root = ElementTree.fromstring(label_studio_config(case.table.classes))
    controls = [c for c in root.iter('Choices') if c.get('name') != 'asked']
    assert [c.get('name') for c in controls] == [
        f'class_{safe_name(name)}' for name in case.table.classes]
    for control in controls:
        assert [c.get('value') for c in control] == [
            'present', 'absent', 'unknown']
        assert control.get('name').isascii()
        assert control.get('name').replace('_', '').isalnum()


def test_names_belong_to_one_class_whatever_the_others_are():
    names = ['dog', 'Dog', 'dog!', '"dog"', '犬', '猫', 'x' * 100, 'x' * 101]
    assert len({safe_name(name) for name in names}) == len(names)
    assert safe_name('red car!') == 'red_car_' + safe_name('red car!')[-10:]


def test_a_form_is_filled_in():
    """Known labels, proposals from .8 on, and nothing else."""
    names = [f'c{i}' for i in range(7)]
    labels = np.array([[1, 0, -1, -1, -1, -1, -1]], np.int8)
    probabilities = np.array([[.1, .9, .8, .2, .5, np.nan, .99]])
    task, = to_label_studio(
        LabelTable(['a b.jpg'], names, labels),
        [('a b.jpg', f'c{i}') for i in (2, 3, 4, 5)], probabilities,
        image_url='https://x.org/')
    assert filled_in(task) == {
        f'class_{safe_name(name)}': word for name, word in dict(
            c0='present', c1='absent', c2='present', c3='absent',
            c4='unknown', c5='unknown').items()}
    assert ticked(task) == [safe_name(f'c{i}') for i in (2, 3, 4, 5)]
    assert task['data']['image'] == 'https://x.org/a%20b.jpg'
    assert task['data']['questions'] == (
        'In the picture? c2 (80%), c3 (20%), c4 (50%), c5')
    scores = {r['from_name']: r.get('score')
              for r in task['predictions'][0]['result']}
    assert scores[f'class_{safe_name("c3")}'] == .2
    assert scores[f'class_{safe_name("c5")}'] is None
    assert task['predictions'][0]['score'] == .5


def test_tasks_come_in_the_order_of_the_questions():
    asked = [('b c/d.jpg', 'cat'), ('a.jpg', 'cat'), ('b c/d.jpg', 'dog')]
    tasks = to_label_studio(table(), asked)
    assert [t['data']['table_image'] for t in tasks] == ['b c/d.jpg', 'a.jpg']
    assert ticked(tasks[0]) == [safe_name('dog'), safe_name('cat')]


def test_skipped_tasks_predictions_drafts_and_own_controls_say_nothing():
    tasks = to_label_studio(table(), None, np.full((2, 2), .99))
    skipped = submit(tasks[0], {CAT: 'present'})
    skipped['annotations'][0]['was_cancelled'] = True
    commented = submit(tasks[1], {DOG: 'unknown'})
    commented['annotations'][0]['result'].append(dict(
        from_name='comment', to_name='image', type='textarea',
        value=dict(text=['nice'])))
    open_task = dict(id=3, data=tasks[0]['data'], annotations=[],
                     predictions=tasks[0]['predictions'],
                     drafts=[dict(result=[])])
    done = apply_answers(table(), from_label_studio(
        [skipped, commented, open_task], table()))
    assert np.array_equal(done.table.labels, table().labels)
    assert (done.filled, done.confirmed, done.undecided) == (0, 1, 1)


def test_an_answer_against_a_known_label():
    tasks = to_label_studio(table(), [('a.jpg', 'dog')])
    answers = from_label_studio([submit(tasks[0], {DOG: 'absent'})], table(),
                                'x.json')
    kept = apply_answers(table(), answers)
    assert kept.table.labels[0, 0] == PRESENT and kept.replaced == 0
    assert kept.conflicts == [
        '"dog" in "a.jpg" was answered as absent (x.json entry 1), and the '
        'table row 1 says present; it stays.']
    won = apply_answers(table(), answers, overwrite=True)
    assert won.table.labels[0, 0] == ABSENT and won.replaced == 1
    assert not won.conflicts


@pytest.mark.parametrize('overwrite', [False, True])
def test_two_people_who_disagree(overwrite):
    tasks = to_label_studio(table(), [('a.jpg', 'cat')])
    entries = [submit(tasks[0], {CAT: word}, i) for i, word in enumerate(
        ['present', 'unknown', 'absent', 'present'])]
    done = apply_answers(table(), from_label_studio(entries, table(), 'x'),
                         overwrite)
    assert done.table.labels[0, 1] == UNKNOWN
    assert done.conflicts == [
        '"cat" in "a.jpg" was answered as present (x entry 1) and absent '
        '(x entry 3); it stays unknown.']
    agreed = apply_answers(table(), from_label_studio(
        entries[:2] + entries[3:], table(), 'x'), overwrite)
    assert agreed.table.labels[0, 1] == PRESENT and agreed.filled == 1


def test_more_classes_do_not_move_old_answers():
    tasks = to_label_studio(table(), [('a.jpg', 'cat')])
    entries = [submit(tasks[0], {CAT: 'present'})]
    later = LabelTable(['new.jpg', 'a.jpg'], ['ant', 'cat', 'dog'],
                       np.full((2, 3), UNKNOWN, np.int8))
    done = apply_answers(later, from_label_studio(entries, later))
    assert done.table.labels.tolist() == [[-1, -1, -1], [-1, 1, 1]]


def test_files(tmp_path):
    tool = FORMATS['labelstudio']
    files = tool.export(table(), tmp_path / 'tasks.json',
                        [('a.jpg', 'cat')])
    assert [f.name for f in files] == ['tasks.json', 'tasks_config.xml']
    assert files[1].read_text() == label_studio_config(['dog', 'cat'])
    task, = json.loads(files[0].read_text())
    answers = tmp_path / 'answers.json'
    answers.write_text(json.dumps([submit(task, {CAT: 'absent'})]))
    done = apply_answers(table(), tool.read_answers(answers, table()))
    assert done.table.labels.tolist() == [[1, 0], [-1, 0]]


def entry(**changes):
    task, = to_label_studio(table(), [('a.jpg', 'cat')])
    return {**submit(task, {CAT: 'present'}), **changes}


def result(**changes):
    whole = entry()
    whole['annotations'][0]['result'] = [
        {**whole['annotations'][0]['result'][1], **changes}]
    return whole


@pytest.mark.parametrize('export,message', [
    ({}, 'is no list of tasks'),
    ([3], 'entry 1 is no task'),
    ([{}], 'entry 1 has neither "annotations" nor "table_image"'),
    ([entry(), entry(annotations=None)], 'entry 2 is no whole task'),
    ([entry(annotations=['x'])], 'entry 1 is no whole task'),
    ([entry(data='x')], 'entry 1 is no whole task'),
    ([entry(data={})], 'about the image "None", and the table has none'),
    ([entry(data=dict(table_image=['a.jpg']))], 'and the table has none'),
    ([entry(data=dict(table_image='z\x1b.jpg'))], r'image "z\\x1b.jpg", and'),
    ([result(from_name='class_cow_1')],
     'answer to "class_cow_1", which is none of the 2 classes'),
    ([result(value={})], 'class "dog" is answered by \'None\'; the answers '
     'are present, absent, unknown'),
    ([result(value=dict(choices=['maybe']))], "answered by 'maybe'"),
    ([result(value=dict(choices=['present', 'absent']))], 'answered by'),
    ([result(value=dict(choices=[]))], 'answered by'),
    ([result(value=None)], 'answered by'),
    ([result(from_name='mood'), result(from_name='x')],
     'has answers to "mood", "x" and to no class of the table'),
])
def test_exports_that_are_refused(tmp_path, export, message):
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(export))
    with pytest.raises(ValueError, match=message) as error:
        read_label_studio(path, table())
    assert str(path) in str(error.value)


def test_files_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / 'x.json'
    path.write_text('[{"id": 1')
    with pytest.raises(ValueError, match='x.json line 1 column 10 is not '
                       'valid JSON'):
        read_label_studio(path, table())
    with pytest.raises(FileNotFoundError, match='File of answers .* does not'):
        read_label_studio(tmp_path / 'no.json', table())
    with open(path, 'wb') as file:
        file.truncate(300 * 10**6)  # takes no room on the disk
    with pytest.raises(ValueError, match='has 300 MB, and at most 256'):
        read_label_studio(path, table())
    with pytest.raises(ValueError, match='tasks.txt must end in .json'):
        FORMATS['labelstudio'].export(table(), tmp_path / 'tasks.txt')


@pytest.mark.parametrize('asked,probabilities,message', [
    ([], None, 'no question to export'),
    ([('z.jpg', 'dog')], None, 'the table has no image "z.jpg"'),
    ([('a.jpg', 'cow')], None, 'the table has no class "cow"'),
    (None, np.zeros((2, 3)), r'shape \(2, 3\), and the table has .*\(2, 2\)'),
    (None, [[0, 1], [2, 0]], 'row 2: the probability of "dog" is 2;'),
    (None, [[0, 1], [0, -.1]], 'row 2: the probability of "cat" is -0.1;'),
])
def test_questions_that_are_refused(asked, probabilities, message):
    with pytest.raises(ValueError, match=message):
        to_label_studio(table(), asked, probabilities)


def test_two_classes_with_one_name_in_the_tool(monkeypatch):
    """Never seen: the hash of one name would have to be another's."""
    monkeypatch.setattr('trm_ml_mm.annotation.label_studio.safe_name',
                        lambda name: 'x')
    with pytest.raises(ValueError, match='"dog" and "cat" have the same name'):
        label_studio_config(['dog', 'cat'])
