"""Open Images: labels equal a plain loop, and errors name file and line."""
import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import trees
from mmengine.dataset import DefaultSampler

from trm_ml_mm.datasets import (
    LeanSampler,
    OpenImages,
    PartialLabelDataset,
    label_matrix,
)
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

HEADER = 'ImageID,Source,LabelName,Confidence\n'
TRAIN = 'oidv6-train-annotations-human-imagelabels.csv'


@pytest.fixture
def root(tmp_path):
    trees.open_images(tmp_path)
    return tmp_path


def opened(root, ann_file=TRAIN, **options):
    return OpenImages(ann_file, str(root), **options)


def loop(root, classes, ann_file=TRAIN):
    """Image -> class -> label, line by line."""
    found = {}
    with open(root / ann_file) as file:
        for row in csv.DictReader(file):
            if row['LabelName'] in classes:
                found.setdefault(row['ImageID'], {})[row['LabelName']] = int(
                    row['Confidence'])
    return found


def test_labels_equal_a_loop_over_the_lines(root):
    data = opened(root)
    mids = list(trees.OPEN_IMAGES_CLASSES)[:4]
    expected = loop(root, mids)
    names = sorted(expected)  # images in the order of their IDs
    assert data.metainfo['classes'] == ['Animal', 'Dog', 'Orange (/m/03)',
                                        'Orange (/m/04)']
    assert len(data) == len(expected) == 3
    assert label_matrix(data).tolist() == [
        [expected[name].get(mid, UNKNOWN) for mid in mids] for name in names]
    for i, name in enumerate(names):
        info = data.get_data_info(i)
        assert info['img_path'] == str(root / f'train/{name}.jpg')
        assert info['gt_score'].tolist() == label_matrix(data)[i].tolist()
    assert data.get_cat_ids(0) == [3]
    seen = PartialLabelDataset(data, 'all')
    assert (seen.labels == label_matrix(data)).all()
    for subset in (data.get_subset([2, 0]), opened(root, indices=[2, 0])):
        assert label_matrix(subset).tolist() == label_matrix(
            data)[[2, 0]].tolist()
        assert subset.get_data_info(0)['img_path'] == data.get_data_info(2)[
            'img_path']


def test_many_drawn_labels_equal_a_loop(root, monkeypatch):
    """Lines in any order, in several chunks, and some twice."""
    from trm_ml_mm.datasets.open_images import label_files
    monkeypatch.setattr(label_files, 'CHUNK', 4096)
    rng = np.random.default_rng(0)
    pairs = {(rng.integers(60), mid): rng.integers(2)
             for mid in trees.OPEN_IMAGES_CLASSES for _ in range(40)}
    lines = [f'{i * 7919:016x},crowdsource-verification,{mid},{value}\n'
             for (i, mid), value in pairs.items()]
    lines = rng.permutation(lines + lines[:20])
    (root / 'drawn.csv').write_text(HEADER + ''.join(lines))
    data = opened(root, 'drawn.csv')
    mids = list(trees.OPEN_IMAGES_CLASSES)[:4]
    expected = loop(root, mids, 'drawn.csv')
    assert label_matrix(data).tolist() == [
        [expected[name].get(mid, UNKNOWN) for mid in mids]
        for name in sorted(expected)]


def test_an_import_serves_until_a_file_or_an_option_changes(root):
    first = opened(root).matrix
    folders = set((root / 'imported').glob('[0-9a-f]*'))
    assert len(folders) == 1
    assert opened(root).matrix.digest == first.digest
    assert set((root / 'imported').glob('[0-9a-f]*')) == folders
    other = opened(root, classes=['/m/02', '/m/05'])
    assert label_matrix(other).tolist() == [[UNKNOWN, 1], [1, UNKNOWN]]
    with open(root / TRAIN, 'a') as file:
        file.write('0000000000000001,verification,/m/02,1\n')
    assert label_matrix(opened(root))[0].tolist() == [ABSENT, PRESENT,
                                                      UNKNOWN, PRESENT]
    assert len(set((root / 'imported').glob('[0-9a-f]*'))) == 3


def test_machines_count_where_people_said_nothing(root):
    (root / 'machine.csv').write_text(
        HEADER + '0000000000000001,machine,/m/01,0.95\n'  # people say absent
        '0000000000000001,machine,/m/02,0.9\n'
        '0000000000000009,machine,/m/02,0.8\n'
        '0000000000000009,machine,/m/03,0.79\n')
    data = opened(root, [TRAIN, 'machine.csv'], machine=.8)
    labels = {data.get_data_info(i)['img_path'][-6:-4]:
              data.get_data_info(i)['gt_score'].tolist()
              for i in range(len(data))}
    assert labels['01'] == [ABSENT, PRESENT, UNKNOWN, PRESENT]
    assert labels['09'] == [UNKNOWN, PRESENT, UNKNOWN, UNKNOWN]


def test_a_hierarchy_says_more_of_some_classes(root):
    (root / 'tree.json').write_text(json.dumps(dict(
        LabelName='/m/0', Subcategory=[dict(
            LabelName='/m/01', Part=[dict(LabelName='/m/04')],
            Subcategory=[dict(LabelName='/m/99', Subcategory=[
                dict(LabelName='/m/02')]), dict(LabelName='/m/03')])])))
    data = opened(root, hierarchy='tree.json')
    # Image 1: no animal, so neither dog nor orange; image 3: an orange, so
    # an animal; the last: a dog, so an animal, whatever is between.
    assert label_matrix(data).tolist() == [
        [ABSENT, ABSENT, ABSENT, PRESENT],
        [PRESENT, UNKNOWN, PRESENT, UNKNOWN],
        [PRESENT, PRESENT, ABSENT, UNKNOWN]]
    # What people say counts more than what follows from another label.
    with open(root / TRAIN, 'a') as file:
        file.write('0000000000000001,verification,/m/02,1\n')
    assert label_matrix(opened(root, hierarchy='tree.json'))[0].tolist() == [
        ABSENT, PRESENT, ABSENT, PRESENT]
    (root / 'tree.json').write_text('{"LabelName": 3}')
    with pytest.raises(ValueError, match='tree.json is not the hierarchy'):
        opened(root, hierarchy='tree.json')


