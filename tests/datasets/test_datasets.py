"""Data sets on made trees: labels, order, and errors that name the place."""
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import trees
from tests_support import ROOT

from trm_ml_mm.datasets import (
    CUB_ATTRIBUTES,
    NUS_CLASSES,
    VG200,
    VOC_CLASSES,
    CSVMultiLabel,
    CUBAttributes,
    JSONMultiLabel,
    NUSWide,
    PartialLabelDataset,
    Scenes,
    VOCMultiLabel,
    label_matrix,
    prompt_name,
    scores_from_pascal,
)


def present(dataset):
    """Per image the set of present class names, by file name."""
    classes = dataset.metainfo['classes']
    return [{classes[c] for c in dataset.get_cat_ids(i)}
            for i in range(len(dataset))]


# PASCAL VOC


def voc(root, **options):
    return VOCMultiLabel('ImageSets/Main/trainval.txt', str(root), **options)


def test_voc_keeps_the_order_of_the_list_and_its_policies(tmp_path):
    trees.voc(tmp_path)
    person = VOC_CLASSES.index('person')
    for policy, value in (('negative', 0), ('unknown', -1), ('positive', 1)):
        data = voc(tmp_path, difficult=policy)
        labels = label_matrix(data)
        assert [data.get_data_info(i)['img_id'] for i in range(3)
                ] == ['c', 'a', 'b']
        assert labels[:, person].tolist() == [value, 0, value]
        assert labels[1, VOC_CLASSES.index('dog')] == 1


@pytest.mark.parametrize('policy', ['negative', 'unknown', 'positive'])
@pytest.mark.parametrize('split', ['trainval', 'test'])
def test_real_voc_sample_equals_a_loop(sample_data, policy, split):
    root = sample_data / 'voc_sample'
    counts = dict(positive=0, unknown=0, negative=0)
    names = (root / f'ImageSets/Main/{split}.txt').read_text().split()
    for name in names:
        easy, hard = set(), set()
        xml = ElementTree.parse(root / f'Annotations/{name}.xml')
        for thing in xml.findall('object'):
            kind = hard if thing.find('difficult').text == '1' else easy
            kind.add(thing.find('name').text)
        counts['positive'] += len(easy)
        counts[policy] += len(hard - easy)
        counts['negative'] += 20 - len(easy | hard)
    data = VOCMultiLabel(f'ImageSets/Main/{split}.txt', str(root),
                         difficult=policy)
    labels = label_matrix(data)
    assert labels.shape == (50, 20) and len(names) == 50
    for kind, value in (('positive', 1), ('unknown', -1), ('negative', 0)):
        assert (labels == value).sum() == counts[kind], kind


def test_pascal_coding():
    coding = np.array([[1, 0, -1]])
    for policy, value in (('negative', 0), ('unknown', -1), ('positive', 1)):
        assert scores_from_pascal(coding, policy).tolist() == [[1, value, 0]]


def test_voc_errors(tmp_path):
    trees.voc(tmp_path)
    with pytest.raises(ValueError, match="difficult is one of .* 'skip'"):
        voc(tmp_path, difficult='skip')
    path = tmp_path / 'Annotations/a.xml'
    whole = path.read_text()
    path.write_text(whole[:40])
    with pytest.raises(ValueError, match='a.xml is not a whole VOC'):
        voc(tmp_path)
    path.write_text(whole.replace('dog', 'unicorn'))
    with pytest.raises(ValueError, match='a.xml has an object "unicorn"'):
        voc(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match='a.xml does not exist'):
        voc(tmp_path)
    with pytest.raises(FileNotFoundError, match='image list .*none.txt'):
        VOCMultiLabel('ImageSets/Main/none.txt', str(tmp_path))


# VG-200


def vg(root, **options):
    return VG200('train_list_500.txt', str(root), **options)


def test_vg200_finds_images_in_both_folders(tmp_path):
    trees.vg200(tmp_path)
    data = vg(tmp_path)
    assert present(data) == [{'thing 0', 'thing 199'}, set()]
    assert data.get_data_info(0)['img_path'].endswith('VG_100K/1.jpg')
    assert data.get_data_info(1)['img_path'].endswith('VG_100K_2/2.jpg')
    test = VG200('test_list_500.txt', str(tmp_path))
    assert present(test) == [{'thing 5'}, {'thing 7'}]  # 7 is there twice


