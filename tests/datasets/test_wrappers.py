"""PartialLabelDataset within MMEngine's and MMPretrain's wrappers, and around
them."""
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope
from mmpretrain.registry import DATASETS

from trm_ml_mm.datasets import (
    MultiLabelDataset,
    PartialLabelDataset,
    find_masks,
    known_labels_of,
    label_matrix,
    labels_of,
    matrix_of,
)
from trm_ml_mm.datasets.base import resolve_dataset
from trm_ml_mm.engine import PartialLabelHook
from trm_ml_mm.labels import (
    UNKNOWN,
    DenseLabels,
    SparseLabels,
    keep_known,
    known_label_mask,
    mask_hash,
)

KNOWN = .4


def scenes(number=0, **options):
    return dict(type='trm_ml_mm.Scenes', num_images=40,
                split=('train', 'val', 'test')[number], **options)


def hide(data, known=KNOWN, seed=0):
    return dict(type='trm_ml_mm.PartialLabelDataset', dataset=data,
                known=known, seed=seed)


def concat(*parts):
    return dict(type='ConcatDataset', datasets=list(parts))


def repeat(data):
    return dict(type='RepeatDataset', dataset=data, times=2)


def balanced(data):
    return dict(type='ClassBalancedDataset', dataset=data,
                oversample_thr=.5)


def fold(data, **options):
    return dict(type='KFoldDataset', dataset=data, num_splits=4, seed=3,
                **options)


ARRANGEMENTS = {
    'alone': lambda seed: hide(scenes(), seed=seed),
    'a subset inside': lambda seed: hide(scenes(indices=30), seed=seed),
    'concat inside': lambda seed: hide(concat(scenes(), scenes(1)), seed=seed),
    'concat outside': lambda seed: concat(
        hide(scenes(), seed=seed), hide(scenes(1), seed=seed + 1)),
    'repeat outside': lambda seed: repeat(hide(scenes(), seed=seed)),
    'balanced outside': lambda seed: balanced(hide(scenes(), seed=seed)),
    'fold inside': lambda seed: hide(fold(scenes()), seed=seed),
    'fold outside': lambda seed: fold(hide(scenes(), seed=seed)),
    'fold outside concat': lambda seed: fold(
        hide(concat(scenes(), scenes(1)), seed=seed)),
    'all': lambda seed: concat(
        repeat(hide(concat(scenes(), scenes(1)), seed=seed)),
        fold(hide(scenes(2), seed=seed))),
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def build(config):
    dataset = DATASETS.build(config)
    dataset.full_init()
    return dataset


def resume(saved, dataset):
    """What the hook says when a run over ``dataset`` resumes ``saved``."""
    runner = SimpleNamespace(
        _resume=True, train_dataloader=SimpleNamespace(dataset=dataset))
    PartialLabelHook().after_load_checkpoint(runner, saved)


def save(dataset):
    checkpoint = dict(meta=dict(dataset_meta=dataset.metainfo))
    PartialLabelHook().before_save_checkpoint(SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=dataset)), checkpoint)
    return checkpoint


