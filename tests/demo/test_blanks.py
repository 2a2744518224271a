"""Proposals for the blanks of a table, questions and answers."""
import numpy as np
import pytest

from trm_ml_mm.apis import MultiLabelInferencer, fill_blanks
from trm_ml_mm.demo.blanks import Blanks, find_files
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, read_table


@pytest.fixture(scope='module')
def images(scenes):
    return sorted(map(str, (scenes / 'images').iterdir()))


@pytest.fixture
def blanks(viewer, scenes, images):
    return Blanks(viewer, str(scenes / 'labels.csv'), images)


@pytest.fixture(scope='module')
def logits(viewer, scenes, images):
    """In the order of the table's classes."""
    predict = MultiLabelInferencer(viewer.loaded)
    table = read_table(scenes / 'labels.csv')
    columns = [predict.classes.index(name) for name in table.classes]
    return np.stack([sample.pred_logit.numpy() for sample in predict(
        images, return_datasamples=True)])[:, columns]


def test_proposals_are_those_of_fill_blanks(blanks, logits, scenes):
    table = read_table(scenes / 'labels.csv')
    np.testing.assert_allclose(blanks.logits, logits, atol=1e-4)
    filled = fill_blanks(table.labels, blanks.logits, table.classes)
    np.testing.assert_array_equal(blanks.labels, filled.labels)
    listed = blanks.proposals()
    expected = {
        (table.images[i], table.classes[c],
         'present' if filled.labels[i, c] == PRESENT else 'absent')
        for i, c in np.argwhere(filled.labels != table.labels)}
    assert {tuple(row[:3]) for row in listed} <= expected
    assert len(listed) == min(len(expected), 200) > 0
    unsure = [abs(float(row[3]) - .5) for row in listed]
    assert unsure == sorted(unsure)


def test_questions_are_blanks_and_the_least_sure_first(blanks):
    assert len(blanks.queue) == (blanks.known == UNKNOWN).sum()
    asked = blanks.question()
    chances = blanks.probabilities[blanks.known == UNKNOWN]
    assert abs(asked.probability - .5) == np.abs(chances - .5).min()


def test_answers_go_into_the_table(blanks, tmp_path):
    places = []
    for value in (PRESENT, ABSENT, UNKNOWN, PRESENT):
        asked = blanks.question()
        places.append((asked.row, asked.column))
        blanks.answer(value)
    blanks.undo()
    assert blanks.question()[:2] == places[3]
    assert '1 present, 1 absent, 1 unknown' in blanks.summary()
    for proposals in (False, True):
        path = tmp_path / f'{proposals}.csv'
        blanks.write(str(path), proposals)
        found = read_table(path)
        assert (found.images, found.classes) == (blanks.table.images,
                                                 blanks.table.classes)
        assert [found.labels[place] for place in places[:2]] == [PRESENT,
                                                                 ABSENT]
        known = blanks.known != UNKNOWN
        np.testing.assert_array_equal(found.labels[known],
                                      blanks.known[known])
        if not proposals:
            assert (found.labels != UNKNOWN).sum() == known.sum() + 2


def test_answers_are_known_labels_from_then_on(blanks):
    asked = blanks.question()
    blanks.answer(PRESENT)
    labels = blanks.known.copy()
    labels[asked.row, asked.column] = PRESENT
    expected = fill_blanks(labels, blanks.logits, blanks.table.classes)
    np.testing.assert_array_equal(blanks.labels, expected.labels)


def test_the_questions_end(blanks):
    blanks.queue = blanks.queue[:1]
    blanks.answer(UNKNOWN)
    assert blanks.question() is None
    blanks.undo()
    blanks.undo()  # nothing is left to take back
    assert blanks.question() is not None


def test_images_without_a_file_keep_their_labels(viewer, scenes, images):
    found = Blanks(viewer, str(scenes / 'labels.csv'), images[:9])
    np.testing.assert_array_equal(found.labels[9:], found.known[9:])
    assert '3 images of the table have no file' in found.summary()
    assert all(row < 9 for row, _ in found.queue)


def test_unreadable_images_are_named(viewer, scenes, images, tmp_path):
    broken = tmp_path / '00001.png'
    broken.write_bytes(b'no image')
    found = Blanks(viewer, str(scenes / 'labels.csv'),
                   [str(broken), *images[2:]])
    assert '00001.png' in found.summary()
    with pytest.raises(ValueError, match='No image can be read'):
        Blanks(viewer, str(scenes / 'labels.csv'), [str(broken)])


def test_too_few_known_labels_still_give_questions(viewer, scenes, images,
                                                   tmp_path):
    lines = (scenes / 'labels.csv').read_text().splitlines()
    table = tmp_path / 'labels.csv'
    table.write_text('\n'.join([lines[0], *(
        line.split(',')[0] + ',' * lines[0].count(',')
        for line in lines[1:])]))
    found = Blanks(viewer, str(table), images)
    assert found.proposals() == []
    assert 'Nothing can be proposed yet' in found.summary()
    assert 0 <= found.question().probability <= 1


def test_classes_of_the_table_may_be_new(viewer, images, tmp_path):
    table = tmp_path / 'labels.csv'
    table.write_text('image,green star,patient\n' + ''.join(
        f'{path.rsplit("/")[-1]},{n % 2 if n < 6 else ""},x\n'
        for n, path in enumerate(images)))
    found = Blanks(viewer, str(table), images, ignored=['patient'])
    assert found.predict.classes == ('green star', )
    with pytest.raises(ValueError, match='patient'):
        Blanks(viewer, str(table), images)


def test_files_and_images_of_a_table():
    names = ['a/1.jpg', 'b/2.jpg', '3.jpg']
    assert find_files(names, ['/up/3.jpg', '/up/1.jpg', '/up/other.jpg']) == [
        '/up/1.jpg', None, '/up/3.jpg']
    with pytest.raises(ValueError, match='None of the 1 files'):
        find_files(names, ['/up/4.jpg'])
    twice = ['a/1.jpg', 'b/1.jpg']
    assert find_files(twice, ['/all/b/1.jpg', '/all/a/1.jpg']) == [
        '/all/a/1.jpg', '/all/b/1.jpg']
    with pytest.raises(ValueError, match='the image "/up/1.jpg"'):
        find_files(twice, ['/up/1.jpg'])