def test_vg200_errors(tmp_path):
    trees.vg200(tmp_path)
    names = tmp_path / 'category_names.txt'
    names.write_text('\n'.join(names.read_text().split('\n')[:150]))
    with pytest.raises(ValueError, match='has 150 names, and VG-200 has 200'):
        vg(tmp_path)
    names.unlink()
    with pytest.raises(FileNotFoundError,
                       match='needs the names .*category_names.txt'):
        vg(tmp_path)
    options = dict(classes=[f't{i}' for i in range(200)])
    (tmp_path / 'VG_100K_2/2.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='line 2: .*2.jpg is in no'):
        vg(tmp_path, **options)
    (tmp_path / 'vg_category_200_labels_index.json').write_text('{"1.jpg": [')
    with pytest.raises(ValueError, match='index.json line 1 .*is cut off'):
        vg(tmp_path, **options)
    trees.image(tmp_path / 'VG_100K_2/2.jpg')
    for wrong in '[3, -1]', '[200]', '[null]', '3':
        (tmp_path / 'vg_category_200_labels_index.json').write_text(
            f'{{"1.jpg": {wrong}, "2.jpg": []}}')
        with pytest.raises(ValueError, match='gives 1.jpg the categories '):
            vg(tmp_path, **options)
    (tmp_path / 'vg_category_200_labels_index.json').write_text('["1.jpg"]')
    with pytest.raises(ValueError, match='must be an object'):
        vg(tmp_path, **options)
    (tmp_path / 'vg_category_200_labels_index.json').write_text('{}')
    with pytest.raises(ValueError, match='image 1.jpg has no labels in'):
        vg(tmp_path, **options)
    with pytest.raises(FileNotFoundError, match='None of the image folders'):
        vg(tmp_path, image_folders=('nowhere', ), **options)


# NUS-WIDE


def test_nus_wide_looks_labels_up_in_the_whole_list(tmp_path):
    trees.nuswide(tmp_path)
    data = NUSWide(data_root=str(tmp_path))
    # The training list has images 3, 2, 1, in that order.
    assert present(data) == [
        {NUS_CLASSES[i], NUS_CLASSES[80 - i]} for i in (3, 2, 1)]
    assert data.get_data_info(0)['img_path'].endswith('Flickr/actor/0003_3.jpg')
    for images, count in (('all', 2), ('annotated', 1)):
        assert len(NUSWide('ImageList/TestImagelist.txt', str(tmp_path),
                           images=images)) == count


def test_nus_wide_errors(tmp_path):
    trees.nuswide(tmp_path)
    (tmp_path / 'own.txt').write_text('actor\\0001_1.jpg\n\nactor\\9.jpg\n')
    with pytest.raises(ValueError, match='line 3: image actor/9.jpg is not in'):
        NUSWide('own.txt', str(tmp_path))
    path = tmp_path / 'Groundtruth/AllLabels/Labels_bear.txt'
    path.write_text('0\n1\n')
    with pytest.raises(ValueError, match='Labels_bear.txt has 2 labels .* 5 '):
        NUSWide(data_root=str(tmp_path))
    path.write_text('0\n1\n0\n2\n0\n')
    with pytest.raises(ValueError, match='Labels_bear.txt has the label "2"'):
        NUSWide(data_root=str(tmp_path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match='Labels_bear.txt does not'):
        NUSWide(data_root=str(tmp_path))


# CUB-200-2011


def test_cub_labels_equal_the_file(tmp_path):
    trees.cub(tmp_path)
    train = CUBAttributes('train', str(tmp_path))
    assert len(train) == 2 and len(CUBAttributes('test', str(tmp_path))) == 1
    for row, image in enumerate((1, 3)):
        expected = [int(a % (image + 1) == 0) for a in range(1, 313)]
        assert label_matrix(train)[row].tolist() == expected


def test_cub_errors(tmp_path):
    trees.cub(tmp_path)
    with pytest.raises(ValueError, match="'train' or 'test', got 'val'"):
        CUBAttributes('val', str(tmp_path))
    path = tmp_path / 'attributes/image_attribute_labels.txt'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[:-5]))
    with pytest.raises(ValueError, match='image 3 has no label of attribute'):
        CUBAttributes('train', str(tmp_path))
    path.write_text('\n'.join([*lines[:2], '1 3 maybe 3 1.0', *lines[3:]]))
    with pytest.raises(ValueError, match='line 3 is "1 3 maybe'):
        CUBAttributes('train', str(tmp_path))
    (tmp_path / 'train_test_split.txt').write_text('1 1\n')
    with pytest.raises(ValueError, match='lacks image 2 of images.txt'):
        CUBAttributes('train', str(tmp_path))


