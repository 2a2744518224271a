"""Which unknown labels are asked for first."""
import numpy as np
import pytest

from trm_ml_mm.evaluation import STRATEGIES, rank_questions
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN


@pytest.fixture
def drawn():
    rng = np.random.RandomState(0)
    labels = rng.choice([PRESENT, ABSENT, UNKNOWN], (30, 4), p=[.1, .2, .7])
    chances = rng.random_sample(labels.shape)
    chances[7] = np.nan
    return labels, chances


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_every_unknown_label_of_a_readable_image_is_asked_once(drawn,
                                                               strategy):
    labels, chances = drawn
    found = rank_questions(labels, chances, strategy)
    wanted = {(i, c) for i in range(30) for c in range(4)
              if labels[i, c] == UNKNOWN and i != 7}
    assert len(found) == len(wanted) and set(map(tuple, found)) == wanted


def test_uncertainty_asks_for_the_probability_next_to_a_half(drawn):
    labels, chances = drawn
    found = rank_questions(labels, chances, 'uncertainty')
    distance = [abs(chances[i, c] - .5) for i, c in found]
    assert distance == sorted(distance)


def test_random_depends_on_the_seed_alone(drawn):
    labels, chances = drawn
    one, same, other = (rank_questions(labels, p, 'random', seed)
                        for p, seed in ((chances, 1), (1 - chances, 1),
                                        (chances, 2)))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
