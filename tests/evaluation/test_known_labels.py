import numpy as np
import pytest
from drawn_labels import drawn
from scipy.stats import ranksums

from trm_ml_mm.evaluation.known_labels import (
    named,
    sampling_problems,
    score_difference,
)
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, single_positive_mask

NAMES = ['ant', 'bee', 'cat', 'dog', 'elk', 'fox']


def test_with_one_class_it_is_the_rank_sum_test():
    rng = np.random.RandomState(0)
    for shift in (-1., 0., .3):
        scores = rng.randn(2000, 1)
        known = rng.rand(2000, 1) < .3
        scores[known] += shift
        labels = np.where(known, ABSENT, UNKNOWN)
        expected = ranksums(scores[known], scores[~known]).statistic
        assert score_difference(scores, labels) == pytest.approx(
            expected, rel=.1, abs=.05)


def test_tied_scores_have_their_mean_rank():
    labels = np.array([[1], [0], [UNKNOWN], [UNKNOWN]])
    assert score_difference(np.zeros((4, 1)), labels) == 0
    # Ranks 1, 2.5, 2.5, 4.
    scores = np.array([[0.], [1.], [1.], [2.]])
    low = score_difference(scores, np.array([[1], [0], [-1], [-1]]))
    high = score_difference(scores, np.array([[-1], [0], [-1], [1]]))
    assert low == pytest.approx(-high) and high > 0


@pytest.mark.parametrize('by_image', [False, True])
def test_random_samples_differ_by_chance_alone(by_image):
    logits, truth, _ = drawn(300)
    # Classes of one image go together, as those of photographs do.
    logits += np.random.RandomState(3).randn(300, 1)
    values = []
    for seed in range(150):
        rng = np.random.RandomState(seed)
        known = rng.rand(300, 1 if by_image else 6) < .4
        labels = np.where(known, truth, UNKNOWN)
        values.append(score_difference(logits, labels))
        assert sampling_problems(logits, labels, NAMES) == []
    assert abs(np.mean(values)) < .2
    assert .85 < np.std(values) < 1.15


def test_all_labels_known_are_no_problem():
    logits, truth, _ = drawn(300)
    assert score_difference(logits, truth) == 0
    assert sampling_problems(logits, truth, NAMES) == []


def test_positives_alone_are_found():
    logits, truth, _ = drawn(300)
    found = sampling_problems(
        logits, np.where(truth == PRESENT, truth, UNKNOWN), NAMES)
    assert found[0] == ('6 of 6 classes have known positives and no known '
                        'negative: ant, bee, cat, dog, elk and 1 more.')
    assert found[1].startswith('Known labels have higher scores than unknown')


def test_negatives_alone_are_found_by_their_scores():
    """A rare class may have no known positive by chance."""
    logits, truth, _ = drawn(1000)
    labels = truth.copy()
    labels[truth[:, 1] == PRESENT, 1] = UNKNOWN
    found = sampling_problems(logits, labels, NAMES)
    assert len(found) == 1 and found[0].startswith('Known labels have')
    truth[:, 1] = ABSENT
    known = np.random.RandomState(0).rand(*truth.shape) < .4
    assert sampling_problems(logits, np.where(known, truth, UNKNOWN),
                             NAMES) == []


def test_single_positives_are_found():
    logits, truth, _ = drawn(300)
    truth[:, 0] = PRESENT
    mask = single_positive_mask(truth)
    found = sampling_problems(logits, np.where(mask, truth, UNKNOWN), NAMES)
    assert any('single positive labels' in line for line in found)


def test_asking_where_the_model_is_unsure_or_sure_is_found():
    logits, truth, _ = drawn(1000)
    logits[:, 3] += 1
    rng = np.random.RandomState(0)
    low = rng.rand(*truth.shape) < np.where(logits < 0, .6, .3)
    found = sampling_problems(logits, np.where(low, truth, UNKNOWN), NAMES)
    assert found[0].startswith('Known labels have lower scores than unknown')
    in_one = rng.rand(*truth.shape) < .3
    in_one[:, 3] = rng.rand(1000) < np.where(logits[:, 3] < 0, .2, .4)
    found = sampling_problems(logits, np.where(in_one, truth, UNKNOWN), NAMES)
    assert len(found) == 1 and 'dog' in found[0]


def test_names_of_many_classes_are_cut():
    assert named(NAMES, np.array([1, 0, 1, 0, 0, 0], bool)) == 'ant, cat'
    assert named(NAMES, np.ones(6, bool), 2) == 'ant, bee and 4 more'
