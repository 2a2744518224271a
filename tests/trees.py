"""Tiny folders laid out as the official downloads of the data sets are."""
import json

import cv2
import numpy as np

from trm_ml_mm.datasets import CUB_ATTRIBUTES, NUS_CLASSES
from trm_ml_mm.datasets.chexpert import FINDINGS

SPLITS = ('train', 'test')


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(len(path.name)).randint(
        0, 255, (40, 50, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def coco(root, year=2014):
    categories = [dict(id=1, name='person'), dict(id=18, name='dog')]
    for split in ('train', 'val'):
        images = [dict(id=i, file_name=f'{split}_{i}.jpg') for i in range(3)]
        for entry in images:
            image(root / f'{split}{year}' / entry['file_name'])
        boxes = [dict(image_id=0, category_id=1),
                 dict(image_id=1, category_id=18)]
        path = root / f'annotations/instances_{split}{year}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(
            images=images, categories=categories, annotations=boxes)))


VOC_OBJECTS = {  # image -> (class, difficult)
    'a': [('dog', 0), ('dog', 1)],
    'b': [('person', 1)],
    'c': [('tvmonitor', 0), ('person', 1)],
}


def voc(root, year=2007):
    for name, objects in VOC_OBJECTS.items():
        image(root / f'JPEGImages/{name}.jpg')
        xml = ''.join(f'<object><name>{n}</name><difficult>{d}</difficult>'
                      '</object>' for n, d in objects)
        path = root / f'Annotations/{name}.xml'
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'<annotation>{xml}</annotation>')
    for split in ('train', 'val', 'trainval', 'test'):
        path = root / f'ImageSets/Main/{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('c\na\nb\n')


def vg200(root):
    names = {'train': ['1.jpg', '2.jpg'], 'test': ['3.jpg', '4.jpg']}
    for split, files in names.items():
        (root / f'{split}_list_500.txt').write_text('\n'.join(files) + '\n')
    image(root / 'VG_100K/1.jpg')
    for name in ('2', '3', '4'):
        image(root / f'VG_100K_2/{name}.jpg')
    (root / 'vg_category_200_labels_index.json').write_text(json.dumps({
        '1.jpg': [0, 199], '2.jpg': [], '3.jpg': [5], '4.jpg': [7, 7]}))
    (root / 'category_names.txt').write_text(
        '\n'.join(f'thing {i}' for i in range(200)))


NUS_FILES = [f'actor\\{i:04}_{i}.jpg' for i in range(5)]


def nuswide(root):
    for name in NUS_FILES:
        image(root / 'Flickr' / name.replace('\\', '/'))
    lists = {'Imagelist': NUS_FILES, 'TrainImagelist': NUS_FILES[3:0:-1],
             'TestImagelist': [NUS_FILES[0], NUS_FILES[4]]}
    for name, files in lists.items():
        path = root / f'ImageList/{name}.txt'
        path.parent.mkdir(exist_ok=True)
        path.write_text('\n'.join(files) + '\n')
    labels = root / 'Groundtruth/AllLabels'
    labels.mkdir(parents=True)
    for c, name in enumerate(NUS_CLASSES):
        # Image i has concepts i and 80 - i; the last image has none.
        (labels / f'Labels_{name}.txt').write_text(''.join(
            f'{int(i < 4 and c in (i, 80 - i))}\r\n' for i in range(5)))


def cub(root):
    names = ['1 001.A/x.jpg', '2 001.A/y.jpg', '3 002.B/z.jpg']
    for name in names:
        image(root / 'images' / name.split()[1])
    (root / 'images.txt').write_text('\n'.join(names) + '\n')
    (root / 'train_test_split.txt').write_text('1 1\n2 0\n3 1\n')
    lines = []
    for i in (1, 2, 3):
        for a in range(1, len(CUB_ATTRIBUTES) + 1):
            # Some official lines have a cell more.
            lines.append(f'{i} {a} {int(a % (i + 1) == 0)} 3 27.7'
                         f'{" 0" if a == 4 else ""}')
    (root / 'attributes').mkdir()
    (root / 'attributes/image_attribute_labels.txt').write_text(
        '\n'.join(lines) + '\n')


