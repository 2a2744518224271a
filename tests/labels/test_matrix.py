import pickle

import numpy as np
import pytest

from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    ContradictingLabels,
    DenseLabels,
    SparseLabels,
    keep_known,
    mask_hash,
    matrix,
    save_mask,
    stacked,
    summarize_labels,
)

SHAPE = 37, 11


def some_labels(seed=0, shape=SHAPE):
    """Most of them unknown; image 3 has no known label."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([UNKNOWN, ABSENT, PRESENT], shape, p=[.7, .2, .1])
    labels[3] = UNKNOWN
    return labels.astype(np.int8)


def pairs(labels):
    rows, classes = np.nonzero(labels != UNKNOWN)
    order = np.random.default_rng(1).permutation(len(rows))
    return rows[order], classes[order], labels[rows, classes][order]


@pytest.fixture(params=['dense', 'sparse', 'file'])
def both(request, tmp_path):
    labels = some_labels()
    if request.param == 'dense':
        return labels, DenseLabels(labels)
    sparse = SparseLabels.of_pairs(*pairs(labels), SHAPE)
    if request.param == 'sparse':
        return labels, sparse
    sparse.save(tmp_path / 'labels')
    return labels, SparseLabels.open(tmp_path / 'labels')


def test_every_form_has_the_same_labels(both, monkeypatch):
    labels, found = both
    monkeypatch.setattr(matrix, 'CHUNK', 25)  # several chunks and blocks
    assert found.shape == SHAPE and len(found) == SHAPE[0]
    assert (found.dense() == labels).all()
    assert (found.rows([5, 0, -1]) == labels[[5, 0, -1]]).all()
    for i in (0, 3, -2):
        classes, values = found.known(i)
        assert classes.tolist() == np.flatnonzero(
            labels[i] != UNKNOWN).tolist()
        assert (values == labels[i, classes]).all()
        assert (found.row(i) == labels[i]).all()
    for mine, expected in zip(found.summary(), summarize_labels(labels)):
        assert np.array_equal(mine, expected)
    assert found.summary().images == SHAPE[0]
    chosen = [7, 3, 3, 36, 0]
    assert (found.select(chosen).dense() == labels[chosen]).all()
    assert (stacked([found, DenseLabels(labels)]).dense()
            == np.concatenate([labels, labels])).all()
    blocks = list(found.blocks())
    assert len(blocks) > 1
    assert (np.concatenate([rows for _, rows in blocks]) == labels).all()
    again = pickle.loads(pickle.dumps(found))
    assert (again.dense() == labels).all() and again.digest == found.digest


@pytest.mark.parametrize('known', [.3, 1, 'single_positive', 'all', 'file',
                                   'list'])
def test_dense_and_sparse_keep_the_same_labels(known, tmp_path, monkeypatch):
    labels = some_labels()
    names = [f'class {c}' for c in range(SHAPE[1])]
    images = [f'{i}.jpg' for i in range(SHAPE[0])]
    expected = None
    if known == 'file':
        known = str(tmp_path / 'mask.npz')
        expected = np.random.default_rng(2).random(SHAPE) < .5
        save_mask(known, expected, .5)
    elif known == 'list':
        known = str(tmp_path / 'list.txt')
        expected = np.zeros(SHAPE, bool)
        row, c = np.argwhere(labels == PRESENT)[2]
        expected[row, c] = True
        (tmp_path / 'list.txt').write_text(f'{row}.jpg,{c}\n')
    dense, mask = keep_known(DenseLabels(labels), known, 5, images, names)
    monkeypatch.setattr(matrix, 'CHUNK', 25)
    whole = SparseLabels.of_rows(DenseLabels(labels))
    sparse, listed = keep_known(whole, known, 5, images, names)
    if expected is not None:
        assert (mask == expected).all()
    assert (sparse.dense() == dense.dense()).all()
    assert (dense.dense() == np.where(mask, labels, UNKNOWN)).all()
    assert (listed == mask[labels != UNKNOWN]).all()
    hidden = np.where(mask, UNKNOWN, labels)
    assert (whole.without(sparse).dense() == hidden).all()
    assert (DenseLabels(labels).without(dense).dense() == hidden).all()
    # The mask of listed labels is saved, and serves again.
    save_mask(tmp_path / 'listed.npz', listed, known, 5)
    again, same = keep_known(whole, str(tmp_path / 'listed.npz'))
    assert mask_hash(same) == mask_hash(listed)
    assert again.digest == sparse.digest


def test_a_mask_of_other_listed_labels_is_refused(tmp_path):
    path = str(tmp_path / 'mask.npz')
    save_mask(path, np.ones(5, bool), 'all')
    for labels in (DenseLabels(some_labels()),
                   SparseLabels.of_rows(DenseLabels(some_labels()))):
        with pytest.raises(ValueError, match='is of 5 listed labels, and the '
                           'data set has [0-9]+: it belongs to another'):
            keep_known(labels, path)


def test_repeated_labels_count_once_and_contradictions_are_named():
    one = SparseLabels.of_pairs([0, 1, 0], [2, 1, 2], [1, 0, 1], (2, 3))
    assert one.dense().tolist() == [[-1, -1, 1], [-1, 0, -1]]
    with pytest.raises(ContradictingLabels, match='Image 1 has class 2') as e:
        SparseLabels.of_pairs([1, 0, 1], [2, 0, 2], [0, 1, 1], (2, 3))
    assert (e.value.row, e.value.number) == (1, 2)
    # Neighbours in the code are no contradiction.
    SparseLabels.of_pairs([0, 0], [0, 1], [1, 0], (1, 2))


def test_many_classes_need_wider_codes():
    wide = SparseLabels.of_pairs([0], [40000], [1], (1, 50000))
    assert wide.codes.dtype == np.uint32
    assert wide.known(0)[0].tolist() == [40000]


def test_a_matrix_that_is_too_large_is_not_made_dense(monkeypatch):
    monkeypatch.setattr(matrix, 'LIMIT', 100)
    with pytest.raises(ValueError, match='37 x 11 labels would take'):
        SparseLabels.of_rows(DenseLabels(some_labels())).dense()


@pytest.mark.parametrize('damage', ['cut', 'classes', 'count', 'pickle',
                                    'missing', 'json'])
def test_damaged_files_are_named(tmp_path, damage):
    folder = tmp_path / 'labels'
    SparseLabels.of_rows(DenseLabels(some_labels())).save(folder)
    codes = folder / 'codes.npy'
    error, message = ValueError, 'labels.*(import|make).* again'
    if damage == 'cut':
        codes.write_bytes(codes.read_bytes()[:-2])
    elif damage == 'classes':  # seen when the image is read
        values = np.load(codes)
        values[:] = 9999
        np.save(codes, values)
    elif damage == 'count':
        np.save(codes, np.zeros(3, np.uint16))
    elif damage == 'pickle':
        np.save(codes, np.array([{}]), allow_pickle=True)
    elif damage == 'missing':
        codes.unlink()
        error, message = FileNotFoundError, 'codes.npy does not exist; import'
    else:
        (folder / 'meta.json').write_text('{"format"')
        message = 'meta.json line 1'
    with pytest.raises(error, match=message):
        SparseLabels.open(folder).dense()
