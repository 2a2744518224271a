"""Tiny folders laid out as the official downloads of the data sets are."""
import json

import cv2
import numpy as np

from trm_ml_mm.datasets import CUB_ATTRIBUTES, NUS_CLASSES

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


MAKERS = dict(CocoMultiLabel=coco, VOCMultiLabel=voc, VG200=vg200,
              OpenImages=open_images,
              NUSWide=nuswide, CUBAttributes=cub, CSVMultiLabel=csv)
