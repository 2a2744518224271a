"""LVIS, VAW and CheXpert on made trees: labels equal a plain loop over the
files, a real run trains on them, and errors name file and entry."""
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import trees
from tests_support import ROOT

from trm_ml_mm.apis import MultiLabelInferencer
from trm_ml_mm.datasets import (
    LVIS,
    VAW,
    CheXpert,
    CropBox,
    PartialLabelDataset,
    label_matrix,
    matrix_of,
)
from trm_ml_mm.datasets.base import sample_key
from trm_ml_mm.datasets.chexpert import FINDINGS
from trm_ml_mm.datasets.crops import load_object
from trm_ml_mm.engine import build_runner, load_config
from trm_ml_mm.evaluation import read_record
from trm_ml_mm.features import CacheFiller
from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    SparseLabels,
    prompt_name,
)
from trm_ml_mm.models.towers import save_random_weights

LOAD = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def change(path, edit):
    """Edit a JSON file in place."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(edit(content) or content))


def labels_of_entries(data):
    """Image file name and labels of each sample, one by one."""
    infos = [data.get_data_info(i) for i in range(len(data))]
    return [(Path(info['img_path']).name, info['gt_score'].tolist())
            for info in infos]


# All three


@pytest.mark.parametrize('name', ['lvis', 'vaw', 'chexpert'])
def test_a_run_trains_and_evaluates(name, tmp_path, tiny_clip):
    getattr(trees, name)(tmp_path / 'data')
    weights = str(tmp_path / 'weights.pt')
    save_random_weights(tiny_clip, weights)
    runner = build_runner(
        str(ROOT / f'configs/trm_ml_{name}.py'), work_dir=str(tmp_path / 'run'),
        options={'data_root': f'{tmp_path}/data/', 'arch': tiny_clip,
                 'model.backbone.weights': weights, 'image_size': 64,
                 'workers': 0, 'epochs': 1, 'train_dataloader.batch_size': 4,
                 'experiment_name': f'{name} {tmp_path.name}'})
    runner.train()
    assert runner.iter == 1
    data = runner.train_dataloader.dataset
    assert isinstance(matrix_of(data), SparseLabels)
    assert (data.labels == UNKNOWN).any()
    assert np.array_equal(data.labels, label_matrix(data.dataset))
    metrics = read_record(tmp_path / 'run').row('last').metrics
    assert 0 < metrics['mAP'] <= 100
    # A checkpoint sees whole images of one's own.
    photo = trees.image(tmp_path / 'photo.jpg')
    found, = MultiLabelInferencer(str(tmp_path / 'run/epoch_1.pth'))(photo)
    assert found['size'] == (50, 40)
    assert {label['name'] for label in found['labels']} == set(
        data.metainfo['classes'])


@pytest.mark.parametrize('kind, ann_file', [
    (LVIS, 'annotations/lvis_v1_train.json'), (VAW, 'train_part1.json'),
    (CheXpert, 'train.csv')])
def test_a_missing_or_cut_file_is_named(kind, ann_file, tmp_path):
    trees.MAKERS[kind.__name__](tmp_path)
    path = tmp_path / ann_file
    text = path.read_text()
    path.write_text(text[:-80])
    with pytest.raises(ValueError, match=f'{path.name} line .*(not valid JSON|'
                       'has .* cells)'):
        kind(ann_file, data_root=str(tmp_path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f'{path.name} does not exist; '
                       'set data_root'):
        kind(ann_file, data_root=str(tmp_path))


# LVIS


@pytest.fixture
def lvis_root(tmp_path):
    trees.lvis(tmp_path)
    return tmp_path


def lvis(root, split='train', **options):
    return LVIS(f'annotations/lvis_v1_{split}.json', data_root=str(root),
                **options)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_lvis_labels_equal_a_loop(lvis_root, split):
    data = lvis(lvis_root, split)
    ids = sorted(one for one, *_ in trees.LVIS_CATEGORIES)
    expected = []
    for one, _, present, absent in trees.LVIS_IMAGES[split]:
        row = [PRESENT if c in present else ABSENT if c in absent else UNKNOWN
               for c in ids]
        expected.append((f'{one:012}.jpg', row))
    assert labels_of_entries(data) == expected
    assert label_matrix(data).tolist() == [row for _, row in expected]
    assert list(data.metainfo['classes']) == ['bow_(weapon)', 'cup', 'cat',
                                              'tv']
    assert data.metainfo['groups'] == dict(
        frequent=['cat', 'tv'], common=['cup'], rare=['bow_(weapon)'])


def test_lvis_images_lie_where_their_address_says(lvis_root):
    data = lvis(lvis_root, 'val')
    assert [data.get_data_info(i)['img_path'] for i in range(2)] == [
        str(lvis_root / 'val2017/000000000002.jpg'),
        str(lvis_root / 'train2017/000000000003.jpg')]
    (lvis_root / 'train2017/000000000003.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='val.json images entry 1: the '
                       'image .*train2017/000000000003.jpg does not exist'):
        lvis(lvis_root, 'val')
    skipping = lvis(lvis_root, 'val', on_error='skip', pipeline=LOAD)
    assert skipping[1]['data_samples'].skipped_images == [
        str(lvis_root / 'train2017/000000000003.jpg')]


def test_lvis_boxes_are_ratios_of_the_image(lvis_root):
    data = lvis(lvis_root)
    cat, cup = 2, 1
    found = data.boxes(0)
    assert {c: len(rows) for c, rows in found.items()} == {cat: 2, cup: 1}
    assert np.allclose(found[cat][0], [.1, .1, .3, .6])  # of 50 x 40 pixels
    assert data.boxes(2) == {}
    change(lvis_root / 'annotations/lvis_v1_train.json',
           lambda content: content['annotations'][0].pop('bbox') and None)
    assert lvis(lvis_root).boxes(0) is None


def test_names_of_lvis_read_as_words():
    # All pairs whose words are alike without what is in parentheses.
    names = ['bow_(weapon)', 'bow_(decorative_ribbons)', 'fish', 'fish_(food)',
             'octopus_(food)', 'octopus_(animal)', 'pan_(for_cooking)',
             'pan_(metal_container)', 'salmon_(fish)', 'salmon_(food)']
    words = [prompt_name(name) for name in names]
    assert len(set(words)) == len(names)
    assert not any(set('_()') & set(word) for word in words)
    assert prompt_name('flip-flop_(sandal)') == 'flip-flop'
    assert prompt_name('monitor_(computer_equipment) computer_monitor'
                       ) == 'monitor'
    assert prompt_name('cup_(x)', {'cup_(x)': 'mug_(x)'}) == 'mug (x)'


def entry(where, number, /, **values):
    """An edit of one entry of a list of LVIS's file; None takes one out."""
    def edit(content):
        content[where][number].update(values)
        for key, value in values.items():
            if value is None:
                del content[where][number][key]
    return edit


