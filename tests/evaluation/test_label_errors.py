"""Confident learning, against a plain loop and against cleanlab."""
import numpy as np
import pytest

from trm_ml_mm.evaluation import confident_errors, suspicious_labels
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN


def drawn(seed):
    """Labels of one class, and probabilities that mostly agree."""
    rng = np.random.RandomState(seed)
    count = rng.randint(3, 200)
    present = rng.random_sample(count) < rng.choice([.03, .1, .5, .9, 1.])
    chances = np.where(present, rng.beta(4, 2, count), rng.beta(1, 5, count))
    wrong = rng.random_sample(count) < .1
    return present, np.where(wrong, 1 - chances, chances)


def by_the_paper(present, chances):
    """Northcutt et al., eq. 1 and section 3.1, label by label."""
    values = [int(p) for p in present]
    probability = [[1 - c, c] for c in chances]
    threshold = {}
    for j in (0, 1):
        own = [p[j] for p, v in zip(probability, values) if v == j]
        threshold[j] = sum(own) / len(own) if own else None
    errors = []
    for p, value in zip(probability, values):
        confident = [j for j in (0, 1) if threshold[j] is not None
                     and p[j] >= threshold[j] - 1e-6]
        guess = max(confident, key=lambda j: p[j]) if confident else value
        errors.append(guess != value and p[guess] > p[value])
    return np.array(errors)


@pytest.mark.parametrize('seed', range(40))
def test_errors_are_those_of_the_paper(seed):
    present, chances = drawn(seed)
    assert np.array_equal(confident_errors(present, chances),
                          by_the_paper(present, chances))


def test_errors_are_those_of_cleanlab():
    issues = pytest.importorskip('cleanlab.filter').find_label_issues
    compared = 0
    for seed in range(40):
        present, chances = drawn(seed)
        if present.all() or not present.any():
            continue  # cleanlab asks for both values
        found = issues(present.astype(int),
                       np.stack([1 - chances, chances], 1),
                       filter_by='confident_learning', n_jobs=1)
        assert np.array_equal(confident_errors(present, chances), found)
        compared += 1
    assert compared > 20


def test_the_most_suspicious_label_comes_first_and_unknown_ones_never():
    labels = np.array([[PRESENT, ABSENT], [PRESENT, UNKNOWN],
                       [ABSENT, PRESENT], [PRESENT, ABSENT],
                       [PRESENT, PRESENT]])
    chances = np.array([[.9, .1], [.05, .99], [.1, .2], [.95, .97],
                        [np.nan, np.nan]])
    # (3, 1): absent at .97; (1, 0): present at .05; (2, 1): present at .2,
    # which is the mean of its class, so the model is confident of absent
    # only from .5 on.
    found = suspicious_labels(labels, chances).tolist()
    assert found[0] == [3, 1] and found[1] == [1, 0]
    assert all(labels[i, c] != UNKNOWN for i, c in found)
    assert all(i != 4 for i, _ in found)  # nobody has seen it


def test_flipped_labels_are_found_class_by_class():
    rng = np.random.RandomState(0)
    truth = (rng.random_sample((400, 3)) < [.1, .3, .5]).astype(int)
    chances = np.where(truth, .8, .1)
    flipped = rng.random_sample(truth.shape) < .03
    labels = np.where(flipped, 1 - truth, truth)
    labels[:50] = UNKNOWN
    found = suspicious_labels(labels, chances)
    assert {tuple(f) for f in found} == set(
        map(tuple, np.argwhere(flipped & (labels != UNKNOWN))))
