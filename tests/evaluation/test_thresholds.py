import numpy as np
import pytest
from drawn_labels import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom

from trm_ml_mm.evaluation.probabilities import fit_probabilities, sigmoid
from trm_ml_mm.evaluation.risk_control import (
    between,
    binomial_cdf,
    candidate_counts,
    least_faultless,
    precision_threshold,
    recall_threshold,
)
from trm_ml_mm.evaluation.thresholds import (
    best_f1_threshold,
    best_f1_thresholds,
    precision_thresholds,
    recall_thresholds,
)
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

TIED = st.sampled_from([-3., -1., -.5, 0., .25, .5, 2., 7.])


def groups(least, most, elements=TIED):
    """Scores and presence of a group of labels."""
    return st.integers(least, most).flatmap(lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=elements), hnp.arrays(bool, n)))


def f1_at(threshold, scores, positive, claim):
    """F1 of weighted labels, by a plain loop."""
    hits = sum(p for s, p in zip(scores, positive) if s >= threshold)
    claims = sum(c for s, c in zip(scores, claim) if s >= threshold)
    return 2 * hits / (claims + sum(positive))


@settings(max_examples=150, deadline=None)
@given(groups(1, 30), groups(0, 10))
def test_best_f1_is_the_best_of_all_thresholds(case, unlabelled):
    scores, present = case
    more = unlabelled[0]
    expected = sigmoid(more)
    found = best_f1_threshold(scores, present, more, expected, prior=7.)
    weight = 7 / max(len(more), 1)
    joined = [*scores, *more]
    positive = [*present.astype(float), *(weight * expected)]
    claim = [1.] * len(scores) + [weight] * len(more)
    if sum(positive) == 0:
        assert found == np.inf
        return
    values = [f1_at(t, joined, positive, claim) for t in joined]
    assert f1_at(found, joined, positive, claim) == pytest.approx(max(values))
    # The highest of equally good ones, halfway to the next score.
    best = max(t for t, v in zip(joined, values)
               if v == pytest.approx(max(values), abs=1e-12))
    below = max((t for t in joined if t < best), default=best)
    assert found == (best + below) / 2


def test_best_f1_by_hand():
    scores = np.array([4., 3., 2., 1.])
    # Selecting three: 2 * 2 / (3 + 2); one: 2 * 1 / (1 + 2).
    assert best_f1_threshold(scores, np.array([1, 0, 1, 0], bool)) == 1.5
    assert best_f1_threshold(scores, np.array([1, 1, 0, 0], bool)) == 2.5


def test_expected_labels_steady_few_known_ones():
    """Of 40 known labels the best threshold is best by chance."""
    truth = best_f1_thresholds(*drawn(20000, scale=1.5, known=1.)[::2])
    errors = {0: [], 1000: []}
    for seed in range(40):
        logits, _, labels = drawn(100, scale=1.5, known=.4, seed=seed)
        fit = fit_probabilities(logits, labels)
        found = best_f1_thresholds(logits, labels, fit)
        assert not found.shared.any()
        errors[1000].append(found.values)
        errors[0].append([best_f1_threshold(
            logits[known, c], labels[known, c] == PRESENT)
            for c, known in enumerate((labels != UNKNOWN).T)])
    spread = {prior: np.std(np.array(e) - truth.values)
              for prior, e in errors.items()}
    assert spread[1000] < spread[0] / 2


@pytest.mark.parametrize('count', [1, 7, 60, 5000, 2_000_000])
@pytest.mark.parametrize('rate', [.02, .1, .5, .97])
def test_binomial_cdf_equals_scipy(count, rate):
    mean, deviation = count * rate, (count * rate * (1 - rate))**.5
    for errors in {0, 1, count - 1, count, *(
            int(mean + z * deviation) for z in (-30, -3, -1, 0, 1, 3, 30))}:
        errors = min(max(errors, 0), count)
        assert binomial_cdf(errors, count, rate) == pytest.approx(
            binom.cdf(errors, count, rate), rel=1e-7, abs=1e-300)


@pytest.mark.parametrize('target', [.5, .8, .9, .95, .99])
@pytest.mark.parametrize('confidence', [.5, .9, .99])
def test_least_faultless_is_the_first_that_passes(target, confidence):
    least = least_faultless(target, confidence)
    assert binom.cdf(0, least, 1 - target) <= 1 - confidence
    assert least == 1 or binom.cdf(0, least - 1, 1 - target) > 1 - confidence


