import numpy as np
import pytest

from trm_ml_mm.datasets import (
    PartialLabelDataset,
    Scenes,
    draw_mask,
    known_label_mask,
    label_matrix,
    listed_positives_mask,
    load_mask,
    mask_hash,
    save_mask,
    single_positive_mask,
)
from trm_ml_mm.labels import load_labels, summarize_labels

VECTORS = {  # known count and hash at 10, 50 and 90%, as published masks have
    (5011, 20): [(10108, '6c449e375ae8f362'), (50163, 'eaf149bf815e9948'),
                 (90174, 'aff8ef4f90852eea')],
    (82783, 80): [(662191, 'cd1ca8f2708f7fdd'), (3310164, 'b18980ff94cd5a22'),
                  (5960741, '5bc31cacac454f46')],
    (82904, 200): [(1659060, 'ad8ee2291cbf5e5e'),
                   (8289679, '0426d5bcab8fa770'),
                   (14923881, '840a0e4e4aa2f03a')],
}


@pytest.mark.parametrize('shape', VECTORS)
def test_masks_equal_the_published_ones(shape):
    for proportion, (count, digest) in zip((.1, .5, .9), VECTORS[shape]):
        mask = known_label_mask(shape, proportion)
        assert mask.sum() == count
        assert mask_hash(mask) == digest


def test_first_row_of_voc():
    rows = [
        ''.join('01'[int(v)] for v in known_label_mask((5011, 20), p)[0])
        for p in (.1, .5)
    ]
    assert rows == ['00000000000000111000', '00001010010000111000']
    empty = [(~known_label_mask((5011, 20), p).any(1)).sum()
             for p in (.1, .2, .3)]
    assert empty == [533, 49, 3]


def test_masks_are_nested():
    masks = [known_label_mask((200, 9), p / 10, seed=3) for p in range(1, 11)]
    for small, large in zip(masks, masks[1:]):
        assert not (small & ~large).any()
    assert masks[-1].all()


@pytest.mark.parametrize('proportion', [0, -.1, 1.1])
def test_proportion_outside_its_range_is_refused(proportion):
    with pytest.raises(ValueError, match=r'\(0, 1\]'):
        known_label_mask((3, 3), proportion)
    with pytest.raises(ValueError, match=r'\(0, 1\]'):
        PartialLabelDataset(Scenes(num_images=3), known=proportion)


def test_single_positive_keeps_one_positive():
    labels = np.random.RandomState(0).randint(-1, 2, (300, 8))
    mask = single_positive_mask(labels)
    has = (labels == 1).any(1)
    assert (mask.sum(1) == has).all()
    assert (labels[mask] == 1).all()
    assert (mask == single_positive_mask(labels)).all()
    assert (mask != single_positive_mask(labels, seed=1)).any()


def test_single_positive_masks_equal_the_published_rule():
    """A vector made with the rule of the published script."""
    labels = np.random.RandomState(7).random_sample((50, 20)) < .15
    mask = single_positive_mask(labels.astype(int))
    assert labels.sum() == 150 and mask.sum() == 49
    kept = [np.flatnonzero(row)[0] for row in mask if row.any()]
    assert kept[:8] == [0, 5, 15, 16, 18, 11, 5, 10]
    assert mask_hash(mask) == 'c5e8b5fe4b4110e4'


def test_wrapper_hides_exactly_the_masked_labels():
    inner = Scenes(num_images=60)
    truth = label_matrix(inner)
    wrapped = PartialLabelDataset(inner, known=.3, seed=5)
    mask = known_label_mask(truth.shape, .3, 5)
    seen = np.stack([wrapped.get_data_info(i)['gt_score'] for i in range(60)])
    assert (seen[mask] == truth[mask]).all()
    assert (seen[~mask] == -1).all()
    assert (label_matrix(wrapped) == seen).all()
    assert wrapped.known_labels['hash'] == mask_hash(mask)


def test_all_known_hides_nothing():
    inner = Scenes(num_images=10)
    assert (PartialLabelDataset(inner, known=1.).labels ==
            label_matrix(inner)).all()


def test_wrong_labels_are_named():
    class Wrong:
        metainfo = dict(classes=('cat', 'dog'))

        def __len__(self):
            return 1

        def full_init(self):
            pass

        def get_data_info(self, i):
            return dict(img_path='a.jpg', gt_score=np.array([1., 2.]))

    with pytest.raises(ValueError, match='a.jpg: the label of "dog" is 2'):
        PartialLabelDataset(Wrong(), known=.5)
    with pytest.raises(ValueError, match='single_positive'):
        PartialLabelDataset(Wrong(), known='one')


def test_masks_are_drawn_as_in_one_piece():
    shape = (10000, 7)  # more rows than are drawn at a time
    whole = np.random.RandomState(3).random_sample(shape) < .4
    assert (known_label_mask(shape, .4, seed=3) == whole).all()


