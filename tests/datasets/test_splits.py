"""One table becomes three: every row once, copies of a picture together."""
import csv
import hashlib
import json
from itertools import combinations

import cv2
import numpy as np
import pytest

from trm_ml_mm.cli import split_table
from trm_ml_mm.datasets.duplicates import (
    NEAR_BITS,
    ImageScan,
    Partition,
    join_duplicates,
    near_pairs,
    perceptual_hash,
    scan_image,
)
from trm_ml_mm.datasets.splits import split_at_random
from trm_ml_mm.engine import build_dataset, load_config

main = split_table.main.__wrapped__  # raises its errors
SPLITS = ('train', 'val', 'test')


def picture(seed, size=(96, 128)):
    """A picture with large and small shapes, and its mirror image is
    another."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), rng.integers(0, 255, 3), np.uint8)
    for _ in range(25):
        centre = [int(v) for v in rng.integers(0, 128, 2)]
        cv2.circle(image, centre, int(rng.integers(3, 30)),
                   rng.integers(0, 255, 3).tolist(), -1)
    return image


def copies(image):
    """The same picture, as it comes from other programs."""
    small = cv2.resize(image, None, fx=.5, fy=.5,
                       interpolation=cv2.INTER_AREA)
    return {
        'png': image,
        'half': small,
        'double': cv2.resize(image, None, fx=2, fy=2),
        'square': cv2.resize(image, (100, 100)),
        'mirrored': image[:, ::-1],
        'small and mirrored': small[:, ::-1],
        'grey': cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
                             cv2.COLOR_GRAY2BGR),
        'brighter': cv2.convertScaleAbs(image, alpha=.9, beta=20),
    }


def bits_of(image):
    return perceptual_hash(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def distance(a, b):
    """By the definition: mirrored, the odd horizontal frequencies change."""
    mirrored = b.reshape(16, 16).copy()
    mirrored[:, 1::2] ^= True
    return min((a != b).sum(), (a != mirrored.ravel()).sum())


def test_copies_are_near_and_pictures_are_far():
    pictures = [picture(seed) for seed in range(40)]
    hashes = [bits_of(image) for image in pictures]
    for image, own in zip(pictures, hashes):
        for name, copy in copies(image).items():
            _, jpeg = cv2.imencode('.jpg', copy,
                                   [cv2.IMWRITE_JPEG_QUALITY, 50])
            again = bits_of(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
            assert distance(own, again) <= NEAR_BITS, name
    assert min(distance(a, b) for a, b in combinations(hashes, 2)
               ) > 2 * NEAR_BITS


def test_photographs_are_told_apart(sample_data):
    paths = sorted(sample_data.glob('coco_sample/*/*.jpg'))[:100]
    images = [cv2.imread(str(path)) for path in paths]
    hashes = [bits_of(image) for image in images]
    assert min(distance(a, b) for a, b in combinations(hashes, 2)
               ) > 2 * NEAR_BITS
    for image, own in zip(images, hashes):
        for name, copy in copies(image).items():
            assert distance(own, bits_of(copy)) <= NEAR_BITS, name


def test_mirroring_changes_the_odd_frequencies_and_no_others():
    for seed in range(5):
        own, mirrored = (bits_of(image).reshape(16, 16) for image in (
            picture(seed), picture(seed)[:, ::-1]))
        assert (own[:, 1::2] != mirrored[:, 1::2]).mean() > .99
        assert (own[:, 0::2] == mirrored[:, 0::2]).mean() > .99


@pytest.mark.parametrize('block', [7, 64])
def test_pairs_are_those_of_a_plain_loop(monkeypatch, block):
    monkeypatch.setattr('trm_ml_mm.datasets.duplicates.BLOCK', block)
    rng = np.random.default_rng(0)
    bits = rng.random((50, 256)) < .5
    for i, j, changed, mirror in ((3, 40, 32, False), (4, 9, 33, False),
                                  (0, 49, 20, True), (9, 10, 0, False)):
        other = bits[i].copy()
        other[rng.permutation(256)[:changed]] ^= True
        if mirror:
            other.reshape(16, 16)[:, 1::2] ^= True
        bits[j] = other
    found = np.concatenate(list(near_pairs(bits, 32)))
    expected = [(i, j) for i, j in combinations(range(50), 2)
                if distance(bits[i], bits[j]) <= 32]
    assert sorted(map(tuple, found.tolist())) == expected
    assert (3, 40) in expected and (0, 49) in expected


def test_partition_is_that_of_a_graph(monkeypatch):
    monkeypatch.setattr('trm_ml_mm.datasets.duplicates.BLOCK', 3)
    rng = np.random.default_rng(0)
    for _ in range(20):
        pairs = rng.integers(0, 30, (20, 2))
        sets = Partition(30)
        sets.join(pairs[:12])
        sets.join(pairs[12:])
        reach = np.eye(30, dtype=bool)
        reach[pairs[:, 0], pairs[:, 1]] = True
        for _ in range(5):
            reach = reach | reach.T
            reach = reach @ reach
        assert (sets.roots() == reach.argmax(1)).all()
        assert sets.groups() == [
            np.flatnonzero(row).tolist() for i, row in enumerate(reach)
            if row.sum() > 1 and row.argmax() == i]


def test_duplicates_are_counted_once():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 256)) < .5
    near = a.copy()
    near[:5] ^= True
    scans = [ImageScan('1', a, None), ImageScan('2', b, None),
             ImageScan('1', a, None), ImageScan('3', near, None),
             ImageScan('4', a, None), ImageScan('5', None, 'broken'),
             ImageScan('', None, 'missing'), ImageScan('', None, 'missing')]
    sets = Partition(8)
    assert join_duplicates(sets, scans) == (1, 2)
    assert sets.groups() == [[0, 2, 3, 4]]
    sets = Partition(8)
    assert join_duplicates(sets, scans, near_bits=0) == (1, 1)
    with pytest.raises(ValueError, match='differ in 0 to 127 bits, got 128'):
        join_duplicates(sets, scans, near_bits=128)


def test_very_many_equal_pictures_take_no_time():
    bits = bits_of(picture(0))
    noisy = bits ^ (np.random.default_rng(0).random((3000, 256)) < .01)
    scans = [ImageScan(str(i), row, None) for i, row in enumerate(noisy)]
    sets = Partition(3000)
    assert sum(join_duplicates(sets, scans)) == 2999


def positives(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, classes)) < rng.uniform(.01, .3, classes)


def test_a_random_split_has_its_sizes_and_keeps_sets():
    sets = np.random.default_rng(1).integers(0, 300, 1000)
    positive = positives(1000, 20)
    parts = split_at_random(sets, positive, [.7, .2, .1], seed=3)
    assert np.abs(np.bincount(parts) - [700, 200, 100]).max() <= np.bincount(
        sets).max()
    for one in np.unique(sets):
        assert len(set(parts[sets == one])) == 1
    assert (parts == split_at_random(sets, positive, [.7, .2, .1], 3)).all()
    assert (parts != split_at_random(sets, positive, [.7, .2, .1], 4)).any()
    none = split_at_random(sets, positive, [.8, .2, 0.])
    assert set(none) == {0, 1}


def test_rare_classes_are_in_every_split():
    positive = positives(1000, 30)
    positive[:, 0] = False
    positive[[5, 6, 7, 8, 9], 0] = True
    stratified, plain = [], []
    for seed in range(10):
        parts = split_at_random(np.arange(1000), positive, [.8, .1, .1], seed)
        chance = np.random.default_rng(seed).permutation(
            np.repeat([0, 1, 2], [800, 100, 100]))
        for where, kind in ((parts, stratified), (chance, plain)):
            ratios = np.stack([positive[where == part].mean(0)
                               for part in (1, 2)])
            kind.append(np.abs(ratios - positive.mean(0)).mean())
        assert [positive[parts == part, 0].sum() for part in range(3)] == [
            3, 1, 1]
    assert np.mean(stratified) < .5 * np.mean(plain)


def test_few_large_groups_fill_every_split():
    """Six groups that all have every class; the smallest go to the small
    splits."""
    sets = np.repeat(np.arange(6), [17, 16, 20, 12, 18, 19])
    for seed in range(5):
        parts = split_at_random(sets, np.ones((102, 20), bool), [.8, .1, .1],
                                seed, kept=np.full(102, -1))
        counts = np.bincount(parts)
        assert counts[0] >= 60 and counts.min() >= 12
        assert all(len(set(parts[sets == one])) == 1 for one in range(6))


def test_too_few_groups_are_refused():
    with pytest.raises(ValueError, match='left for [a-z]+: there are 2 groups '
                       'for 10 images'):
        split_at_random(np.arange(10) % 2, np.ones((10, 1), bool),
                        [.8, .1, .1])


# The command


@pytest.fixture
def photos(tmp_path):
    """40 pictures, some of them twice, and a table of them."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for i in range(40):
        cv2.imwrite(str(folder / f'{i:02}.png'), picture(i))
    same = (folder / '00.png').read_bytes()
    (folder / 'same.png').write_bytes(same)
    for name, copy in copies(picture(1)).items():
        cv2.imwrite(str(folder / f'{name}.jpg'), copy)
    names = sorted(path.name for path in folder.iterdir())
    rng = np.random.default_rng(0)
    rows = [[name, str(i % 8) if name[0] in '23' else '', 'a "remark", long',
             *rng.choice(['1', '0', '', '1.0'], 3)]
            for i, name in enumerate(names)]
    write(tmp_path / 'all.csv',
          [['image', 'place', 'remark', 'dog', 'cat', 'red car'], *rows])
    return tmp_path