@pytest.mark.parametrize('edit, message', [
    (lambda content: content.pop('categories') and None,
     'is not a whole LVIS v1 file: it has no list "categories"'),
    (lambda content: content.update(images=3), 'it has no list "images"'),
    (lambda content: [content], 'it has no list "categories"'),
    (entry('images', 1, neg_category_ids=None),
     'images entry 1 has no "neg_category_ids", expected a list'),
    (entry('images', 1, neg_category_ids=5),
     "images entry 1: \"neg_category_ids\" is '5', expected a list"),
    (entry('images', 1, not_exhaustive_category_ids=None),
     'images entry 1 has no "not_exhaustive_category_ids"'),
    (entry('images', 1, not_exhaustive_category_ids=[99]),
     'images entry 1, not_exhaustive_category_ids has the category .99., '),
    (entry('images', 3, coco_url=None), 'images entry 3 has no "coco_url"'),
    (entry('images', 3, coco_url='a.jpg'), 'images entry 3: "coco_url" is '),
    (entry('images', 2, id=9), 'images entry 2: the image 9 is listed twice'),
    (entry('images', 2, id='6'), 'images entry 2: "id" is .6., expected a wh'),
    (entry('images', 2, id=None), 'images entry 2 has no "id"'),
    (entry('images', 0, neg_category_ids=[3]),
     'images entry 0: "cup" is present and absent'),
    (entry('images', 0, neg_category_ids=[99]),
     'images entry 0, neg_category_ids has the category .99., which is not '
     'among the 4 of this data set'),
    (entry('annotations', 2, category_id=99),
     'annotations entry 2 has the category .99.'),
    (entry('annotations', 2, category_id=None),
     'annotations entry 2 has no "category_id"'),
    (entry('annotations', 2, image_id=77),
     'annotations entry 2: the image 77 is not in the list of images'),
    (entry('categories', 1, frequency='x'),
     'categories entry 1: "frequency" is "x", and LVIS v1 has f, c, r'),
    (entry('categories', 1, id=3),
     'categories entry 1: the category 3 is listed twice'),
    (entry('categories', 1, name='tv'), 'has the class name "tv" twice'),
    (entry('categories', 1, name=None), 'categories entry 1 has no "name"'),
    (lambda content: content.update(images=[], annotations=[]),
     'lists no image'),
])
def test_lvis_errors_name_the_entry(lvis_root, edit, message):
    change(lvis_root / 'annotations/lvis_v1_train.json', edit)
    with pytest.raises(ValueError, match=f'lvis_v1_train.json.*{message}'):
        lvis(lvis_root)


