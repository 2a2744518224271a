"""CVAT: what is written, what comes back, what is refused."""
import json
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_tables import cases

from trm_ml_mm.annotation import (
    FORMATS,
    apply_answers,
    cvat_labels,
    cvat_name,
    from_cvat,
    read_cvat,
    to_cvat,
)
from trm_ml_mm.annotation import cvat as module
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, LabelTable

WORDS = {PRESENT: 'present', ABSENT: 'absent', UNKNOWN: 'unknown'}
# File names that CVAT can hold.
FILE_NAMES = st.text(st.characters(
    categories=['L', 'N', 'P', 'S', 'Zs'],
    exclude_characters='/\\\ufffe\uffff'), max_size=6)


def table(labels=((1, -1), (-1, 0))):
    return LabelTable(['a.jpg', 'b c/d.jpg'], ['dog', 'cat'],
                      np.array(labels, np.int8))


def answered(annotations, said):
    """What CVAT exports after a person has set some attributes.

    Args:
        annotations: The XML that was uploaded.
        said: {(image, label): word}.
    """
    root = ElementTree.fromstring(annotations)
    for number, image in enumerate(root.iter('image')):
        image.set('id', str(number))  # CVAT has its own
        for tag in image.iter('tag'):
            word = said.get((image.get('name'), tag.get('label')))
            if word is not None:
                tag.find("attribute[@name='answer']").text = word
    return ElementTree.tostring(root)


@settings(max_examples=60, deadline=None)
@given(cases(FILE_NAMES))
def test_answers_land_in_their_cells(case):
    annotations = to_cvat(case.table, case.asked, case.probabilities)
    said = {(case.table.images[row].removeprefix('./'),
             cvat_name(case.table.classes[column])): WORDS[value]
            for (row, column), value in case.said.items()}
    answers = from_cvat(answered(annotations, said), case.table)
    done = apply_answers(case.table, answers)
    assert np.array_equal(done.table.labels, case.expected)
    everything = apply_answers(case.table, answers, overwrite=True)
    for cell, value in case.said.items():
        assert everything.table.labels[cell] == (
            case.table.labels[cell] if value == UNKNOWN else value)


@settings(max_examples=60, deadline=None)
@given(cases(FILE_NAMES))
def test_nothing_comes_back_before_a_person_answers(case):
    """Whatever the model is sure of."""
    done = apply_answers(case.table, from_cvat(to_cvat(
        case.table, case.asked, case.probabilities), case.table))
    assert np.array_equal(done.table.labels, case.table.labels)
    assert not done.conflicts and not done.filled


@settings(max_examples=60, deadline=None)
@given(cases(FILE_NAMES))
def test_labels_of_the_task(case):
    labels = cvat_labels(case.table.classes)
    names = [label['name'] for label in labels]
    assert len(set(names)) == len(names)
    for label in labels:
        assert 0 < len(label['name']) <= 64 and label['name'].isprintable()
        answer = label['attributes'][0]
        assert answer['values'] == ['present', 'absent', 'unknown']
        assert answer['default_value'] == 'unknown'


def test_plain_names_stay_as_they_are():
    assert cvat_name('red "car" <x> & 犬') == 'red "car" <x> & 犬'
    assert cvat_name('x' * 64) == 'x' * 64
    for name in ('x' * 65, 'a\nb', '\x1b', 'a\u200bb'):
        assert cvat_name(name) != name


def test_what_is_tagged():
    """Questions, and the known labels of their images."""
    root = ElementTree.fromstring(to_cvat(
        table(), [('b c/d.jpg', 'dog')],
        np.array([[np.nan, .5], [.97, np.nan]])))
    image, = root.iter('image')
    assert image.get('name') == 'b c/d.jpg'
    assert [(t.get('label'), *(a.text for a in t)) for t in image] == [
        ('dog', 'unknown', '0.9700'), ('cat', 'absent', None)]
    assert root.find('version').text == '1.1'


def test_no_number_is_one_of_a_task():
    """CVAT would go by it where it does not find a name."""
    root = ElementTree.fromstring(to_cvat(table()))
    assert min(int(i.get('id')) for i in root.iter('image')) >= 10**8


@pytest.mark.parametrize('name,row', [
    ('a.jpg', 0), ('share/x/a.jpg', 0), ('d.jpg', 1), ('c/b c/d.jpg', 1)])
def test_images_by_a_part_of_their_path(name, row):
    content = to_cvat(table(), [('a.jpg', 'cat')]).replace(
        '"a.jpg"', f'"{name}"').replace('unknown</attr', 'present</attr')
    answers = from_cvat(content, table())
    assert {a.row for a in answers} == {row}


