import json

import numpy as np
import pytest

from trm_ml_mm.datasets import (
    COCO_CLASSES,
    CocoMultiLabel,
    JSONMultiLabel,
    PartialLabelDataset,
    class_names,
    label_matrix,
    prompt_name,
)
from trm_ml_mm.datasets.base import score_of


@pytest.fixture
def tree(tmp_path):
    """A made COCO folder: 3 images, a repeated and a missing label."""
    content = dict(
        images=[dict(id=7, file_name='b.jpg'), dict(id=3, file_name='a.jpg'),
                dict(id=5, file_name='c.jpg')],
        categories=[dict(id=1, name='person'), dict(id=90,
                                                    name='toothbrush')],
        annotations=[dict(image_id=7, category_id=90),
                     dict(image_id=7, category_id=90),
                     dict(image_id=7, category_id=1),
                     dict(image_id=3, category_id=1)])
    (tmp_path / 'train').mkdir()
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    return tmp_path


def coco(tree, **kwargs):
    return CocoMultiLabel('ann.json', 'train', str(tree), **kwargs)


def test_labels_keep_the_order_of_the_file(tree):
    data = coco(tree)
    assert [data.get_cat_ids(i) for i in range(3)] == [[0, 79], [0], []]
    assert data[0]['img_path'].endswith('train/b.jpg')
    assert set(np.unique(label_matrix(data))) == {0, 1}
    assert len(coco(tree, images='annotated')) == 2


def test_the_80_classes_are_cocos():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80


@pytest.mark.parametrize('split,count', [('train', (128, 126)),
                                         ('val', (128, 128))])
def test_real_sample_equals_a_loop(sample_data, split, count):
    root = sample_data / 'coco_sample'
    ann = f'annotations/instances_{split}2017.json'
    content = json.loads((root / ann).read_text())
    names = {c['id']: c['name'] for c in content['categories']}
    truth = {i['id']: set() for i in content['images']}
    for box in content['annotations']:
        truth[box['image_id']].add(names[box['category_id']])
    data = CocoMultiLabel(ann, f'{split}2017', str(root))
    for i in range(len(data)):
        info = data.get_data_info(i)
        found = {COCO_CLASSES[c] for c in data.get_cat_ids(i)}
        assert found == truth[info['img_id']]
    annotated = CocoMultiLabel(ann, f'{split}2017', str(root),
                               images='annotated')
    assert (len(data), len(annotated)) == count


def test_errors_name_the_file(tree):
    with pytest.raises(FileNotFoundError, match='none.json does not exist'):
        CocoMultiLabel('none.json', 'train', str(tree))
    with pytest.raises(FileNotFoundError, match='Image folder .*val'):
        CocoMultiLabel('ann.json', 'val', str(tree))
    with pytest.raises(ValueError, match="'all' or 'annotated'"):
        coco(tree, images='some')
    (tree / 'cut.json').write_text('{"images": [')
    with pytest.raises(ValueError, match='cut.json line 1 .*is cut off'):
        CocoMultiLabel('cut.json', 'train', str(tree))
    content = json.loads((tree / 'ann.json').read_text())
    content['annotations'].append(dict(image_id=99, category_id=1))
    (tree / 'orphan.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='orphan.json .*99'):
        CocoMultiLabel('orphan.json', 'train', str(tree))
    (tree / 'binary.json').write_bytes(bytes(range(128, 200)))
    with pytest.raises(ValueError, match='binary.json line .* is not UTF-8'):
        CocoMultiLabel('binary.json', 'train', str(tree))
    content['annotations'].pop()
    content['categories'][0]['name'] = 'unicorn'
    (tree / 'odd.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='category "unicorn"'):
        CocoMultiLabel('odd.json', 'train', str(tree))


def test_a_missing_image_is_named(tree):
    data = coco(tree, pipeline=[dict(type='LoadImageFromFile')])
    for dataset in (data, PartialLabelDataset(data, known=.5)):
        with pytest.raises(FileNotFoundError, match='b.jpg does not exist; '):
            dataset[0]


def test_labels_outside_their_values_are_named():
    names = ('cat', 'dog')
    with pytest.raises(ValueError, match='a.jpg: the label of "dog" is 2'):
        score_of(dict(img_path='a.jpg', gt_score=[1, 2]), names)
    with pytest.raises(ValueError, match='a.jpg: gt_score has shape'):
        score_of(dict(img_path='a.jpg', gt_score=[1]), names)
    for labels in ([-1], [2]):
        with pytest.raises(ValueError, match='outside 0..1'):
            score_of(dict(img_path='a.jpg', gt_label=labels), names)
    assert score_of(dict(gt_label=[1, 1]), names).tolist() == [0, 1]


def test_class_names(tmp_path):
    assert class_names('coco') == COCO_CLASSES
    (tmp_path / 'names.txt').write_text('cat\nhot dog\n\n')
    assert class_names(str(tmp_path / 'names.txt')) == ('cat', 'hot dog')
    with pytest.raises(FileNotFoundError, match='neither a known set'):
        class_names('cocoo')
    with pytest.raises(ValueError, match='"cat" twice'):
        class_names(['cat', 'dog', 'cat'])
    with pytest.raises(ValueError, match='names no scene set'):
        class_names('scenes:abc')
    with pytest.raises(ValueError, match='no class names'):
        class_names([])


def test_prompt_names():
    assert prompt_name('diningtable') == 'dining table'
    assert prompt_name('hair_drier') == 'hair drier'
    assert prompt_name('cat', {'cat': 'house cat'}) == 'house cat'


def test_boxes_are_read_when_they_are_asked_for(tree):
    assert coco(tree).boxes(0) is None  # this file has none
    content = json.loads((tree / 'ann.json').read_text())
    for entry in content['images']:
        entry.update(width=200, height=100)
    for number, entry in enumerate(content['annotations']):
        entry.update(bbox=[20 * number, 10, 50, 20])
    (tree / 'ann.json').write_text(json.dumps(content))
    data = coco(tree)
    found = data.boxes(0)
    assert found.keys() == {0, 79}
    assert np.allclose(found[79], [[0, .1, .25, .3], [.1, .1, .35, .3]])
    assert np.allclose(found[0], [[.2, .1, .45, .3]])
    assert data.boxes(1).keys() == {0} and data.boxes(2) == {}


def test_boxes_of_any_data_set_that_has_instances(tmp_path):
    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / name).touch()
    entry = dict(img_path='a.jpg', gt_label=[1], width=10, height=20,
                 instances=[dict(bbox=[1, 2, 5, 10], bbox_label=1)])
    (tmp_path / 'labels.json').write_text(json.dumps(dict(
        metainfo=dict(classes=['cat', 'dog']),
        data_list=[entry, dict(img_path='b.jpg', gt_label=[0])])))
    data = JSONMultiLabel('labels.json', data_root=str(tmp_path))
    assert np.allclose(data.boxes(0)[1], [[.1, .1, .5, .5]])
    assert data.boxes(1) is None