CSV = 'image,dog,hot dog,red car\na.jpg,1,0,\nb.jpg,,,1.0\nc.jpg,0,0,0\n'


def csv(root):
    for name in 'abc':
        image(root / f'images/{name}.jpg')
    for split in ('train', 'val'):
        (root / f'{split}.csv').write_text(CSV)


OPEN_IMAGES_CLASSES = {'/m/01': 'Animal', '/m/02': 'Dog', '/m/03': 'Orange',
                       '/m/04': 'Orange', '/m/05': 'Tree, old'}
# (Image, class, confidence); the last class is in no list of classes.
OPEN_IMAGES_LABELS = dict(
    train=[(0xfedcba9876543210, '/m/02', 1), (1, '/m/01', 0),
           (0xfedcba9876543210, '/m/03', 0), (1, '/m/04', 1),
           (2, '/m/05', 1), (3, '/m/03', 1)],
    validation=[(4, '/m/01', 1), (5, '/m/01', 0), (5, '/m/04', 1)],
    test=[(6, '/m/02', 1), (7, '/m/02', 0), (7, '/m/03', 1)])


def open_images(root):
    (root / 'oidv6-class-descriptions.csv').write_text(
        'LabelName,DisplayName\n' + ''.join(
            f'{mid},"{name}"\n' if ',' in name else f'{mid},{name}\n'
            for mid, name in OPEN_IMAGES_CLASSES.items()))
    (root / 'oidv6-classes-trainable.txt').write_text(
        '\n'.join(list(OPEN_IMAGES_CLASSES)[:4]) + '\n')
    names = dict(train='oidv6-train')
    for split, labels in OPEN_IMAGES_LABELS.items():
        path = root / (f'{names.get(split, split)}-annotations-human-'
                       'imagelabels.csv')
        path.write_text('ImageID,Source,LabelName,Confidence\n' + ''.join(
            f'{number:016x},verification,{mid},{value}\n'
            for number, mid, value in labels))
        for number, *_ in labels:
            image(root / split / f'{number:016x}.jpg')


LVIS_CATEGORIES = [  # id, name, frequency; in no order
    (3, 'cup', 'c'), (1, 'bow_(weapon)', 'r'), (7, 'tv', 'f'), (5, 'cat', 'f')]
# Image, its folder, categories with an annotation, and absent ones. Of the
# first image, not all cats are annotated.
LVIS_IMAGES = dict(
    train=[(9, 'train2017', [5, 5, 3], [7]), (4, 'train2017', [1], [5, 3]),
           (6, 'train2017', [], []), (8, 'train2017', [7], [1])],
    val=[(2, 'val2017', [7, 5], [3, 1]), (3, 'train2017', [3, 1], [5, 7])])


def lvis(root):
    for split, images in LVIS_IMAGES.items():
        content = dict(images=[], annotations=[], categories=[
            dict(id=one, name=name, frequency=frequency, synset=f'{name}.n.01',
                 synonyms=[name], **{'def': 'a thing'})
            for one, name, frequency in LVIS_CATEGORIES])
        for one, folder, present, absent in images:
            file = f'{one:012}.jpg'
            image(root / folder / file)
            content['images'].append(dict(
                id=one, width=50, height=40, neg_category_ids=absent,
                not_exhaustive_category_ids=[5] if one == 9 else [],
                coco_url=f'http://images.cocodataset.org/{folder}/{file}'))
            content['annotations'] += [
                dict(id=len(content['annotations']) + i, image_id=one,
                     category_id=category, area=50., bbox=[5., 4., 10., 20.],
                     segmentation=[[5., 4., 15., 4., 15., 24.]])
                for i, category in enumerate(present)]
        path = root / f'annotations/lvis_v1_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