def write(path, rows):
    with open(path, 'w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows(rows)


def read(path):
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.reader(file))


def split(root, *arguments, table='all.csv', out='own'):
    main([str(root / table), '--images', str(root / 'photos'), '--out',
          str(root / out), '--ignore-columns', 'place', 'remark',
          *map(str, arguments)])
    return {path.stem: read(path) for path in (root / out).glob('*.csv')}


def test_every_row_is_in_one_table_as_it_was(photos, capsys):
    tables = split(photos, '--val', .2, '--test', .2)
    whole = read(photos / 'all.csv')
    assert set(tables) == set(SPLITS)
    assert all(table[0] == whole[0] for table in tables.values())
    rows = [row for table in tables.values() for row in table[1:]]
    assert sorted(rows) == sorted(whole[1:])
    side = {row[0]: name for name, table in tables.items()
            for row in table[1:]}
    assert side['00.png'] == side['same.png']
    assert len({side[f'{name}.jpg'] for name in copies(picture(1))}
               | {side['01.png']}) == 1
    record = json.loads((photos / 'own/split.json').read_text())
    assert record['seed'] == 0 and record['near_bits'] == NEAR_BITS
    assert ['00.png', 'same.png'] in record['groups']
    for name, table in tables.items():
        entry = record['splits'][name]
        assert entry['images'] == len(table) - 1
        assert entry['sha256'] == hashlib.sha256(
            (photos / f'own/{name}.csv').read_bytes()).hexdigest()
    out = capsys.readouterr().out
    assert '2 groups, each in one split: 1 images are the same file' in out
    assert '00.png, same.png' in out
    counts = {name: sum(row[3] in ('1', '1.0') for row in table[1:])
              for name, table in tables.items()}
    line = next(line for line in out.splitlines() if line.startswith('│ dog'))
    cells = [cell.strip() for cell in line.strip('│').split('│')]
    assert [int(cells[i]) for i in (1, 3, 5)] == [counts[s] for s in SPLITS]