def test_an_address_cannot_lead_out_of_the_folder(lvis_root):
    secret = trees.image(lvis_root.parent / 'secret.jpg')
    change(lvis_root / 'annotations/lvis_v1_train.json', entry(
        'images', 0, coco_url=f'http://x/../{secret.name}'))
    with pytest.raises(ValueError, match='outside of .*allow_outside=True'):
        lvis(lvis_root)


# VAW


@pytest.fixture
def vaw_root(tmp_path):
    trees.vaw(tmp_path)
    return tmp_path


PARTS = ['train_part1', 'train_part2']


def vaw(root, names=PARTS, **options):
    return VAW([f'{name}.json' for name in names], data_root=str(root),
               **options)


def test_vaw_labels_equal_a_loop(vaw_root):
    data = vaw(vaw_root)
    expected = [
        (f'{picture}.jpg', [
            PRESENT if name in present else ABSENT if name in absent
            else UNKNOWN for name in trees.VAW_ATTRIBUTES])
        for part in PARTS
        for picture, _, _, present, absent in trees.VAW_INSTANCES[part]]
    assert labels_of_entries(data) == expected
    assert label_matrix(data).tolist() == [row for _, row in expected]
    assert data.get_data_info(0)['img_path'] == str(vaw_root / 'VG_100K/1.jpg')
    assert data.get_data_info(2)['img_path'] == str(vaw_root
                                                    / 'VG_100K_2/2.jpg')
    assert [data.get_data_info(i)['instance_id'] for i in range(4)] == [
        1001, 1002, 2001, 2002]
    one = VAW('val.json', data_root=str(vaw_root))
    assert len(one) == 2


def test_vaw_groups_follow_the_official_evaluation(vaw_root):
    assert vaw(vaw_root).metainfo['groups'] == dict(
        head=['red', 'tall'], medium=['wooden'], tail=['sitting'],
        color=['red'],  # the first type that lists it
        materia=['wooden'], action=['sitting'], other=['tall'])