def test_attributes_read_as_words():
    words = {n: prompt_name(n) for n in CUB_ATTRIBUTES}
    assert len(CUB_ATTRIBUTES) == len(set(words.values())) == 312
    assert not any(set('_:()') & set(w) for w in words.values())
    assert words['has_bill_shape::curved_(up_or_down)'] == 'curved bill shape'
    assert words['has_tail_shape::forked_tail'] == 'forked tail'
    assert words['has_wing_shape::rounded-wings'] == 'rounded wings'
    assert words['has_bill_length::longer_than_head'
                 ] == 'bill length longer than head'
    assert len(NUS_CLASSES) == 81


# CSV


def csv(root, text=None, **options):
    if text is not None:
        (root / 'train.csv').write_text(text)
    return CSVMultiLabel('train.csv', str(root), 'images', **options)


def test_csv_columns(tmp_path):
    trees.csv(tmp_path)
    data = csv(tmp_path)
    assert data.metainfo['classes'] == ('dog', 'hot dog', 'red car')
    expected = [[1, 0, -1], [-1, -1, 1], [0, 0, 0]]
    assert label_matrix(data).tolist() == expected
    turned = csv(tmp_path, classes=['red car', 'dog', 'hot dog'])
    assert label_matrix(turned)[0].tolist() == [-1, 1, 0]


def test_csv_lists(tmp_path):
    trees.csv(tmp_path)
    data = csv(tmp_path, 'image,negative,positive\na.jpg,hot dog,dog; red car\n'
               'b.jpg,,\n"c.jpg",dog;hot dog,\n',
               classes=['dog', 'hot dog', 'red car'])
    assert label_matrix(data).tolist() == [[1, 0, 1], [-1, -1, -1], [0, 0, -1]]


def test_csv_as_spreadsheets_save_it(tmp_path):
    trees.csv(tmp_path)
    (tmp_path / 'train.csv').write_bytes(
        b'\xef\xbb\xbf' + trees.CSV.replace('\n', '\r\n').encode() + b'\r\n')
    assert label_matrix(csv(tmp_path))[0].tolist() == [1, 0, -1]