@pytest.mark.parametrize('text', ['ImageID,OriginalURL\n{},x\n{},y\n',
                                  'train/{}\ntrain/{}\n'])
def test_images_of_a_list(root, text):
    (root / 'list.csv').write_text(text.format('0000000000000001',
                                               '0000000000000008'))
    data = opened(root, images='list.csv', unlisted='ignore')
    assert label_matrix(data).tolist() == [
        [ABSENT, UNKNOWN, UNKNOWN, PRESENT], [UNKNOWN] * 4]
    with pytest.raises(ValueError, match=r'train-annotations.*csv line 2: the '
                       'image fedcba9876543210 is not in the image list'):
        opened(root, images='list.csv')
    (root / 'list.csv').write_text(text.format('0000000000000001',
                                               '0000000000000001'))
    with pytest.raises(ValueError, match='list.csv line [23]: the image '
                       '0+1 is already in line [12]'):
        opened(root, images='list.csv')


IMAGE = '0000000000000001'


@pytest.mark.parametrize('line, message', [
    ('x', 'line 8 has 1 cells, expected 4'),
    (f'{IMAGE},verification,/m/02', 'line 8 has 3 cells'),
    ('000000000000000g,verification,/m/02,1', 'line 8: "000000000000000g" is '
     'no ImageID of 16 hexadecimal digits'),
    ('1,verification,/m/02,1', 'line 8: "1" is no ImageID'),
    (f'{IMAGE},verification,/m/99,1', 'line 8: the class "/m/99" is not in the'
     ' file of class descriptions'),
    (f'{IMAGE},someone,/m/02,1', 'line 8: the Source "someone" is none of'),
    (f'{IMAGE},machine,/m/02,0.7', 'line 8: the label is of a machine: set '),
    (f'{IMAGE},verification,/m/02,0.7', 'line 8: the Confidence is 0.7'),
    (f'{IMAGE},verification,/m/02,nan', 'line 8: the Confidence is nan'),
    (f'{IMAGE},verification,/m/02,', 'line 8: the Confidence "" is no number'),
    (f'{IMAGE},verification,/m/01,1', 'line 3 and .*csv line 8: the labels of '
     f'image {IMAGE} and class /m/01 contradict each other'),
])
def test_a_wrong_line_is_named(root, line, message):
    with open(root / TRAIN, 'a') as file:
        file.write(line + '\n')
    with pytest.raises(ValueError, match=f'imagelabels.csv {message}'):
        opened(root)
    assert not list((root / 'imported').glob('[0-9a-f]*'))


def test_wrong_files_are_named(root):
    (root / 'other.csv').write_text('image,dog\na.jpg,1\n')
    with pytest.raises(ValueError, match='other.csv line 1 is "image,dog", and '
                       'a label file'):
        opened(root, 'other.csv')
    with pytest.raises(FileNotFoundError, match='none.csv does not exist'):
        opened(root, 'none.csv')
    (root / 'classes.txt').write_text('/m/01\n/m/77\n')
    with pytest.raises(ValueError, match='classes.txt line 2: the class '
                       '"/m/77" is not in'):
        opened(root, classes='classes.txt')
    with pytest.raises(ValueError, match='classes.txt line 2: the class /m/01'
                       ' is listed twice'):
        (root / 'classes.txt').write_text('/m/01\n/m/01\n')
        opened(root, classes='classes.txt')
    (root / 'names.csv').write_text('/m/01,Animal\nDog\n')
    with pytest.raises(ValueError, match='names.csv line 2 is "Dog", expected'):
        opened(root, descriptions='names.csv')
    (root / 'empty.csv').write_text(HEADER)
    with pytest.raises(ValueError, match='empty.csv'):
        opened(root, 'empty.csv')


def test_a_killed_import_is_done_again(root):
    """Killed while it writes; the next one finds nothing half-done."""
    script = (
        'import time\n'
        'from trm_ml_mm.datasets import OpenImages\n'
        'from trm_ml_mm.labels import SparseLabels\n'
        'save = SparseLabels.save\n'
        'def slow(self, folder):\n'
        '    save(self, folder)\n'
        '    print("written", flush=True)\n'
        '    time.sleep(60)\n'
        'SparseLabels.save = slow\n'
        f'OpenImages({TRAIN!r}, {str(root)!r})\n')
    with subprocess.Popen([sys.executable, '-c', script], text=True,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        assert any('written' in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    assert not list((root / 'imported').glob('[0-9a-f]*'))
    assert len(opened(root)) == 3  # no lock is left
    assert [path.name for path in (root / 'imported').iterdir()
            if path.name.endswith('.part')] == []


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('count', [1, 5, 11])
def test_the_lean_sampler_has_the_order_of_the_default_one(
        shuffle, count, monkeypatch):
    monkeypatch.setattr('trm_ml_mm.datasets.sampler.CHUNK', 3)
    for rank in range(3):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info',
                            lambda rank=rank: (rank, 3))
        for round_up in (True, False):
            own, default = (kind(range(count), shuffle, 4, round_up)
                            for kind in (LeanSampler, DefaultSampler))
            for epoch in range(2):
                own.set_epoch(epoch)
                default.set_epoch(epoch)
                assert list(own) == list(default)
                assert len(own) == len(default)