def test_the_proposed_command_reads_the_tables(photos, capsys):
    tables = split(photos)
    line = next(line for line in capsys.readouterr().out.splitlines()
                if line.startswith('Train: '))
    assert 'ignore_columns=place,remark' in line
    options = dict(word.split('=') for word in line.split('--cfg-options ')[1]
                   .split())
    options['ignore_columns'] = options['ignore_columns'].split(',')
    cfg = load_config('trm_ml_csv', options)
    for name in SPLITS:
        data = build_dataset(cfg, name)
        assert len(data) == len(tables[name]) - 1
        assert data.metainfo['classes'] == ('dog', 'cat', 'red car')


def test_without_a_test_set_it_says_so(photos, capsys):
    assert set(split(photos, '--test', 0)) == {'train', 'val'}
    out = capsys.readouterr().out
    assert 'the validation set is the test set too' in out
    assert 'test_dataloader' not in out


def test_a_column_says_where_rows_go(photos, capsys):
    rows = read(photos / 'all.csv')
    copied = {'00.png', 'same.png', '01.png',
              *(f'{n}.jpg' for n in copies(picture(1)))}
    own = [[*row, 'val' if i % 4 == 0 and row[0] not in copied else 'train']
           for i, row in enumerate(rows[1:])]
    write(photos / 'own.csv', [[*rows[0], 'part'], *own])
    tables = split(photos, '--column', 'part', table='own.csv')
    assert set(tables) == {'train', 'val'}
    for name, table in tables.items():
        assert table[1:] == [row for row in own if row[-1] == name]
    assert 'ignore_columns=place,remark,part' in capsys.readouterr().out
    own[3][-1] = 'dev'
    write(photos / 'bad.csv', [[*rows[0], 'part'], *own])
    with pytest.raises(ValueError, match='bad.csv line 5, column "part" has '
                       '"dev": it is train, val or test'):
        split(photos, '--column', 'part', table='bad.csv', out='b')
    write(photos / 'bad.csv', [[*rows[0], 'part'], *(
        [*row[:-1], 'train'] for row in own)])
    with pytest.raises(ValueError, match='no row with "val" in the column'):
        split(photos, '--column', 'part', table='bad.csv', out='b')
    for row in own:
        row[-1] = 'val' if row[0] in ('same.png', '02.png') else 'train'
    write(photos / 'bad.csv', [[*rows[0], 'part'], *own])
    with pytest.raises(ValueError, match=r'(?s)1 groups of images.*'
                       r'00.png \(train\), same.png \(val\)'):
        split(photos, '--column', 'part', table='bad.csv', out='b')
    assert not (photos / 'b').exists()
    split(photos, '--column', 'part', '--keep-duplicates', table='bad.csv',
          out='b')