def loop_precision(scores, present, target, confidence):
    """The rule, one candidate after another, with scipy's binomial."""
    least = next(n for n in range(1, 9999) if target**n <= 1 - confidence)
    start = min(max(present.sum() // 3, least), 4 * least)
    order = np.argsort(-scores, kind='stable')
    scores, present = scores[order], present[order]
    passed, step = 0, 0
    while np.ceil(start * 1.005**step) <= len(scores):
        lowest = scores[int(np.ceil(start * 1.005**step)) - 1]
        chosen = scores >= lowest
        p = binom.cdf((chosen & ~present).sum(), chosen.sum(), 1 - target)
        if p > 1 - confidence:
            break
        passed, step = chosen.sum(), step + 1
    else:  # the last candidate selects everything
        p = binom.cdf((~present).sum(), len(scores), 1 - target)
        if len(scores) >= start and p <= 1 - confidence:
            passed = len(scores)
    if passed == 0:
        return np.inf
    if passed == len(scores):
        return scores[-1]
    return (scores[passed - 1] + scores[passed]) / 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.booleans(), st.floats(.1, 3.),
       st.sampled_from([.6, .8, .9]), st.sampled_from([.55, .9]),
       st.integers(0, 10**6))
def test_precision_threshold_equals_a_loop(count, tied, slope, target,
                                           confidence, seed):
    rng = np.random.RandomState(seed)
    scores = rng.randn(count) * 2
    if tied:
        scores = np.round(scores)
    present = rng.rand(count) < sigmoid(slope * scores + 1)
    assert precision_threshold(scores, present, target, confidence) == (
        pytest.approx(loop_precision(scores, present, target, confidence)))


@settings(max_examples=100, deadline=None)
@given(groups(1, 60), st.sampled_from([.5, .8]), st.sampled_from([.55, .9]))
def test_recall_threshold_equals_a_loop(case, target, confidence):
    scores, present = case
    found = recall_threshold(scores, present, target, confidence)
    passed = [t for t in scores[present] if binom.cdf(
        (present & (scores < t)).sum(), present.sum(), 1 - target)
        <= 1 - confidence]
    if not passed:
        assert found == np.inf
        return
    below = max((t for t in scores if t < max(passed)), default=max(passed))
    assert found == (max(passed) + below) / 2


def test_the_rule_is_mapies():
    """MAPIE's fixed-sequence test takes the same of our candidates; its whole
    controller, whose p-values are rounded up, never a looser one."""
    from mapie.risk_control import (
        BinaryClassificationController,
        control_fwer,
    )
    found = 0
    for seed in range(20):
        rng = np.random.RandomState(seed)
        scores = sigmoid(3 * rng.randn(rng.randint(60, 300)))
        present = rng.rand(len(scores)) < scores**.5
        ranked = np.sort(scores)[::-1]
        counts = candidate_counts(ranked, int(present.sum()), .8, .9)
        candidates = np.array([between(ranked, n) for n in counts])
        ours = precision_threshold(scores, present, .8, .9)
        errors = [(~present[scores >= t]).sum() for t in candidates]
        p_values = binom.cdf(errors, counts, .2)
        passed = control_fwer(p_values, .1, 'fixed_sequence')
        assert ours == (candidates[passed[-1]] if len(passed) else np.inf)
        controller = BinaryClassificationController(
            lambda p: np.stack([1 - p, p], 1), 'precision', .8, .9,
            list_predict_params=candidates, fwer_method='fixed_sequence')
        controller.calibrate(scores, present.astype(int))
        theirs = controller.p_values[:, 0]
        assert (theirs >= p_values - 1e-12).all()
        assert np.isclose(theirs, p_values).mean() > .3
        if controller.best_predict_param is not None:
            assert controller.best_predict_param >= ours
            found += 1
    assert found > 5


@pytest.mark.parametrize('target', [.8, .9])
def test_the_guarantee_of_precision_holds(target):
    """In at most 10% of draws, the precision of the whole population is below
    the target; over 500 draws, in 13.5% by chance (2.6 deviations)."""
    rng = np.random.RandomState(0)
    scores = np.sort(rng.randn(200_000) * 2)
    probability = sigmoid(2 * scores - 1)
    # Precision of everything from a score on.
    above = np.cumsum(probability[::-1])[::-1] / np.arange(
        len(scores), 0, -1)
    below, selected = 0, []
    for _ in range(500):
        drawn = rng.randint(0, len(scores), 300)
        present = rng.rand(300) < probability[drawn]
        threshold = precision_threshold(scores[drawn], present, target)
        first = np.searchsorted(scores, threshold)
        selected.append(1 - first / len(scores))
        below += first < len(scores) and above[first] < target
    assert below <= 67
    # It is not held by selecting next to nothing.
    reachable = 1 - np.argmax(above >= target) / len(scores)
    assert np.mean(selected) > .6 * reachable


@pytest.mark.parametrize('precision', [.88, .899])
def test_a_useless_model_reaches_no_precision(precision):
    """Scores say nothing, and no threshold has the wanted precision. The
    start of the tests depends on the number of positives, which is a draw
    too."""
    rng = np.random.RandomState(1)
    for count in (40, 90, 300):
        found = [precision_threshold(
            rng.rand(count), rng.rand(count) < precision, .9) < np.inf
            for _ in range(500)]
        assert np.mean(found) <= .135


def test_the_guarantee_of_recall_holds():
    rng = np.random.RandomState(0)
    below = 0
    for _ in range(500):
        scores, present = rng.randn(300), rng.rand(300) < .3
        scores[present] += 1
        threshold = recall_threshold(scores, present, .8)
        # Scores of positives are normal around 1.
        below += .5 * _erfc((threshold - 1) / 2**.5) < .8
    assert 30 <= below <= 67  # held, and used


def _erfc(x):
    from math import erfc
    return erfc(x)


def test_the_guarantee_of_shared_thresholds_holds():
    """Classes whose logits mean different things, with few labels each: the
    precision of all predictions together."""
    bias = np.linspace(-2, 2, 20)
    everything, _, _ = drawn(5000, 20, known=1., seed=99)
    truth = sigmoid(1.5 * everything + bias)
    for value, probability in ((PRESENT, truth), (ABSENT, 1 - truth)):
        reached, coverage = [], []
        for seed in range(30):
            logits, _, labels = drawn(500, 20, 1.5, bias, .2, seed)
            found = precision_thresholds(logits, labels, .9, value=value)
            assert found.shared.all()
            chosen = (everything >= found.values if value == PRESENT else
                      everything <= found.values)
            if chosen.any():
                reached.append(probability[chosen].mean())
            coverage.append(chosen.mean())
        assert np.sum(np.array(reached) < .9) <= 7  # 10%, 2.4 deviations
        assert np.mean(reached) > .9
        # What all labels and true probabilities would reach.
        ranked = np.sort(probability.ravel())[::-1]
        best = np.cumsum(ranked) / np.arange(1, ranked.size + 1) >= .9
        assert np.mean(coverage) > .6 * best.mean()


def test_classes_with_enough_labels_have_their_own_threshold():
    logits, _, labels = drawn(1000, known=.9)
    labels[:900, 1] = UNKNOWN
    labels[:, 4] = UNKNOWN
    fit = fit_probabilities(logits, labels)
    for find in (precision_thresholds, recall_thresholds):
        found = find(logits, labels, .8, fit=fit)
        assert np.flatnonzero(found.shared).tolist() == [1, 4]
        rule = (precision_threshold if find is precision_thresholds else
                recall_threshold)
        for c in (0, 2, 3, 5):
            known = labels[:, c] != UNKNOWN
            assert found.values[c] == rule(
                logits[known, c], labels[known, c] == PRESENT, .8)
        # One cut through aligned logits, from the labels of both.
        cuts = fit.map.aligned(found.values)[found.shared]
        assert cuts[0] == pytest.approx(cuts[1])
        known = labels[:, 1] != UNKNOWN
        assert cuts[0] == pytest.approx(rule(
            fit.held_out_aligned[known, 1], labels[known, 1] == PRESENT, .8))
        assert find(logits, labels, .8, minimum=np.inf).shared.all()
        assert not find(logits, labels, .8, minimum=0).shared.any()
    labels[:, 1] = UNKNOWN
    assert np.flatnonzero(best_f1_thresholds(logits, labels).shared
                          ).tolist() == [1, 4]


def test_a_no_is_a_yes_of_the_opposite():
    logits, _, labels = drawn(1000, known=.9)
    opposite = np.where(labels == UNKNOWN, UNKNOWN, 1 - labels)
    for minimum in (0, np.inf):
        no = precision_thresholds(logits, labels, .9, value=ABSENT,
                                  minimum=minimum)
        yes = precision_thresholds(-logits, opposite, .9, minimum=minimum)
        np.testing.assert_allclose(no.values, -yes.values, atol=1e-6)


def test_without_enough_labels_there_is_no_threshold():
    logits, _, labels = drawn(60, 2, known=.1)
    assert (precision_thresholds(logits, labels, .99).values == np.inf).all()
    no = precision_thresholds(logits, labels, .99, value=ABSENT)
    assert (no.values == -np.inf).all()
    assert (recall_thresholds(logits, labels, .99).values == np.inf).all()
    # Of its own, without any label.
    labels[:, 1] = UNKNOWN
    found = best_f1_thresholds(logits, labels, minimum=0)
    assert np.isfinite(found.values).all()  # from expected labels


def test_neighbouring_floats_are_parted():
    lower = 1.
    upper = np.nextafter(lower, 2)
    assert between(np.array([upper, lower]), 1) == upper
    assert between(np.array([upper, lower]), 2) == lower
    assert between(np.array([]), 0) == np.inf


def test_bad_input_is_refused():
    logits, _, labels = drawn(20, 2)
    for target in (0, 1, 95):
        with pytest.raises(ValueError, match='target must be above 0 and '
                           f'below 1, got {target}'):
            precision_thresholds(logits, labels, target)
        with pytest.raises(ValueError, match='target must be above 0'):
            recall_thresholds(logits, labels, target, minimum=3)
    with pytest.raises(ValueError, match='confidence must be above 0'):
        precision_thresholds(logits, labels, .9, 1.)
    with pytest.raises(ValueError, match='value must be 1 or 0, got -1'):
        precision_thresholds(logits, labels, .9, value=UNKNOWN)
