"""Tables of labels: what is read, written, and kept."""
import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    LabelTable,
    TableColumns,
    read_classes,
    read_table,
    write_table,
)

COLUMNS = TableColumns(image='file', ignored=('note', 'split'))
TEXT = '''split,dog,file,"red, car",note
train,1,a.jpg,,\tkeep me
test,0,b.jpg,1,
train,,c.jpg,0,"two
lines"
'''


def write(folder, text, name='a.csv'):
    (folder / name).write_text(text, encoding='utf-8')
    return folder / name


def test_what_is_read(tmp_path):
    path = write(tmp_path, TEXT)
    table = read_table(path, columns=COLUMNS)
    assert (table.images, table.classes) == (
        ['a.jpg', 'b.jpg', 'c.jpg'], ['dog', 'red, car'])
    assert table.labels.dtype == np.int8
    assert table.labels.tolist() == [
        [PRESENT, UNKNOWN], [ABSENT, PRESENT], [UNKNOWN, ABSENT]]
    assert table.where(1) == f'{path} line 3'
    turned = read_table(path, ['red, car', 'dog'], COLUMNS)
    assert turned.labels.tolist() == table.labels[:, ::-1].tolist()
    assert read_classes(path, columns=COLUMNS) == ('dog', 'red, car')


@pytest.mark.parametrize('classes', [None, ['red, car', 'dog']])
def test_a_table_is_written_as_it_was_read(tmp_path, classes):
    """Order of rows and columns, and the cells of other columns."""
    table = read_table(write(tmp_path, TEXT), classes, COLUMNS)
    write_table(tmp_path / 'b.csv', table)
    assert (tmp_path / 'b.csv').read_text() == TEXT


def test_new_labels_change_their_cells_alone(tmp_path):
    table = read_table(write(tmp_path, TEXT), columns=COLUMNS)
    labels = table.labels.copy()
    labels[2, 0] = ABSENT
    write_table(tmp_path / 'b.csv', replace(table, labels=labels))
    assert (tmp_path / 'b.csv').read_text() == TEXT.replace(
        'train,,c.jpg', 'train,0,c.jpg')


def test_lists_stay_lists(tmp_path):
    text = 'note,negative,image,positive\n 7,cat,a.jpg,dog;cow\n,,b.jpg,\n'
    columns = TableColumns(ignored=('note', ))
    classes = ['dog', 'cow', 'cat']
    table = read_table(write(tmp_path, text), classes, columns)
    assert table.labels.tolist() == [[1, 1, 0], [-1, -1, -1]]
    write_table(tmp_path / 'b.csv', table)
    assert (tmp_path / 'b.csv').read_text() == text


def test_a_list_of_absent_classes_appears_when_it_is_needed(tmp_path):
    table = read_table(write(tmp_path, 'image,positive\na.jpg,dog\n'),
                       ['dog', 'cat'])
    labels = np.array([[UNKNOWN, ABSENT]], np.int8)
    write_table(tmp_path / 'b.csv', replace(table, labels=labels))
    assert (tmp_path / 'b.csv').read_text() == (
        'image,positive,negative\na.jpg,,cat\n')


NAMES = st.text(st.characters(exclude_categories=['Cs'],
                              exclude_characters='\0'),
                min_size=1, max_size=8).filter(
    lambda s: s == s.strip() and s[0] != '\ufeff'
    and s not in ('image', 'positive', '.', './'))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_odd_names_come_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp('odd')
    classes = data.draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    images = [f'{i}{name}'.replace('/', '') for i, name in enumerate(
        data.draw(st.lists(NAMES, min_size=1, max_size=4)))]
    size = len(images), len(classes)
    labels = np.array(data.draw(st.lists(
        st.sampled_from((PRESENT, ABSENT, UNKNOWN)),
        min_size=size[0] * size[1], max_size=size[0] * size[1])),
        np.int8).reshape(size)
    write_table(folder / 'a.csv', LabelTable(images, classes, labels))
    # Python's own reader as a second opinion.
    with open(folder / 'a.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.reader(file))
    assert rows == [['image', *classes], *(
        [image, *({1: '1', 0: '0', -1: ''}[v] for v in row)]
        for image, row in zip(images, labels.tolist()))]
    back = read_table(folder / 'a.csv')
    assert (back.images, back.classes) == (images, classes)
    assert np.array_equal(back.labels, labels)


def table(images=('a.jpg', ), classes=('dog', ), labels=((1, ), ), **kwargs):
    return LabelTable(list(images), list(classes), np.array(labels, np.int8),
                      **kwargs)


@pytest.mark.parametrize('kwargs,message', [
    (dict(labels=[[1, 0]]), r'shape \(1, 2\), and there are 1 images and 1'),
    (dict(labels=[[2]]), r'Labels are 1 \(present\)'),
    (dict(classes=['dog', 'dog'], labels=[[1, 0]]), '"dog" twice'),
    (dict(images=['a', './a'], labels=[[1], [0]]),
     'the table row 2: the image "./a" is already in the table row 1'),
])
def test_what_is_no_table(kwargs, message):
    with pytest.raises(ValueError, match=message):
        table(**kwargs)


@pytest.mark.parametrize('kwargs,message', [
    (dict(classes=['image']), 'class "image" has the name of another column'),
    (dict(classes=[' dog']), "' dog' cannot be a name in a table"),
    (dict(images=['a.jpg ']), "'a.jpg ' cannot be a name in a table"),
    (dict(classes=['a;b'], header=['image', 'positive']),
     'class "a;b" cannot stand in a list whose separator is ";"'),
])
def test_names_that_would_not_come_back_are_refused(tmp_path, kwargs,
                                                    message):
    with pytest.raises(ValueError, match=message):
        write_table(tmp_path / 'a.csv', table(**kwargs))
    assert not list(tmp_path.iterdir())


def test_the_errors_of_reading_name_the_line(tmp_path):
    """Every other sentence is tested where the data set reads the file."""
    with pytest.raises(ValueError, match='a.csv line 3, column "dog" has the '
                       'value "yes"'):
        read_table(write(tmp_path, 'image,dog\na.jpg,1\nb.jpg,yes\n'))
    with pytest.raises(FileNotFoundError, match='CSV file .*no.csv does not '
                       'exist; correct its path'):
        read_table(tmp_path / 'no.csv')