def test_vaw_samples_are_boxes(vaw_root):
    steps = [LOAD[0], dict(type='trm_ml_mm.CropBox'), LOAD[1]]
    data = vaw(vaw_root, pipeline=steps)
    whole = vaw(vaw_root, pipeline=LOAD)[1]['inputs'].numpy()
    assert whole.shape == (3, 40, 50)
    # x 30 to 70, y 10 to 30: cut off at the right border.
    assert np.array_equal(data[1]['inputs'], whole[:, 10:30, 30:50])
    assert np.array_equal(data[0]['inputs'], whole[:, :20, :11])  # 10.5 wide
    for transforms, size in ((data.pipeline.transforms, (20, 20)),
                             (vaw(vaw_root, pipeline=LOAD).pipeline.transforms,
                              (40, 50))):
        picture = load_object(transforms, data.get_data_info(1))['img']
        assert picture.shape[:2] == size


@pytest.mark.parametrize('box, margin, expected', [
    ([10, 10, 20, 10], 0., (10, 10, 30, 20)),
    ([10, 10, 20, 10], .5, (0, 5, 40, 25)),
    ([10, 10, 20, 10], .1, (8, 9, 32, 21)),
    ([-5, -5, 100, 100], 0., (0, 0, 50, 40)),
    ([45, 10, 20, 10], 1., (25, 0, 50, 30)),
    ([.2, .7, 1.5, .1], 0., (0, 0, 2, 1)),
])
def test_a_box_is_widened_and_cut_at_the_border(box, margin, expected):
    image = np.arange(40 * 50 * 3).reshape(40, 50, 3)
    left, top, right, bottom = expected
    found = CropBox(margin).transform(dict(img=image, crop_box=box))
    assert np.array_equal(found['img'], image[top:bottom, left:right])
    assert found['img_shape'] == (bottom - top, right - left)


@pytest.mark.parametrize('box', [[60, 0, 5, 5], [0, -9, 5, 9], [1, 1, 0, 5]])
def test_a_box_without_a_pixel_is_refused(box):
    with pytest.raises(ValueError, match='a.jpg, instance 7: the box .* has no'
                       ' pixel of the image, which is 50 x 40'):
        CropBox().transform(dict(img=np.zeros((40, 50, 3)), crop_box=box,
                                 img_path='a.jpg', instance_id=7))
    with pytest.raises(ValueError, match='has no crop_box: CropBox is for'):
        CropBox().transform(dict(img=np.zeros((40, 50, 3))))
    with pytest.raises(ValueError, match='margin must be a number'):
        CropBox(-.1)


def instance(number, **values):
    """An edit of one instance; None takes a value out."""
    def edit(content):
        content[number].update(values)
        for key, value in values.items():
            if value is None:
                del content[number][key]
    return edit


@pytest.mark.parametrize('edit, message', [
    (instance(1, positive_attributes=None),
     r'entry 1 \(instance 1002\) has no "positive_attributes"'),
    (instance(1, negative_attributes='red'),
     r'entry 1 \(instance 1002\): "negative_attributes" is .red., expected a'),
    (instance(1, positive_attributes=['shiny']),
     r'entry 1 \(instance 1002\), positive_attributes has the attribute '
     '.shiny., which is not among the 4'),
    (instance(1, positive_attributes=[['red']]), 'has the attribute .*red'),
    (instance(1, negative_attributes=['red', 'tall']),
     r'entry 1 \(instance 1002\): "tall" is present and absent'),
    (instance(1, instance_id=1001),
     'entry 1: the instance 1001 is already in .*part1.json entry 0'),
    (instance(1, instance_id='x'), 'entry 1: "instance_id" is .x., expected'),
    (instance(1, image_id=None), r'\(instance 1002\) has no "image_id"'),
    (instance(1, instance_bbox=[1, 2, 0, 3]),
     r'entry 1 \(instance 1002\): "instance_bbox" is \[1, 2, 0, 3\], expected'),
    (instance(1, instance_bbox=[1, 2, 3]), '"instance_bbox" is'),
    (instance(1, instance_bbox=[1, 2, 3, float('nan')]), '"instance_bbox" is'),
    (lambda content: dict(data=content), 'is not a VAW label file: it must be'),
    (lambda content: [3], 'entry 0 has no "instance_id"'),
])
def test_vaw_errors_name_the_entry(vaw_root, edit, message):
    change(vaw_root / 'train_part1.json', edit)
    with pytest.raises(ValueError, match=f'train_part1.json.* ?{message}'):
        vaw(vaw_root)