def test_a_saved_mask_trains_the_same(tmp_path):
    inner = Scenes(num_images=30)
    drawn = PartialLabelDataset(inner, known=.3, seed=5)
    path = str(tmp_path / 'mask.npz')
    save_mask(path, drawn.mask, drawn.known, drawn.seed)
    saved = load_mask(path)
    assert (saved.known, saved.seed) == ('0.3', '5')
    again = PartialLabelDataset(inner, known=path)
    assert (again.labels == drawn.labels).all()
    assert (again.known_labels['hash'] ==
            drawn.known_labels['hash'] == saved.hash)
    np.save(tmp_path / 'mask.npy', drawn.mask.astype(int))
    matrix = PartialLabelDataset(inner, known=str(tmp_path / 'mask.npy'))
    assert (matrix.labels == drawn.labels).all()
    assert (PartialLabelDataset(inner, known='all').labels ==
            label_matrix(inner)).all()


def test_mask_files_that_do_not_fit_are_refused(tmp_path):
    inner = Scenes(num_images=28)
    path = tmp_path / 'mask.npz'
    save_mask(path, np.ones((29, 30), bool), 'all')
    with pytest.raises(ValueError, match='29 images and 30 classes, and the '
                       'data set has 28 and 30: it belongs to another data '
                       'set'):
        PartialLabelDataset(inner, known=str(path))
    content = dict(np.load(path))
    content['packed'][0] ^= 1
    np.savez(path, **content)
    with pytest.raises(ValueError, match='the file is damaged'):
        load_mask(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match='mask.npz is not a whole mask file.*'
                       'draw it again with tools/make_masks.py'):
        load_mask(path)
    with pytest.raises(FileNotFoundError, match='Mask file .*none.npz.*; draw '
                       'it with tools/make_masks.py'):
        load_mask(tmp_path / 'none.npz')


def test_a_matrix_is_a_mask(tmp_path):
    path = tmp_path / 'a.npy'
    for matrix in (np.eye(3), np.ones((1, 4), bool), np.eye(2, dtype='u1')):
        np.save(path, matrix)
        saved = load_mask(path)
        assert saved.mask.dtype == bool and (saved.mask == matrix).all()
        assert (saved.known, saved.seed) == (str(path), 'None')
        assert saved.hash == mask_hash(matrix.astype(bool))
    for wrong, message in [
            (np.ones((2, 2, 2)), r'shape \(2, 2, 2\)'),
            (np.ones((0, 3)), r'shape \(0, 3\)'),
            (np.full((2, 2), '1'), '1 .known. or 0 .hidden. everywhere'),
            (np.full((2, 2), 2), '1 .known. or 0 .hidden. everywhere')]:
        np.save(path, wrong)
        with pytest.raises(ValueError, match=f'not a whole .*{message}'):
            load_mask(path)


def test_label_matrices_come_in_three_forms(tmp_path):
    truth = np.random.RandomState(0).randint(0, 2, (5, 11))
    np.save(tmp_path / 'a.npy', truth.astype(float))
    np.savez(tmp_path / 'b.npz', labels=np.where(truth, 1, -1))
    np.savez(tmp_path / 'c.npz', packed=np.packbits(truth, axis=1),
             num_classes=11)
    for name, expected in (('a.npy', truth), ('c.npz', truth),
                           ('b.npz', np.where(truth, 1, -1))):
        labels = load_labels(tmp_path / name)
        assert labels.dtype == np.int8 and (labels == expected).all()
    np.save(tmp_path / 'a.npy', truth[:1])  # one image is a data set too
    assert (load_labels(tmp_path / 'a.npy') == truth[:1]).all()


@pytest.mark.parametrize('content, message', [
    (dict(labels=np.zeros(3)), r'shape \(3,\)'),
    (dict(labels=np.zeros((0, 3))), r'shape \(0, 3\)'),
    (dict(labels=np.full((2, 2), '1')), 'values of type <U1'),
    (dict(labels=np.array([[1, 0], [-1, 7]])),
     r'row 1, column 1 is 7, and labels are 1, 0 or -1 \(unknown\)'),
    (dict(packed=np.zeros((2, 1), 'u1')), 'num_classes'),
    (dict(other=np.zeros((2, 2))), 'packed'),
])
def test_what_is_no_label_matrix_is_refused(tmp_path, content, message):
    np.savez(tmp_path / 'a.npz', **content)
    with pytest.raises(ValueError, match=r'a.npz holds no \(N, C\) matrix of '
                       rf'labels \(.*{message}'):
        load_labels(tmp_path / 'a.npz')
    with pytest.raises(FileNotFoundError, match='Label matrix .*b.npz.*; give '
                       'a .npy or .npz file, or a config'):
        load_labels(tmp_path / 'b.npz')


