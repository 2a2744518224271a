"""Labels of one image, by the model and by the words of new classes."""
import numpy as np
import pytest

from trm_ml_mm.apis import MultiLabelInferencer, with_classes
from trm_ml_mm.datasets.images import read_image
from trm_ml_mm.demo.viewer import NEW, reaches


@pytest.fixture(scope='module')
def photo(scenes):
    return str(scenes / 'images/00003.png')


def test_labels_are_those_of_the_inferencer(viewer, photo):
    expected, = MultiLabelInferencer(viewer.loaded)(photo)
    found = viewer.look(photo)
    assert [(one['name'], one['score']) for one in found] == [
        (one['name'], one['score']) for one in expected['labels']]


def test_new_classes_stand_among_the_others(viewer, photo):
    added = viewer.add_class(' green  star ', ())
    assert added == ('green star', )
    found = viewer.look(photo, added)
    scores = [label['score'] for label in found]
    assert scores == sorted(scores, reverse=True)
    new, = (one for one in found if one['name'] == 'green star' + NEW)
    expected, = MultiLabelInferencer(with_classes(viewer.loaded, added))(photo)
    assert new['score'] == expected['labels'][0]['score']
    assert len(found) == len(viewer.predict.classes) + 1


@pytest.mark.parametrize('text, message', [
    ('elephant', 'never learned'), ('  ', 'empty'),
    ('green star', 'given twice')])
def test_words_that_cannot_be_added(viewer, text, message):
    with pytest.raises(ValueError, match=message):
        viewer.add_class(text, ('green star', ))


def test_a_trained_class_is_no_new_one(viewer):
    with pytest.raises(ValueError, match='was trained on'):
        viewer.add_class(viewer.predict.classes[4], ())


def test_a_region_is_drawn_on_the_image(viewer, photo):
    label = viewer.look(photo)[0]
    picture = viewer.region(photo, label)
    assert picture.shape == (480, 480, 3) and picture.dtype == np.uint8
    x, y = label['peak']
    assert picture[5 * y + 2, 5 * x + 2].tolist() == [0, 255, 255]
    left, top, right, bottom = label['box']
    assert picture[5 * top, 5 * left].tolist() == [255, 255, 255]
    assert picture[5 * bottom - 1, 5 * right - 1].tolist() == [255, 255, 255]
    # The map is bright where it is high.
    rows, columns = np.array(label['map'].shape)
    cell = np.array([480 // rows, 480 // columns])
    high = np.array(np.unravel_index(label['map'].argmax(),
                                     label['map'].shape))
    low = np.array(np.unravel_index(label['map'].argmin(),
                                    label['map'].shape))
    plain = read_image(photo)[..., ::-1].repeat(5, 0).repeat(5, 1)

    def change(where):
        top, left = where * cell
        area = np.s_[top:top + cell[0], left:left + cell[1]]
        return np.mean(picture[area].astype(float) - plain[area])
    assert change(high) > change(low)


def test_without_a_map_the_image_stays(viewer, photo, monkeypatch):
    monkeypatch.setattr(viewer, 'has_maps', False)
    found = viewer.look(photo)
    assert 'map' not in found[0]
    plain = read_image(photo)[..., ::-1].repeat(5, 0).repeat(5, 1)
    np.testing.assert_array_equal(viewer.region(photo, found[0]), plain)


def test_large_images_become_smaller(viewer, tmp_path):
    from PIL import Image
    Image.new('RGB', (4000, 1000)).save(tmp_path / 'large.png')
    label = viewer.look(str(tmp_path / 'large.png'))[0]
    assert viewer.region(str(tmp_path / 'large.png'), label).shape == (
        320, 1280, 3)


def test_thresholds():
    label = dict(score=.6, present=False)
    assert reaches(label, .6) and not reaches(label, .61)
    assert not reaches(label, None)
