"""Masks of labels that a weak model proposed."""
import numpy as np
import pytest

from trm_ml_mm.datasets import PartialLabelDataset, Scenes, label_matrix
from trm_ml_mm.labels import UNKNOWN, load_scores, proposed_mask, save_mask


def weak_model(seed=0, shape=(200, 6)):
    """Labels, and scores that find some of the positives; every class has its
    own offset and scale."""
    rng = np.random.RandomState(seed)
    labels = (rng.random_sample(shape) < .1).astype(int)
    scores = rng.standard_normal(shape) + 2 * labels
    return labels, scores * rng.uniform(.1, 5, shape[1]) + 3 * np.arange(
        shape[1])


@pytest.mark.parametrize('proportion', [0, .013, .1, .5, 1])
@pytest.mark.parametrize('random', [0, .1, .37, 1])
def test_the_number_of_known_labels_is_exact(proportion, random):
    _, scores = weak_model()
    mask = proposed_mask(scores, proportion, random, seed=3)
    assert mask.dtype == bool and mask.shape == scores.shape
    assert mask.sum() == round(proportion * scores.size)
    assert (mask == proposed_mask(scores, proportion, random, seed=3)).all()


def test_without_random_ones_it_is_the_top_of_a_loop():
    _, scores = weak_model()
    scores[:, 2] = scores[:, 3] = 1.  # no difference between images: z = 0
    mask = proposed_mask(scores, .1, random=0)
    z = np.zeros(scores.shape)
    for c in (0, 1, 4, 5):
        mean = sum(scores[:, c]) / 200
        spread = (sum((scores[:, c] - mean)**2) / 200)**.5
        z[:, c] = (scores[:, c] - mean) / spread
    ranked = sorted((-z[i, c], i, c) for i in range(200) for c in range(6))
    assert {(i, c) for _, i, c in ranked[:120]} == set(
        zip(*map(list, np.nonzero(mask))))
    # Ties: the earlier ones, in the order of the matrix.
    same = proposed_mask(np.ones((4, 3)), .5, random=0)
    assert same.flatten().tolist() == [True] * 6 + [False] * 6


def test_a_seed_draws_the_random_ones_alone():
    _, scores = weak_model()
    top = proposed_mask(scores, .09, random=0)
    masks = [proposed_mask(scores, .1, .1, seed) for seed in range(4)]
    assert all(mask[top].all() for mask in masks)
    drawn = [frozenset(map(tuple, np.argwhere(mask & ~top)))
             for mask in masks]
    assert len(set(drawn)) == 4 and {len(one) for one in drawn} == {12}


def test_units_of_the_scores_do_not_matter():
    _, scores = weak_model()
    other = scores * np.array([1, 2, 4, 8, .5, .25]) + np.arange(6)
    assert (proposed_mask(scores, .1) == proposed_mask(other, .1)).all()


def test_labels_are_missing_by_what_the_model_sees():
    labels, scores = weak_model(shape=(3000, 6))
    mask = proposed_mask(scores, .1, random=.1)
    assert labels[mask].mean() > 3 * labels.mean()
    # A class of an image that is not proposed is unknown, present or not.
    assert labels[~mask].any()


def test_what_is_verified_is_the_truth_and_the_rest_is_unknown(tmp_path):
    scenes = Scenes(num_images=40)
    scores = np.random.RandomState(0).standard_normal((40, 30))
    mask = proposed_mask(scores, .2)
    save_mask(tmp_path / 'mask.npz', mask, 'proposed 0.2', 0)
    labels = PartialLabelDataset(
        scenes, known=str(tmp_path / 'mask.npz')).labels
    assert (labels[mask] == label_matrix(scenes)[mask]).all()
    assert (labels[~mask] == UNKNOWN).all()


@pytest.mark.parametrize('scores, options, why', [
    (np.ones((3, 2)), dict(proportion=1.5), 'proportion must lie'),
    (np.ones((3, 2)), dict(proportion='all'), 'proportion must lie'),
    (np.ones((3, 2)), dict(proportion=.1, random=2), 'random must lie'),
    (np.ones(3), dict(proportion=.1), r'got shape \(3,\)'),
    (np.array([[1, np.nan]]), dict(proportion=.1), 'with 1 that are not'),
])
def test_what_is_no_proposal_is_refused(scores, options, why):
    with pytest.raises(ValueError, match=why):
        proposed_mask(scores, **options)


def test_files_of_scores(tmp_path):
    path = tmp_path / 'scores.npy'
    with pytest.raises(FileNotFoundError, match='zero-shot CLIP'):
        load_scores(path)
    np.save(path, np.eye(3, dtype=np.float32))
    assert (load_scores(path) == np.eye(3)).all()
    for wrong in (np.ones(3), np.array([['a']])):
        np.save(path, wrong)
        with pytest.raises(ValueError, match='no matrix of numbers'):
            load_scores(path)