def test_the_rule_decides_which_mask_is_drawn(tmp_path):
    labels = np.random.RandomState(0).randint(0, 2, (40, 6))
    for known, rule, published in (('single_positive', single_positive_mask,
                                    1200), (.3, known_label_mask, 0)):
        given = [labels] if rule is single_positive_mask else [labels.shape,
                                                               known]
        for seed in (None, 0, 7):
            expected = rule(*given, published if seed is None else seed)
            assert (draw_mask(labels, known, seed) == expected).all()
    assert draw_mask(labels, 'all').all()
    with pytest.raises(ValueError, match=(
            r"The proportion of known labels must be a number in \(0, 1\], or "
            r"'single_positive', 'all', or a file \(.npz, .npy, .txt, .csv\), "
            "got 'most'")):
        draw_mask(labels, 'most')


def test_lists_of_known_positives(tmp_path):
    labels = np.array([[1, 0, 1], [0, 1, 0], [1, 1, -1]])
    images = ['data/a.jpg', 'data/b.jpg', 'data/c.jpg']
    classes = ['dog', 'cat', 'red car']
    path = tmp_path / 'list.txt'

    def read(text):
        path.write_text(text)
        return listed_positives_mask(path, labels, images, classes)

    mask = read('c.jpg,1\n\na.jpg,red car,0\n')  # any order; b is not listed
    assert mask.tolist() == [[True, False, True], [False] * 3,
                             [False, True, False]]
    assert (draw_mask(labels, str(path), None, images, classes) == mask).all()
    path.rename(tmp_path / 'list.csv')
    assert (draw_mask(labels, str(tmp_path / 'list.csv'), None, images,
                      classes) == mask).all()
    with pytest.raises(FileNotFoundError, match='list of known positives'):
        draw_mask(labels, str(tmp_path / 'none.csv'), None, images, classes)
    for text, message in [
        ('a.jpg,1\n', 'line 1: "cat" is not present in a.jpg; the list '
         'belongs to other classes or another order of them'),
        ('a.jpg,0\nx.jpg,0\n', 'line 2: the data set has no image "x.jpg"'),
        ('a.jpg,3\n', '"3" is neither a class name nor one of 0..2'),
        ('a.jpg\n', 'expected an image and its known positives'),
        ('\n\na.jpg,7\n', 'line 3: "7"'),
    ]:
        with pytest.raises(ValueError, match=message):
            read(text)


def test_listed_images_of_one_name_are_told_apart(tmp_path):
    path = tmp_path / 'list.txt'
    images, classes = ['d/A/x.jpg', 'd/B/x.jpg'], ['dog', 'cat, black']
    path.write_text('A/x.jpg,0\nB/x.jpg,"cat, black"\n')
    mask = listed_positives_mask(path, np.ones((2, 2)), images, classes)
    assert mask.tolist() == [[True, False], [False, True]]
    path.write_text('x.jpg,0\n')
    with pytest.raises(ValueError, match='2 images .* end in "x.jpg"'):
        listed_positives_mask(path, np.ones((2, 2)), images, classes)


def test_a_list_serves_a_data_set(tmp_path):
    inner = Scenes(num_images=8)
    truth = label_matrix(inner)
    rows = [(i, np.flatnonzero(r == 1)[0]) for i, r in enumerate(truth)
            if (r == 1).any()]
    (tmp_path / 'l.txt').write_text(''.join(
        f'{i}.png,{c}\n' for i, c in rows))
    data = PartialLabelDataset(inner, known=str(tmp_path / 'l.txt'))
    assert {(i, c) for i, c in zip(*np.nonzero(data.labels == 1))} == set(rows)
    assert not (data.labels == 0).any()


def test_counts_equal_a_loop():
    labels = np.random.RandomState(0).randint(-1, 2, (40, 6))
    mask = known_label_mask(labels.shape, .3)
    known, positive, without = [0] * 6, [0] * 6, 0
    for row, seen in zip(labels, mask):
        without += not any(s and v != -1 for s, v in zip(seen, row))
        for c in range(6):
            known[c] += seen[c] and row[c] != -1
            positive[c] += seen[c] and row[c] == 1
    counts = summarize_labels(np.where(mask, labels, -1))
    assert counts.known.tolist() == known
    assert counts.positive.tolist() == positive
    assert counts.images_without == without


@pytest.mark.parametrize('name,shape', [('coco2014_train', (82081, 80)),
                                        ('nuswide81_val', (50720, 81))])
def test_real_label_matrices(sample_data, name, shape):
    labels = load_labels(sample_data / f'labels/{name}.npz')
    assert labels.shape == shape
    mask = single_positive_mask(labels)
    assert (mask.sum(1) == (labels == 1).any(1)).all()
    assert (labels[mask] == 1).all()


def test_a_mask_does_not_look_at_images_workers_or_epochs():
    class Unloadable(Scenes):
        def __getitem__(self, i):
            raise AssertionError('an image was loaded')

    hashes = {PartialLabelDataset(kind(num_images=20, in_memory=False),
                                  known=.3).known_labels['hash']
              for kind in (Scenes, Unloadable) for _ in range(2)}
    assert hashes == {mask_hash(known_label_mask((20, 30), .3))}
