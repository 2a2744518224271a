import numpy as np
import pytest

from trm_ml_mm.datasets import Scenes, class_names, label_matrix
from trm_ml_mm.datasets.scenes import RenderScene
from trm_ml_mm.datasets.scenes.rendering import (
    SceneObject,
    object_mask,
    visible_fractions,
)
from trm_ml_mm.datasets.scenes.world import SPLITS, compose_scene, make_world

PIPELINE = [dict(type='trm_ml_mm.RenderScene')]


def test_a_scene_depends_on_its_index_alone():
    many = Scenes(num_images=12, pipeline=PIPELINE)
    few = Scenes(num_images=5, in_memory=False, pipeline=PIPELINE)
    backwards = [few[i]['img'] for i in range(4, -1, -1)][::-1]
    for i in range(5):
        assert (many[i]['img'] == backwards[i]).all()
        assert (many[i]['gt_score'] == few[i]['gt_score']).all()


def test_splits_and_scene_sets_differ():
    images = {
        Scenes(split, 1, scene_set=s, pipeline=PIPELINE)[0]['img'].tobytes()
        for split in SPLITS for s in (0, 1)
    }
    assert len(images) == 6
    assert make_world(0).names != make_world(1).names
    assert class_names('scenes:1') == make_world(1).names


def test_categories_are_long_tailed_and_correlated():
    labels = label_matrix(Scenes(num_images=1500))
    rates = np.sort(labels.mean(0))
    assert rates[0] < .04 and rates[-1] > .2
    together = np.corrcoef(labels.T)
    np.fill_diagonal(together, 0)
    assert together.max() > .1 and together.min() < -.05
    assert 1.5 < labels.sum(1).mean() < 4


def test_labels_follow_visibility():
    data = Scenes('val', 40)
    for index in range(40):
        _, objects = compose_scene(0, 'val', index, 96)
        owner = np.full((96, 96), -1)
        for i, obj in enumerate(objects):  # painted back to front
            owner[object_mask(obj, 96) > 127] = i
        expected = set()
        for i, obj in enumerate(objects):
            whole = (object_mask(obj, 96) > 127).sum()
            seen = (owner == i).sum() / max(whole, 1)
            if seen >= .4 and obj.name in make_world(0).names:
                expected.add(make_world(0).names.index(obj.name))
        assert set(data.get_cat_ids(index)) == expected


def test_a_hidden_object_has_no_visible_part():
    back = SceneObject('red', 'circle', 20, 20, 5, 0)
    front = SceneObject('blue', 'square', 20, 20, 15, 0)
    masks = [object_mask(o, 48) for o in (back, front)]
    assert visible_fractions(masks).tolist() == [0, 1]


def test_image_is_bgr_uint8():
    result = RenderScene().transform(dict(scene=(0, 'test', 0, 96)))
    assert result['img'].dtype == np.uint8
    assert result['img'].shape == (96, 96, 3)
    assert result['img_shape'] == (96, 96)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='splits'):
        Scenes('dev')
    with pytest.raises(ValueError, match='num_images'):
        Scenes(num_images=0)


def test_boxes_hold_their_objects():
    data = Scenes('val', 12)
    for index in range(12):
        boxes = data.boxes(index)
        assert set(data.get_cat_ids(index)) <= boxes.keys()
        _, objects = compose_scene(0, 'val', index, 96)
        for obj in objects:
            if obj.name in data.class_names:
                rows, columns = np.nonzero(object_mask(obj, 96) > 127)
                edges = [columns.min(), rows.min(), columns.max() + 1,
                         rows.max() + 1]
                found = boxes[data.class_names.index(obj.name)]
                assert np.isclose(found, np.array(edges) / 96).all(1).any()