@pytest.mark.parametrize('text,options,message', [
    (',,\n', {}, 'no header line'),
    ('image,dog\na.jpg,2\n', {}, 'train.csv line 2, column "dog" has the '
     'value "2"'),
    ('image,dog\na.jpg,1\nx.jpg,\n', {}, 'line 3: image .*x.jpg does not'),
    ('image,dog\na.jpg,1\n\na.jpg,\n', {}, 'line 4: the image "a.jpg" is '
     'already in .*line 2'),
    ('image,dog\na.jpg,1\n./a.jpg,0\n', {}, 'line 3: the image "./a.jpg"'),
    ('image,dog,\na.jpg,1,\n', {}, 'line 1: column 3 has no name'),
    ('image,positive,negatives\na.jpg,dog,\n', dict(classes=['dog']),
     'line 1: the column "negatives" is neither'),
    ('image;dog\na.jpg;1\n', {}, 'seems to be separated by ";"'),
    ('image,dog\na.jpg,1\n"b.jpg,1\nc.jpg,0\n', {}, 'line 3 cannot be read'),
    ('image,dog\n,1\n', {}, 'line 2 names no image'),
    ('image,dog,cat\na.jpg,1\n', {}, 'line 2 has 2 cells and the header 3'),
    ('file,dog\na.jpg,1\n', {}, 'line 1 has no column "image" but file, dog'),
    ('image,dog,dog\na.jpg,1,1\n', {}, 'line 1 has the column "dog" twice'),
    ('image,dog\n', {}, 'train.csv has a header and no image'),
    ('image\na.jpg\n', {}, 'no column of labels'),
    ('', {}, 'CSV file .*train.csv is empty'),
    ('image,dog\na.jpg,1\n', dict(classes=['dog', 'cat']),
     'line 1: "cat" is among classes but no column'),
    ('image,dog,cat\na.jpg,1,\n', dict(classes=['dog']),
     'line 1: "cat" is a column of the file but not'),
    ('image,positive\na.jpg,cow\n', dict(classes=['dog']),
     'line 2, column "positive" has "cow"'),
    ('image,positive\na.jpg,cow\n', {}, 'needs classes'),
    ('image,positive,negative\na.jpg,dog,dog\n', dict(classes=['dog']),
     'line 2 has "dog" both as present and as absent'),
])
def test_csv_errors_name_the_line(tmp_path, text, options, message):
    trees.csv(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        csv(tmp_path, text, **options)


def test_csv_in_another_encoding(tmp_path):
    trees.csv(tmp_path)
    (tmp_path / 'train.csv').write_bytes('image,Bär\na.jpg,1\n'.encode(
        'latin-1'))
    with pytest.raises(ValueError, match='train.csv line 1 is not UTF-8'):
        csv(tmp_path)


# JSON


def test_json_with_unknowns(tmp_path):
    content = dict(
        metainfo=dict(classes=['dog', 'cat', 'car']),
        data_list=[dict(img_path='a.jpg', gt_label=[0, 2, 2]),
                   dict(img_path='b.jpg', gt_score=[1, -1, 0])])
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(content))
    for name in 'ab':
        trees.image(tmp_path / f'{name}.jpg')
    data = JSONMultiLabel('labels.json', data_root=str(tmp_path))
    assert label_matrix(data).tolist() == [[1, 0, 1], [1, -1, 0]]
    assert data.get_data_info(0)['img_path'] == str(tmp_path / 'a.jpg')
    assert list(data.metainfo['classes']) == ['dog', 'cat', 'car']

    def refused(message, text):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            JSONMultiLabel('labels.json', data_root=str(tmp_path))

    refused('labels.json line 1 column .*is cut off', json.dumps(content)[:-9])
    refused('an object with "metainfo"', json.dumps(
        dict(content, metainfo={})))
    refused('an object with "metainfo"', json.dumps(
        dict(content, metainfo=dict(classes='dog'))))
    refused('an object with "metainfo"', '[]')
    refused('has an empty "data_list"', json.dumps(dict(content,
                                                        data_list=[])))
    twice = dict(content, data_list=content['data_list'][:1] * 2)
    refused('entry 1: the image "a.jpg" is already in .*entry 0',
            json.dumps(twice))
    for label in (['dog'], [.7], 'dog', [[0]], [10**400]):
        wrong = dict(content, data_list=[dict(img_path='a.jpg',
                                              gt_label=label)])
        refused('entry 0: gt_label is a list of indices', json.dumps(wrong))
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match='other classes, or another order'):
        JSONMultiLabel('labels.json', data_root=str(tmp_path),
                       metainfo=dict(classes=['cat', 'dog', 'car']))
    content['data_list'][1]['gt_score'] = [1, -1]
    refused('labels.json entry 1, b.jpg: gt_score has shape',
            json.dumps(content))
    content['data_list'][1].pop('gt_score')
    refused('labels.json entry 1 needs', json.dumps(content))


# Images that cannot be read


LOAD = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


def test_an_undecodable_image_is_named(tmp_path):
    trees.csv(tmp_path)
    (tmp_path / 'images/b.jpg').write_bytes(b'no picture')
    data = csv(tmp_path, pipeline=LOAD)
    data[0]
    for dataset in (data, PartialLabelDataset(data, known='all')):
        with pytest.raises(ValueError, match='Image .*b.jpg cannot be decoded'):
            dataset[1]
    for broken in (b'', trees.image(tmp_path / 'x.jpg').read_bytes()[:60]):
        (tmp_path / 'images/b.jpg').write_bytes(broken)
        with pytest.raises(ValueError, match='b.jpg cannot be decoded'):
            data[1]


def test_skipping_takes_the_next_image_and_says_so(tmp_path):
    trees.csv(tmp_path)
    (tmp_path / 'images/b.jpg').write_bytes(b'no picture')
    data = csv(tmp_path, pipeline=LOAD, on_error='skip')
    for dataset in (data, PartialLabelDataset(data, known='all')):
        sample = dataset[1]['data_samples']
        assert sample.img_path.endswith('c.jpg')
        assert sample.gt_score.tolist() == [0, 0, 0]
        assert [p[-5:] for p in sample.skipped_images] == ['b.jpg']
        assert 'skipped_images' not in dataset[0]['data_samples']
    (tmp_path / 'images/c.jpg').unlink()  # a missing one too
    assert data[1]['data_samples'].img_path.endswith('a.jpg')
    (tmp_path / 'images/a.jpg').unlink()
    with pytest.raises(ValueError, match='None of the 3 images can be read'):
        data[1]
    with pytest.raises(ValueError, match='for training'):
        csv(tmp_path, on_error='skip', test_mode=True)
    with pytest.raises(ValueError, match="'raise' or 'skip'"):
        csv(tmp_path, on_error='never')


