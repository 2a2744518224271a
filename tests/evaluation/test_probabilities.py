import numpy as np
import pytest
import torch
from drawn_labels import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from trm_ml_mm.evaluation.probabilities import (
    METHODS,
    ProbabilityMap,
    calibration_error,
    fit_probabilities,
    isotonic_blocks,
    log_loss,
    sigmoid,
)
from trm_ml_mm.labels import PRESENT, UNKNOWN


def test_one_scale_and_bias_equal_logistic_regression():
    logits, _, labels = drawn(scale=1.7, bias=1.2)
    fitted = fit_probabilities(logits, labels, ['temperature']).map
    known = labels != UNKNOWN
    theirs = LogisticRegression(C=1e6, tol=1e-10).fit(
        logits[known][:, None], labels[known])
    assert fitted.scale == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    np.testing.assert_allclose(fitted.bias, theirs.intercept_[0], rtol=1e-3)


def test_a_bias_of_each_class_equals_ridge_regression_on_indicators():
    bias = np.linspace(-1, 1, 6)
    logits, _, labels = drawn(bias=bias)
    fitted = fit_probabilities(logits, labels, ['class_bias']).map
    rows, classes = np.nonzero(labels != UNKNOWN)
    # scikit-learn draws all weights toward 0. Large values of a column make
    # its weight small, and so nearly free; 1/2 is our precision of 4.
    design = np.zeros((len(rows), 8))
    design[:, 0] = 100 * logits[rows, classes]
    design[:, 1] = 100
    design[np.arange(len(rows)), 2 + classes] = .5
    theirs = LogisticRegression(C=1., fit_intercept=False, tol=1e-10,
                                max_iter=1000).fit(
        design, labels[rows, classes])
    weights = theirs.coef_[0]
    assert fitted.scale == pytest.approx(100 * weights[0], rel=1e-2)
    np.testing.assert_allclose(
        fitted.bias, 100 * weights[1] + .5 * weights[2:], atol=1e-2)
    assert np.corrcoef(fitted.bias, bias)[0, 1] > .9


def test_a_class_without_a_label_has_the_common_bias():
    logits, _, labels = drawn(bias=np.linspace(-1, 1, 6))
    labels[:, 2] = UNKNOWN
    fitted = fit_probabilities(logits, labels, ['class_bias']).map
    others = np.delete(fitted.bias, 2)
    assert others.min() < fitted.bias[2] < others.max()
    assert abs(fitted.bias[2] - others.mean()) < .1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(
    hnp.arrays(np.float64, n, elements=st.sampled_from(
        [-3., -1., -.5, 0., .25, .5, 2., 7.])),
    hnp.arrays(bool, n))))
def test_isotonic_blocks_equal_sklearn(case):
    scores, present = case
    blocks = isotonic_blocks(scores, present)
    theirs = IsotonicRegression().fit(scores, present)
    frequency = blocks.positives / blocks.count
    assert (np.diff(frequency) > 0).all()
    assert blocks.count.sum() == len(scores)
    order = np.argsort(scores, kind='stable')
    ours = np.repeat(frequency, blocks.count.astype(int))
    np.testing.assert_allclose(ours, theirs.predict(scores[order]),
                               atol=1e-9)
    np.testing.assert_allclose((blocks.x * blocks.count).sum(), scores.sum(),
                               atol=1e-9)


def test_calibration_error_equals_torchmetrics():
    rng = np.random.RandomState(1)
    probabilities = rng.rand(300, 4) * .999
    labels = rng.choice([1, 0, UNKNOWN], (300, 4)).astype(np.int8)
    known = labels != UNKNOWN
    for bins in (1, 10, 15):
        theirs = binary_calibration_error(
            torch.tensor(probabilities[known]),
            torch.tensor(labels[known]).long(), n_bins=bins, norm='l1')
        assert calibration_error(probabilities, labels, bins) == (
            pytest.approx(theirs.item(), abs=1e-6))


def test_calibration_error_by_hand():
    # One bin of .2, .2 with one positive; one bin of 1 with a positive.
    error = calibration_error(np.array([[.2], [.2], [1.], [.7]]),
                              np.array([[1], [0], [1], [UNKNOWN]]), bins=2)
    assert error == pytest.approx((2 * abs(.2 - .5) + 0) / 3)
    assert np.isnan(calibration_error(np.ones((1, 1)),
                                      np.full((1, 1), UNKNOWN)))


def test_the_method_is_what_the_labels_say():
    # A logistic curve needs no other one; a curve with a plateau does.
    logits, _, labels = drawn(2000, scale=1.5)
    assert fit_probabilities(logits, labels).map.method == 'temperature'
    logits, _, labels = drawn(2000, bias=np.linspace(-2, 2, 6))
    assert fit_probabilities(logits, labels).map.method.startswith(
        'class_bias')
    logits, _, labels = drawn(
        2000, curve=lambda z: np.where(z > 0, .9, .1 * sigmoid(z)))
    assert fit_probabilities(logits, labels).map.method.endswith('isotonic')