VAW_ATTRIBUTES = ['red', 'wooden', 'tall', 'sitting']
# Image, instance, box, present, absent: two instances of one image.
VAW_INSTANCES = dict(
    train_part1=[('1', '1001', [0., 0., 10.5, 20.], ['red'], ['wooden']),
                 (1, 1002, [30, 10, 40, 20], ['wooden', 'tall'], ['red'])],
    train_part2=[('2', '2001', [10, 10, 30, 20], [], ['tall', 'sitting']),
                 ('2', '2002', [0, 0, 50, 40], ['sitting'], [])],
    val=[('3', '3001', [5, 5, 20, 20], ['red', 'tall'], ['wooden']),
         ('3', '3002', [5, 5, 9, 9], ['wooden'], ['red', 'tall'])],
    test=[('4', '4001', [5, 5, 20, 20], ['red', 'sitting'], ['wooden']),
          ('4', '4002', [5, 5, 9, 9], ['wooden'], ['red', 'sitting'])])


def vaw(root):
    for number, folder in enumerate(['VG_100K', 'VG_100K_2'] * 2, 1):
        image(root / folder / f'{number}.jpg')
    for split, instances in VAW_INSTANCES.items():
        (root / f'{split}.json').write_text(json.dumps([
            dict(image_id=picture, instance_id=one, instance_bbox=box,
                 instance_polygon=None, object_name='thing',
                 positive_attributes=present, negative_attributes=absent)
            for picture, one, box, present, absent in instances]))
    for name, content in dict(
            attribute_index={name: i for i, name in enumerate(VAW_ATTRIBUTES)},
            head_tail=dict(head=['red', 'tall'], medium=['wooden'],
                           tail=['sitting', 'blue']),
            attribute_types=dict(color=['red'], material=['wooden', 'red'],
                                 pose=['sitting']),
            attribute_parent_types=dict(
                color=['color'], materia=['material'], action=['pose'],
                other=['other'])).items():
        (root / f'{name}.json').write_text(json.dumps(content))


# Values of some findings; the others are blank.
CHEXPERT_ROWS = dict(
    train=[('patient00001/study1/view1_frontal.jpg', 'Frontal',
            {'No Finding': '1.0', 'Pneumothorax': '0.0'}),
           ('patient00002/study1/view1_frontal.jpg', 'Frontal',
            {'Edema': '-1.0', 'Fracture': '1.0', 'No Finding': '0.0'}),
           ('patient00002/study1/view2_lateral.jpg', 'Lateral',
            {'Edema': '-1.0', 'Fracture': '1.0', 'Lung Opacity': '1.0'}),
           ('patient00003/study2/view1_frontal.jpg', 'Frontal',
            {'Lung Opacity': '0.0', 'Fracture': '0.0'})],
    valid=[('patient64541/study1/view1_frontal.jpg', 'Frontal',
            {name: '0.0' for name in FINDINGS} | {'Edema': '1.0'}),
           ('patient64542/study1/view1_frontal.jpg', 'Frontal',
            {name: '1.0' for name in FINDINGS} | {'Edema': '0.0'})])


def chexpert(root):
    for split, rows in CHEXPERT_ROWS.items():
        lines = [','.join(('Path', 'Sex', 'Age', 'Frontal/Lateral', 'AP/PA',
                           *FINDINGS))]
        for path, view, values in rows:
            image(root / split / path)
            lines.append(','.join((
                f'CheXpert-v1.0-small/{split}/{path}', 'Female', '68', view,
                'AP' if view == 'Frontal' else '',
                *(values.get(name, '') for name in FINDINGS))))
        (root / f'{split}.csv').write_text('\n'.join(lines) + '\n')


MAKERS = dict(CocoMultiLabel=coco, VOCMultiLabel=voc, VG200=vg200,
              OpenImages=open_images, LVIS=lvis, VAW=vaw, CheXpert=chexpert,
              NUSWide=nuswide, CUBAttributes=cub, CSVMultiLabel=csv)