def test_groups_of_a_column_stay_together(photos):
    tables = split(photos, '--group', 'place', '--val', .3, '--test', 0)
    sides = [{row[1] for row in table[1:]} - {''}
             for table in tables.values()]
    assert not sides[0] & sides[1] and all(sides)
    with pytest.raises(ValueError, match='no column "town" but image, place'):
        split(photos, '--group', 'town', out='b')


def test_new_images_are_dealt_out_and_the_others_stay(photos, capsys):
    """When a table has grown, and labels have changed."""
    whole = read(photos / 'all.csv')
    first = [row for row in whole if row[0] not in ('same.png', 'grey.jpg')
             and row[0][0] != '3']
    write(photos / 'all.csv', first)
    before = split(photos, '--val', .2, '--test', .2)
    grown = [whole[0], *([*row[:3], '1', '', '0'] for row in whole[1:]
                         if row[0] != '02.png')]
    write(photos / 'all.csv', grown)
    after = split(photos, '--val', .2, '--test', .2, '--keep')
    side, old = ({row[0]: name for name, table in tables.items()
                  for row in table[1:]} for tables in (after, before))
    assert side.keys() == {row[0] for row in grown[1:]}
    for name in old.keys() - {'02.png'}:
        assert side[name] == old[name]
    assert side['same.png'] == side['00.png']
    assert side['grey.jpg'] == side['01.png']
    assert {side[f'{i}.png'] for i in range(30, 40)} == set(SPLITS)
    assert all(row[3] == '1' for table in after.values() for row in table[1:])
    kept = len(first) - 2
    assert (f'{kept} images stayed where they were, {len(grown) - 1 - kept} '
            'are new, 1 of the earlier tables are not in this one.'
            ) in capsys.readouterr().out
    assert json.loads((photos / 'own/split.json').read_text())['kept'] == kept
    # Copies on both sides, from elsewhere: refused.
    other = 'val' if side['00.png'] == 'train' else 'train'
    moved = read(photos / f'own/{side["00.png"]}.csv')
    write(photos / f'own/{side["00.png"]}.csv',
          [row for row in moved if row[0] != '00.png'])
    write(photos / f'own/{other}.csv', read(photos / f'own/{other}.csv') + [
        row for row in moved if row[0] == '00.png'])
    with pytest.raises(ValueError, match='are on several sides'):
        split(photos, '--val', .2, '--test', .2, '--keep')


def test_a_column_that_is_always_1_is_pointed_out(photos, capsys):
    write(photos / 'x.csv', [['image', 'dog', 'checked'], *(
        [f'{i:02}.png', i % 2, 1] for i in range(40))])
    main([str(photos / 'x.csv'), '--images', str(photos / 'photos'), '--out',
          str(photos / 'own'), '--keep-duplicates'])
    assert ('Warning: checked: the same value in every row. If it is no '
            'class: --ignore-columns.') in capsys.readouterr().out