def test_probabilities_are_right_on_labels_that_were_hidden():
    for curve in (sigmoid, lambda z: .2 + .6 * sigmoid(4 * z)):
        logits, truth, labels = drawn(3000, scale=2., bias=-1.5, known=.3,
                                      curve=curve)
        hidden = np.where(labels == UNKNOWN, truth, UNKNOWN)
        fit = fit_probabilities(logits, labels)
        before = calibration_error(sigmoid(logits), hidden)
        after = calibration_error(fit.map.probabilities(logits), hidden)
        assert before > .05
        assert after < .025
        # What the fit says of itself holds for labels that it never saw.
        held_out = calibration_error(fit.held_out_probabilities, labels)
        assert abs(held_out - after) < .02


def test_held_out_values_did_not_see_their_label():
    logits, _, labels = drawn(50, 3)
    fit = fit_probabilities(logits, labels)
    known = labels != UNKNOWN
    assert (np.isnan(fit.held_out_aligned) == ~known).all()
    row = np.flatnonzero(known.all(1))[0]
    turned = labels.copy()
    turned[row] = 1 - turned[row]
    again = fit_probabilities(logits, turned, [fit.map.method])
    np.testing.assert_array_equal(again.held_out_probabilities[row],
                                  fit.held_out_probabilities[row])
    assert set(fit.log_loss) == set(METHODS)
    p = fit.held_out_probabilities[known]
    present = labels[known] == PRESENT
    assert fit.log_loss[fit.map.method] == pytest.approx(
        -np.log(np.where(present, p, 1 - p)).mean())


@pytest.mark.parametrize('method', METHODS)
def test_probabilities_rise_with_logits_and_stay_within(method):
    logits, _, labels = drawn(60, 4, known=.9)
    fitted = fit_probabilities(logits, labels, [method]).map
    line = np.repeat(np.linspace(-50, 50, 301)[:, None], 4, 1)
    probabilities = fitted.probabilities(line)
    assert (np.diff(probabilities, axis=0) >= 0).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (fitted.curve_x is not None) == method.endswith('isotonic')
    np.testing.assert_allclose(fitted.unaligned(fitted.aligned(line)), line)
    assert (fitted.unaligned(np.inf) == np.inf).all()
    if method.endswith('isotonic'):  # no label is certain
        assert probabilities.min() > 0
        assert probabilities.max() < 1


def test_labels_that_a_threshold_parts_have_a_finite_fit():
    logits = np.array([[-2.], [-1.], [1.], [2.]])
    for labels in ([[0], [0], [1], [1]], [[0], [0], [0], [1]]):
        fitted = fit_probabilities(logits, np.array(labels)).map
        assert 0 < fitted.scale < 100
        assert np.isfinite(fitted.probabilities(logits)).all()


def test_log_loss_and_sigmoid_do_not_overflow():
    logits = np.array([-1000., 0., 1000.])
    assert sigmoid(logits).tolist() == [0, .5, 1]
    assert log_loss(logits, np.array([False, True, True])) == pytest.approx(
        np.log(2) / 3)


def test_bad_input_is_refused():
    logits, _, labels = drawn(20, 2)
    with pytest.raises(ValueError, match=r'must both be \(N, C\), got '
                       r'\(20, 2\) and \(20, 1\)'):
        fit_probabilities(logits, labels[:, :1])
    with pytest.raises(ValueError, match='Labels must be 1, 0 or -1'):
        fit_probabilities(logits, labels + 2)
    with pytest.raises(ValueError, match='the model diverged'):
        fit_probabilities(np.where(logits > 0, np.nan, logits), labels)
    with pytest.raises(ValueError, match='No positive label is known'):
        fit_probabilities(logits, np.where(labels == 1, UNKNOWN, labels))
    with pytest.raises(ValueError, match='No negative label is known'):
        fit_probabilities(logits, np.where(labels == 0, UNKNOWN, labels))
    with pytest.raises(ValueError, match='Higher logits do not go with more'):
        fit_probabilities(logits, (logits < -1).astype(np.int8))
    with pytest.raises(ValueError, match='fitted to one image'):
        fit_probabilities(np.zeros((1, 2)), np.array([[0, 1]]))


def test_the_curve_ends_flat():
    curve = ProbabilityMap('isotonic', 1., np.zeros(1), np.array([-1., 1.]),
                           np.array([-2., 3.]))
    np.testing.assert_allclose(
        curve.on_curve(np.array([-9., -1., 0., 1., 9.])),
        [-2, -2, .5, 3, 3])
