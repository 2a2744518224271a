import numpy as np
import pytest

from trm_ml_mm.datasets import (
    PartialLabelDataset,
    Scenes,
    known_label_mask,
    label_matrix,
    mask_hash,
    single_positive_mask,
)

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


def test_wrapper_hides_exactly_the_masked_labels():
    inner = Scenes(num_images=60)
    truth = label_matrix(inner)
    wrapped = PartialLabelDataset(inner, known=.3, seed=5)
    mask = known_label_mask(truth.shape, .3, 5)
    seen = np.stack([wrapped.get_data_info(i)['gt_score'] for i in range(60)])
    assert (seen[mask] == truth[mask]).all()
    assert (seen[~mask] == -1).all()
    assert (label_matrix(wrapped) == seen).all()
    assert wrapped.metainfo['known_labels']['hash'] == mask_hash(mask)


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