def test_nothing_is_overwritten(photos):
    split(photos)
    before = {p: p.read_bytes() for p in (photos / 'own').iterdir()}
    with pytest.raises(FileExistsError, match='train.csv exists: give'):
        split(photos, '--seed', 1)
    assert before == {p: p.read_bytes() for p in (photos / 'own').iterdir()}
    with pytest.raises(FileExistsError, match='test.csv exists, and this '
                       'split has no test set'):
        split(photos, '--test', 0, '--overwrite')
    split(photos, '--seed', 1, '--overwrite')
    assert before != {p: p.read_bytes() for p in (photos / 'own').iterdir()}
    (photos / 'all.csv').rename(photos / 'train.csv')
    with pytest.raises(ValueError, match='train.csv is the table itself'):
        split(photos, '--overwrite', table='train.csv', out='.')


def test_images_that_cannot_be_used_are_named(photos, capsys):
    (photos / 'photos/05.png').write_bytes(b'no image')
    (photos / 'photos/07.png').unlink()
    with pytest.raises(ValueError, match=r'(?s)2 of 49 images cannot be used'
                       r'.*all.csv line 7: 05.png cannot be decoded.*'
                       r'line 9: 07.png does not exist'):
        split(photos)
    tables = split(photos, '--drop-unreadable')
    names = {row[0] for table in tables.values() for row in table[1:]}
    assert len(names) == 47 and '05.png' not in names
    assert '05.png cannot be decoded' in capsys.readouterr().out
    record = json.loads((photos / 'own/split.json').read_text())
    assert record['left_out'] == {'05.png': 'cannot be decoded',
                                  '07.png': 'does not exist'}
    (photos / 'photos').rename(photos / 'other')
    (photos / 'photos').mkdir()
    with pytest.raises(ValueError, match='None of the 49 images'):
        split(photos, out='b')
    assert scan_image(str(photos)).problem == 'Is a directory'


def test_lists_of_names_need_their_order(photos, capsys):
    rows = [[f'{i:02}.png', 'dog;red car' if i % 2 else 'cat', '']
            for i in range(30)]
    write(photos / 'lists.csv', [['image', 'positive', 'negative'], *rows])
    main([str(photos / 'lists.csv'), '--images', str(photos / 'photos'),
          '--out', str(photos / 'own')])
    out = capsys.readouterr().out
    assert (photos / 'own/classes.txt').read_text() == 'cat\ndog\nred car\n'
    assert f'dataset.classes={photos}/own/classes.txt' in out


@pytest.mark.parametrize('text, arguments, message', [
    ('image,dog\n00.png,2\n', [], 'columns that are no labels: "dog" .numbers, '
     'different in nearly every row, such as "2".. .*--ignore-columns dog'),
    ('image,dog,my id\n00.png,1,x\n', [], "--ignore-columns 'my id'"),
    ('image,dog\n00.png,1\n01.png,yes\n02.png,0\n', [], 'line 3, column "dog" '
     'has the value "yes"'),
    ('image;dog\n00.png;1\n', [], 'seems to be separated by ";"'),
    ('image,dog\n00.png,1,1\n', [], 'line 2 has 3 cells and the header 2'),
    ('image,dog,dog\n00.png,1,1\n', [], 'has the column "dog" twice'),
    ('image,,dog\n00.png,1,1\n', [], 'column 2 has no name'),
    ('image,dog\n"00.png,1\n', [], 'line 2 cannot be read'),
    ('image,dog\n', [], 'has a header and no image'),
    ('file,dog\n00.png,1\n', [], 'no column "image" but file, dog'),
    ('image,dog\n00.png,1\n./00.png,1\n', [], 'line 3: the image "./00.png" '
     'is already in'),
    ('image,dog\n00.png,1\n', ['--val', '1'], '--val 1 --test 0.1: they are '
     'ratios'),
    ('image,dog\n00.png,1\n', ['--column', 'dog', '--seed', '1'],
     '--seed changes nothing with --column'),
    ('image,dog\n00.png,1\n', ['--keep', '--overwrite'],
     '--overwrite changes nothing with --keep'),
    ('image,dog\n00.png,1\n', ['--keep'], 'train.csv does not exist'),
    ('image,dog\n00.png,1\n', ['--keep-duplicates', '--near-bits', '3'],
     '--near-bits changes nothing with --keep-duplicates'),
])
def test_a_wrong_table_is_refused_in_one_sentence(photos, text, arguments,
                                                  message):
    (photos / 'x.csv').write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main([str(photos / 'x.csv'), '--images', str(photos / 'photos'),
              '--out', str(photos / 'own'), *arguments])
    assert not (photos / 'own').exists()
