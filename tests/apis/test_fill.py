"""What is filled in, on drawn logits whose labels are known."""
import numpy as np
import pytest

from trm_ml_mm.apis import Evidence, fill_blanks, report
from trm_ml_mm.apis.fill import expected_cut
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

CLASSES = ('a', 'b', 'c')


def drawn(images, seed=0, known=.3):
    """Logits, all labels, and those that are known."""
    rng = np.random.RandomState(seed)
    truth = (rng.random_sample((images, 3)) < [.1, .2, .4]).astype(np.int8)
    logits = rng.normal(np.where(truth, 1.5, -1.5), 1.)
    hidden = rng.random_sample(truth.shape) >= known
    return logits, truth, np.where(hidden, UNKNOWN, truth)


@pytest.mark.parametrize('guarantee', [None, .9])
def test_known_labels_stay_and_blanks_are_as_right_as_wanted(guarantee):
    logits, truth, labels = drawn(4000)
    filled = fill_blanks(labels, logits, CLASSES, precision=(.9, .98),
                         guarantee=guarantee)
    known = labels != UNKNOWN
    assert np.array_equal(filled.labels[known], labels[known])
    for value, wanted in ((PRESENT, .9), (ABSENT, .98)):
        new = ~known & (filled.labels == value)
        assert new.sum() > 500
        assert (truth[new] == value).mean() > wanted - .01
    blank = filled.labels == UNKNOWN
    assert 0 < blank.sum() < .2 * (~known).sum()
    assert (abs(filled.probabilities[blank] - .5)
            < abs(filled.probabilities[~blank & ~known] - .5).max()).all()


def test_a_higher_precision_fills_in_less_and_never_the_unlikely_value():
    logits, _, labels = drawn(2000)
    counts = []
    for wanted in (.6, .9, .95, .99):
        filled = fill_blanks(labels, logits, CLASSES,
                             precision=(wanted, wanted))
        new = (labels == UNKNOWN) & (filled.labels != UNKNOWN)
        likely = filled.probabilities > .5
        assert ((filled.labels == PRESENT) == likely)[new].all()
        counts.append(new.sum())
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_the_known_label_is_not_in_its_own_probability():
    """Probabilities of known labels are held out, image by image."""
    logits, _, labels = drawn(1000, known=.9)
    row, column = np.argwhere((labels == PRESENT) & (logits > 1))[0]
    wrong = labels.copy()
    wrong[row, column] = ABSENT
    one, other = (fill_blanks(x, logits, CLASSES)
                  for x in (labels, wrong))
    assert one.probabilities[row, column] == pytest.approx(
        other.probabilities[row, column], abs=1e-9)


def test_validation_images_count_too():
    logits, truth, labels = drawn(300, known=.05)
    more, all_known, _ = drawn(3000, seed=1)
    alone, together = (
        fill_blanks(labels, logits, CLASSES, evidence, guarantee=.9)
        for evidence in (None, Evidence(more, all_known)))
    assert (together.labels == UNKNOWN).sum() < (
        alone.labels == UNKNOWN).sum()
    assert alone.own_labels and together.own_labels
    assert together.present[0] > 10 * max(alone.present[0], 1)


def test_labels_that_are_no_random_sample_give_way_to_a_validation_set():
    logits, truth, _ = drawn(1000)
    chosen = np.where(logits > 1, truth, UNKNOWN)  # only likely ones are known
    more, all_known, _ = drawn(1000, seed=1)
    filled = fill_blanks(chosen, logits, CLASSES, Evidence(more, all_known))
    assert filled.problems and not filled.own_labels
    alone = fill_blanks(chosen, logits, CLASSES)
    assert alone.problems and alone.own_labels


def test_an_unreadable_image_keeps_its_labels():
    logits, _, labels = drawn(500)
    logits[3] = np.nan
    filled = fill_blanks(labels, logits, CLASSES)
    assert np.array_equal(filled.labels[3], labels[3])
    assert np.isnan(filled.probabilities[3]).all()
    assert not np.isnan(np.delete(filled.probabilities, 3, 0)).any()
    with pytest.raises(ValueError, match='No image of the table can be read'):
        fill_blanks(labels, np.full_like(logits, np.nan), CLASSES)


def test_nothing_unknown_is_nothing_to_fill_in():
    logits, truth, _ = drawn(200)
    filled = fill_blanks(truth, logits, CLASSES)
    assert np.array_equal(filled.labels, truth)
    assert report(truth, filled, CLASSES)[-1].present == 0
    assert np.array_equal(
        fill_blanks(truth, logits, CLASSES).labels, truth)


def test_no_known_positive_is_an_error():
    logits, truth, labels = drawn(200)
    with pytest.raises(ValueError, match='No positive label is known'):
        fill_blanks(np.where(labels == PRESENT, UNKNOWN, labels), logits,
                    CLASSES)


def test_the_report_counts_every_label_once():
    logits, _, labels = drawn(1000)
    filled = fill_blanks(labels, logits, CLASSES)
    rows = report(labels, filled, CLASSES)
    assert [row.name for row in rows] == [*CLASSES, 'all classes']
    for c, row in enumerate(rows):
        column = slice(None) if c == 3 else c
        before, after = labels[:, column], filled.labels[:, column]
        assert row.known == (before != UNKNOWN).sum()
        assert row.present == ((before == UNKNOWN) & (after == PRESENT)).sum()
        assert row.known + row.present + row.absent + row.blank == before.size
        new = (before == UNKNOWN) & (after == ABSENT)
        assert row.absent_precision == pytest.approx(
            1 - filled.probabilities[:, column][new].mean())


def test_the_expected_cut_is_the_lowest_good_one():
    rng = np.random.RandomState(0)
    scores, chances = rng.permutation(50) / 50, rng.random_sample(50)
    for wanted in (.3, .5, .7, .99):
        good = [s for s in scores if chances[scores >= s].mean() >= wanted]
        assert expected_cut(scores, chances, wanted) == min(
            good, default=np.inf)