def test_files(tmp_path):
    tool = FORMATS['cvat']
    files = tool.export(table(), tmp_path / 'tasks.xml', [('a.jpg', 'cat')],
                        image_url='not used')
    assert [f.name for f in files] == ['tasks.xml', 'tasks_labels.json']
    assert json.loads(files[1].read_text()) == cvat_labels(['dog', 'cat'])
    content = answered(files[0].read_text(), {('a.jpg', 'cat'): 'absent'})
    (tmp_path / 'annotations.xml').write_bytes(content)
    with zipfile.ZipFile(tmp_path / 'export.zip', 'w') as archive:
        archive.writestr('annotations.xml', content)
        archive.writestr('images/a.jpg', b'')
    for name in ('annotations.xml', 'export.zip'):
        done = apply_answers(table(), tool.read_answers(tmp_path / name,
                                                        table()))
        assert done.table.labels.tolist() == [[1, 0], [-1, 0]]


def image(inside, name='a.jpg'):
    return (f'<annotations><image id="0" name="{name}">{inside}</image>'
            '</annotations>')


def tag(word, label='dog', name='answer'):
    return (f'<tag label="{label}"><attribute name="{name}">{word}'
            '</attribute></tag>')


@pytest.mark.parametrize('content,message', [
    ('<annotations>', r'x.xml cannot be read \(no element found: line 1, '
     r'column 13\)'),
    ('', 'cannot be read'),
    ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>',
     'has a <!DOCTYPE>'),
    ('<?xml version="1.0" encoding="nope"?><annotations/>', 'unknown enc'),
    ('<svg/>', 'is no list of images with tags'),
    ('<annotations><track/></annotations>', 'is no list of images with tags'),
    (image(tag('present'), 'z.jpg'), 'image 1 is about the image "z.jpg", and '
     'the table has none'),
    (image(tag('present'), ''), 'image "", and the table has none'),
    (image(tag('present', 'cow')), 'image 1 has a tag "cow", which is none of '
     'the 2 classes'),
    (image(tag('maybe')), r"tag \"dog\" is answered by 'maybe'; the answers"),
    (image(tag('present', name='x')), 'has 0 attributes "answer"'),
    (image('<tag label="dog"/>'), 'has 0 attributes "answer"'),
    (image('<box label="dog"/>'), 'has a <box>, and only tags'),
])
def test_exports_that_are_refused(tmp_path, content, message):
    path = tmp_path / 'x.xml'
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_cvat(path, table())
    assert str(path) in str(error.value)


def test_no_answer_is_no_label():
    content = image(tag('')) + ''
    done = apply_answers(table([[-1, -1], [-1, -1]]),
                         from_cvat(content, table()))
    assert (done.table.labels == UNKNOWN).all() and done.undecided == 1
    assert from_cvat(image('', 'another.jpg'), table()) == []


def test_an_image_that_could_be_two():
    twins = LabelTable(['x/a.jpg', 'y/a.jpg'], ['dog'],
                       np.full((2, 1), UNKNOWN, np.int8))
    with pytest.raises(ValueError, match='has 2 that end so'):
        from_cvat(image(tag('present')), twins)


def bomb(levels=9):
    entities = ''.join(
        f'<!ENTITY x{i} "{f"&x{i - 1};" * 10 if i else "ha"}">'
        for i in range(levels))
    return (f'<!DOCTYPE a [{entities}]><annotations>&x{levels - 1};'
            '</annotations>')


def test_entities_are_refused_before_they_grow(tmp_path):
    path = tmp_path / 'x.xml'
    for content in (bomb().encode(), bomb().encode('utf-16'), (
            b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>')):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='<!DOCTYPE>'):
            read_cvat(path, table())


def test_archives_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / 'x.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('other.xml', '')
    with pytest.raises(ValueError, match='x.zip is no archive with annot'):
        read_cvat(path, table())
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('annotations.xml', ' ' * 3 * 10**6)
    monkeypatch.setattr(module, 'MAX_MEGABYTES', 2)
    with pytest.raises(ValueError, match='x.zip has more than 2 MB'):
        read_cvat(path, table())
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b'\xff' * 9 + whole[49:])  # damaged inside
    with pytest.raises(ValueError, match='is no archive|more than'):
        read_cvat(path, table())


@pytest.mark.parametrize('images,message', [
    (['a\nb.jpg'], r'image "a\\nb.jpg" has a character'),
    (['a.jpg', 'a.png'], '"a.jpg" and "a.png" for one'),
])
def test_images_that_cvat_would_mix_up(images, message):
    with pytest.raises(ValueError, match=message):
        to_cvat(LabelTable(images, ['dog'],
                           np.full((len(images), 1), UNKNOWN, np.int8)))


def test_only_xml_is_written(tmp_path):
    with pytest.raises(ValueError, match='tasks.json must end in .xml'):
        FORMATS['cvat'].export(table(), tmp_path / 'tasks.json')