def test_errors_of_transforms_stay_themselves(tmp_path):
    trees.csv(tmp_path)

    def opens(results):
        return open(tmp_path / 'no such map.png')

    with pytest.raises(FileNotFoundError, match='no such map'):
        csv(tmp_path, pipeline=[LOAD[0], opens], on_error='skip')[0]

    def wrong(results):
        raise RuntimeError('of a transform')

    data = csv(tmp_path, pipeline=[LOAD[0], wrong])
    with pytest.raises(RuntimeError, match='of a transform'):
        data[0]


def test_several_sets_share_one_mask(tmp_path):
    """As VOC 2007 and 2012 do: one mask over the concatenation."""
    for name in ('one', 'two'):
        trees.csv(tmp_path / name)
    both = PartialLabelDataset(dict(
        type='ConcatDataset', datasets=[
            dict(type='trm_ml_mm.CSVMultiLabel', ann_file='train.csv',
                 data_root=str(tmp_path / name), data_prefix='images',
                 pipeline=LOAD) for name in ('one', 'two')]), known='all')
    assert both.mask.shape == (6, 3)
    assert both.labels[4].tolist() == [-1, -1, 1]
    assert both[4]['data_samples'].img_path == str(tmp_path /
                                                   'two/images/b.jpg')


@pytest.mark.parametrize('file', ['README.md', 'docs/index.md',
                                  'docs/own_photos.md', 'docs/data.md'])
def test_documented_csv_examples_are_read(tmp_path, file):
    blocks = re.findall('```csv\n(.*?)```', (ROOT / file).read_text(), re.S)
    assert blocks
    for text in blocks:
        for name in re.findall('^[^,]+[.]jpg', text, re.M):
            trees.image(tmp_path / 'images' / name)
        data = csv(tmp_path, text, classes=(
            ['dog', 'cat', 'red car'] if 'positive' in text else None))
        assert label_matrix(data)[:2].tolist() == [
            [1, 0, -1], [-1, -1, 1]]


@pytest.mark.parametrize('name', ['../../secret.jpg', 'ABSOLUTE'])
def test_images_outside_of_the_folder_are_refused(tmp_path, name):
    trees.image(tmp_path / 'secret.jpg')
    if name == 'ABSOLUTE':
        name = str(tmp_path / 'secret.jpg')
    root = tmp_path / 'data'
    (root / 'images').mkdir(parents=True)
    with pytest.raises(ValueError, match='outside of .*allow_outside=True'):
        csv(root, f'image,dog\n{name},1\n')
    data = csv(root, f'image,dog\n{name},1\n', allow_outside=True)
    assert len(data) == 1


def test_labels_that_nothing_can_be_learned_from(tmp_path, monkeypatch):
    for name in 'ab':
        trees.image(tmp_path / f'images/{name}.jpg')
    data = csv(tmp_path, 'image,dog,cat\na.jpg,,\nb.jpg,,\n')
    with pytest.raises(ValueError, match='No label is known'):
        PartialLabelDataset(data, known='all')
    log = []
    monkeypatch.setattr('trm_ml_mm.datasets.partial_labels.print_log',
                        lambda text, *args: log.append(text))
    PartialLabelDataset(csv(tmp_path, 'image,dog,cat\na.jpg,1,\n'),
                        known='all')
    assert log[0].startswith('1 of 2 classes') and 'only one image' in log[1]


def test_many_classes_are_read_in_linear_time(tmp_path):
    """Twice as many classes do not take four times as many comparisons."""
    trees.image(tmp_path / 'images/a.jpg')

    class Name(str):
        compared = 0

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    counts = []
    for number in (1000, 2000):
        names = [Name(f'thing {i}') for i in range(number)]
        Name.compared = 0
        csv(tmp_path, 'image,positive,negative\na.jpg,'
            + ';'.join(names) + ',\n', classes=names)
        counts.append(Name.compared)
    assert counts[1] < 3 * counts[0] + 1000


def test_a_loop_over_a_data_set_ends():
    data = Scenes(num_images=3)
    for each in (data, PartialLabelDataset(data, known='all')):
        assert len(list(each)) == 3
        with pytest.raises(IndexError, match='3 samples, and no sample 3'):
            each[3]