def test_vaw_names_a_missing_image_and_wrong_files(vaw_root):
    change(vaw_root / 'train_part2.json', instance(0, image_id='77'))
    with pytest.raises(FileNotFoundError, match=r'part2.json entry 0 \(instance'
                       r' 2001\): the image 77.jpg is in none of VG_100K, '):
        vaw(vaw_root)
    with pytest.raises(FileNotFoundError, match='Image folder .*nowhere does'):
        vaw(vaw_root, image_folders=['nowhere'])
    change(vaw_root / 'attribute_index.json',
           lambda content: content.update(red=4))
    with pytest.raises(ValueError, match='attribute_index.json is not the '
                       'attribute index of VAW'):
        vaw(vaw_root)


def test_vaw_needs_the_groups_of_all_attributes(vaw_root):
    change(vaw_root / 'head_tail.json', lambda content: dict(head=['red']))
    with pytest.raises(ValueError, match='head_tail.json has the attribute '
                       '"wooden" in none of head, medium, tail'):
        vaw(vaw_root)
    (vaw_root / 'head_tail.json').write_text('["red"]')
    with pytest.raises(ValueError, match='head_tail.json is not a file of VAW'):
        vaw(vaw_root)
    (vaw_root / 'head_tail.json').unlink()
    with pytest.raises(FileNotFoundError, match='head_tail.json does not exi'):
        vaw(vaw_root)


def test_objects_of_one_image_are_told_apart(vaw_root):
    """As hooks find the entry of a sample of a batch."""
    data = vaw(vaw_root, pipeline=LOAD)
    seen = PartialLabelDataset(data, known='all')
    for each in (data, seen, seen.get_subset([3, 1])):
        keys = [sample_key(each.get_data_info(i)) for i in range(len(each))]
        assert len(set(keys)) == len(each)
        assert keys == [sample_key(each[i]['data_samples'])
                        for i in range(len(each))]


def test_a_feature_cache_of_objects_is_refused(vaw_root, tiny_clip):
    """It knows images by their path."""
    cfg = load_config(str(ROOT / 'configs/trm_ml_vaw.py'), {
        'data_root': f'{vaw_root}/', 'arch': tiny_clip, 'image_size': 64,
        'model.backbone.weights': None})
    with pytest.raises(ValueError, match='The train set has boxes of images '
                       r'\(CropBox\), and a feature cache knows whole images'):
        CacheFiller(cfg, 'train', vaw_root / 'features', views=1)


# CheXpert


@pytest.fixture
def chexpert_root(tmp_path):
    trees.chexpert(tmp_path)
    return tmp_path


def chexpert(root, name='train.csv', **options):
    return CheXpert(name, str(root), **options)


@pytest.mark.parametrize('view', ['all', 'frontal'])
@pytest.mark.parametrize('blank', ['unknown', 'absent'])
@pytest.mark.parametrize('uncertain', ['unknown', 'present', 'absent'])
def test_chexpert_labels_equal_a_loop(chexpert_root, uncertain, blank, view):
    values = dict(unknown=UNKNOWN, present=PRESENT, absent=ABSENT)
    data = chexpert(chexpert_root, uncertain=uncertain, blank=blank, view=view)
    expected = []
    with open(chexpert_root / 'train.csv') as file:
        for row in csv.DictReader(file):
            if view == 'all' or row['Frontal/Lateral'] == 'Frontal':
                expected.append((
                    str(chexpert_root / row['Path'].split('/', 1)[1]),
                    [values[blank] if row[name] == '' else
                     values[uncertain] if float(row[name]) == -1
                     else int(float(row[name])) for name in FINDINGS]))
    assert len(expected) == (4 if view == 'all' else 3)
    infos = [data.get_data_info(i) for i in range(len(data))]
    assert [(info['img_path'], info['gt_score'].tolist())
            for info in infos] == expected
    assert label_matrix(data).tolist() == [row for _, row in expected]