@pytest.mark.parametrize('name', ARRANGEMENTS)
def test_as_many_labels_are_known_as_was_asked_for(name):
    dataset = build(ARRANGEMENTS[name](0))
    seen, images = label_matrix(dataset), {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        key = info['img_path']
        # A copy of an image shows the same labels, and not others.
        assert (images.setdefault(key, info['gt_score'])
                == info['gt_score']).all()
        assert (seen[i] == info['gt_score']).all()
    known = np.mean([(row != UNKNOWN).mean() for row in images.values()])
    assert known == pytest.approx(KNOWN, abs=.05)
    # What the label counts are made of: every image once.
    assert (labels_of(dataset) != UNKNOWN).mean() == pytest.approx(
        KNOWN, abs=.05)
    assert len(labels_of(dataset)) <= len(dataset)


@pytest.mark.parametrize('name', ARRANGEMENTS)
def test_the_mask_is_saved_and_checked(name):
    dataset = build(ARRANGEMENTS[name](0))
    saved = save(dataset)
    assert saved['meta']['known_labels']['hash'].split('+') == [
        mask_hash(part.mask) for part in find_masks(dataset)]
    resume(saved, build(ARRANGEMENTS[name](0)))
    with pytest.raises(ValueError, match='another mask of known labels'):
        resume(saved, build(ARRANGEMENTS[name](5)))


def test_another_fold_is_another_mask():
    saved = save(build(fold(hide(scenes()), fold=0)))
    with pytest.raises(ValueError, match='another mask of known labels'):
        resume(saved, build(fold(hide(scenes()), fold=1)))


@pytest.mark.parametrize('wrap', [
    repeat, balanced, lambda data: concat(repeat(data))])
def test_wrappers_that_repeat_images_go_outside(wrap):
    with pytest.raises(ValueError) as error:
        build(hide(wrap(scenes())))
    assert 'around PartialLabelDataset' in str(error.value)


@pytest.mark.parametrize('chosen', [[5, 2, 2, 39], 7, -3])
def test_a_subset_has_the_labels_of_the_whole(chosen):
    whole = build(hide(concat(scenes(), scenes(1))))
    rows = {7: range(7), -3: range(77, 80)}.get(
        chosen if isinstance(chosen, int) else None, chosen)
    subset = whole.get_subset(chosen)
    assert len(subset) == len(rows) and len(whole) == 80
    for i, row in enumerate(rows):
        assert subset[i]['img_path'] == whole[row]['img_path']
        assert (subset.labels[i] == whole.labels[row]).all()
        assert (subset.mask[i] == whole.mask[row]).all()
        assert (subset.hidden_labels()[i] == whole.hidden_labels()[row]).all()
    subset = whole.get_subset([1])
    subset.get_subset_([0])
    assert subset.get_data_info(0)['img_path'] == (
        whole.get_data_info(1)['img_path'])
    with pytest.raises(IndexError, match='no sample 1'):
        subset[1]


def test_what_is_hidden_and_what_is_seen_are_the_labels():
    dataset = build(hide(scenes()))
    truth, hidden = label_matrix(dataset.dataset), dataset.hidden_labels()
    for i in range(40):
        for c in range(30):
            one, other = dataset.labels[i, c], hidden[i, c]
            assert (one == UNKNOWN) != (other == UNKNOWN)
            assert max(one, other) == truth[i, c]
    assert (dataset.mask == known_label_mask((40, 30), KNOWN, 0)).all()


def test_names_that_other_tools_read():
    dataset = build(hide(scenes()))
    assert dataset.get_cat_ids(3) == np.flatnonzero(
        dataset.labels[3] == 1).tolist()
    assert dataset.CLASSES == dataset.metainfo['classes']
    assert dataset.class_to_idx[dataset.CLASSES[3]] == 3
    assert dataset.pipeline is dataset.dataset.pipeline
    part, before = dataset.get_subset(3), dataset.pipeline
    part.pipeline = lambda info: dict(data_samples=info)
    assert part[0]['data_samples']['sample_idx'] == 0
    assert dataset.pipeline is before  # a part changes only itself
    assert not hasattr(build(hide(concat(scenes(), scenes(1)))), 'pipeline')


def test_a_pipeline_of_its_own_replaces_the_wrapped_one():
    """MMPretrain's cross-validation tests a fold of the training set so."""
    plain = build(hide(scenes(pipeline=[dict(type='trm_ml_mm.RenderScene')])))
    other = build(dict(
        hide(scenes(pipeline=[])), pipeline=[
            dict(type='trm_ml_mm.RenderScene'),
            dict(type='RandomFlip', prob=1., direction='horizontal')]))
    assert (other[0]['img'] == plain[0]['img'][:, ::-1]).all()
    assert other.known_labels == plain.known_labels
    two = build(dict(hide(concat(scenes(), scenes(1))), pipeline=[]))
    assert set(two[79]) == set(two.get_data_info(79))  # nothing was done to it


def test_a_sample_of_a_fold_comes_from_its_own_set():
    """The pipeline of the set that the image is in."""
    first = scenes(pipeline=[dict(type='trm_ml_mm.RenderScene')])
    second = scenes(1, pipeline=[])
    dataset = build(fold(hide(concat(first, second))))
    for i in range(len(dataset)):
        path = dataset.get_data_info(i)['img_path']
        inner = resolve_dataset(dataset, i)
        assert f'/{inner.split}/' in path
        assert ('img_shape' in dataset[i]) == (inner.split == 'train')


def test_one_mask_is_described_as_it_is_and_several_are_joined():
    a, b = hide(scenes(), seed=1), hide(scenes(1), known='single_positive')
    one, other = (build(c).known_labels for c in (a, b))
    assert known_labels_of(build(scenes())) is None
    assert known_labels_of(build(repeat(a))) == one
    assert known_labels_of(build(concat(a, scenes(2), b))) == dict(
        known=[KNOWN, 'single_positive'], seed=[1, 0],
        hash=f'{one["hash"]}+{other["hash"]}',
        labels=f'{one["labels"]}+{other["labels"]}')
    seen = labels_of(build(concat(a, scenes(2))))
    assert (seen[40:] != UNKNOWN).all() and (seen[:40] == UNKNOWN).any()


@DATASETS.register_module()
class ListedSet(MultiLabelDataset):
    """Four images with lists of known labels."""

    METAINFO = dict(classes=('a', 'b', 'c'))
    ENTRIES = [([0], [2]), ([], []), ([1, 2], []), ([], [0, 1])]

    def load_data_list(self):
        return [dict(img_path=f'{i}.jpg', gt_positive=positive,
                     gt_negative=negative)
                for i, (positive, negative) in enumerate(self.ENTRIES)]


def test_listed_labels_stay_sparse():
    dataset = ListedSet(allow_outside=True)
    expected = [[1, -1, 0], [-1, -1, -1], [-1, 1, 1], [0, 0, -1]]
    assert label_matrix(dataset).tolist() == expected
    assert isinstance(matrix_of(dataset), SparseLabels)
    info = dataset.get_data_info(0)
    assert info['gt_score'].tolist() == expected[0]
    assert not {'gt_positive', 'gt_negative'} & info.keys()
    for known in ('all', .5):
        wrapped = PartialLabelDataset(dataset, known=known, seed=3)
        dense = keep_known(DenseLabels(np.array(expected)), known, 3)[0]
        assert isinstance(wrapped.matrix, SparseLabels)
        assert (wrapped.labels == dense.dense()).all()
        assert (wrapped.hidden_labels() == DenseLabels(np.array(
            expected)).without(dense).dense()).all()
        subset = wrapped.get_subset([2, 0])
        assert (subset.labels == dense.dense()[[2, 0]]).all()
        assert (subset.hidden_labels()
                == wrapped.hidden_labels()[[2, 0]]).all()
        assert wrapped.get_cat_ids(2) == np.flatnonzero(
            dense.row(2) == 1).tolist()
    both = ConcatDataset([dataset, dataset])
    assert label_matrix(both).tolist() == expected * 2


@pytest.mark.parametrize('entry, message', [
    (([0], [0]), '0.jpg: "a" is present and absent'),
    (([3], []), r'0.jpg: gt_positive \[3\] has an index outside 0..2'),
    (([], [-1]), r'0.jpg: gt_negative \[-1\] has an index outside'),
])
def test_wrong_lists_of_labels_are_named(entry, message, monkeypatch):
    monkeypatch.setattr(ListedSet, 'ENTRIES', [entry])
    with pytest.raises(ValueError, match=message):
        label_matrix(ListedSet(allow_outside=True))