def test_chexpert_is_read_from_a_folder_of_any_name(chexpert_root):
    path = chexpert_root / 'train.csv'
    whole = [info for info, _ in labels_of_entries(chexpert(chexpert_root))]
    text = path.read_text()
    for name in ('CheXpert-v1.0/', ''):
        path.write_text(text.replace('CheXpert-v1.0-small/', name))
        data = chexpert(chexpert_root)
        assert [info for info, _ in labels_of_entries(data)] == whole


def test_known_labels_of_chexpert_can_be_hidden(chexpert_root):
    data = chexpert(chexpert_root, 'valid.csv')
    assert not (label_matrix(data) == UNKNOWN).any()
    partial = PartialLabelDataset(data, known=.5)
    seen, hidden = partial.labels, partial.hidden_labels()
    assert 0 < (seen != UNKNOWN).sum() < seen.size
    assert np.array_equal(np.where(seen == UNKNOWN, hidden, seen),
                          label_matrix(data))


LINE = 'CheXpert-v1.0-small/train/patient00003/study2/view1_frontal.jpg'


@pytest.mark.parametrize('old, new, message', [
    ('Path,', 'File,', 'line 1 has no column "Path": it is not the header of'),
    ('Edema,', 'Oedema,', 'line 1 has no column "Edema"'),
    ('Support Devices', 'Support Devices,Report', 'line 1 has the column "Rep'),
    ('AP/PA', 'Age', 'line 1 has the column "Age" twice'),
    ('-1.0', '-1.5', 'line 3, column "Edema" has the value "-1.5", expected'),
    ('-1.0', 'unknown', 'line 3, column "Edema" has the value "unknown"'),
    ('68,Lateral', '68,Oblique',
     'line 4, column "Frontal/Lateral" has "Oblique", expected Frontal or'),
    ('Female,68,Lateral,', 'Female,68,Lateral', 'line 4 has 18 cells and the '
     'header 19'),
    (LINE, 'CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg',
     'line 5: the image ".*" is already in .*line 2'),
    (LINE, '', 'line 5 names no image'),
    (LINE, LINE.replace('003', '009'), 'line 5: image .* does not exist'),
    (LINE, '/etc/x.jpg', 'line 5: image /etc/x.jpg does not exist'),
])
def test_chexpert_errors_name_the_line(chexpert_root, old, new, message):
    path = chexpert_root / 'train.csv'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises((ValueError, FileNotFoundError),
                       match=f'train.csv {message}'):
        chexpert(chexpert_root)


@pytest.mark.parametrize('option', [
    dict(uncertain='ones'), dict(blank='present'), dict(view='lateral')])
def test_chexpert_refuses_unknown_policies(chexpert_root, option):
    name, value = next(iter(option.items()))
    with pytest.raises(ValueError, match=f'{name} must be .* got '
                       f'{re.escape(repr(value))}'):
        chexpert(chexpert_root, **option)


def test_frontal_images_need_the_column(chexpert_root):
    path = chexpert_root / 'train.csv'
    lines = [line.split(',') for line in path.read_text().splitlines()]
    path.write_text('\n'.join(','.join([*cells[:3], *cells[4:]])
                              for cells in lines))
    assert len(chexpert(chexpert_root)) == 4
    with pytest.raises(ValueError, match='no column "Frontal/Lateral"'):
        chexpert(chexpert_root, view='frontal')
