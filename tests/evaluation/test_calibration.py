import json

import numpy as np
import pytest
import torch
from drawn_labels import drawn

from trm_ml_mm.evaluation import precision_recall
from trm_ml_mm.evaluation.calibration import (
    Calibration,
    calibrate_logits,
    held_out_predictions,
)
from trm_ml_mm.evaluation.probabilities import (
    METHODS,
    calibration_error,
    fit_probabilities,
    sigmoid,
)
from trm_ml_mm.evaluation.thresholds import (
    best_f1_thresholds,
    precision_thresholds,
    recall_thresholds,
)
from trm_ml_mm.labels import UNKNOWN

NAMES = ['ant', 'bee', 'cat', 'dog', 'elk', 'fox']


@pytest.fixture(scope='module')
def case():
    logits, _, labels = drawn(600, scale=1.5, bias=-2.)
    labels[:560, 1] = UNKNOWN  # few labels
    return logits, labels


def same(a, b):
    assert type(a) is type(b)
    for left, right in zip(a, b):
        if isinstance(left, tuple):
            same(left, right)
        elif isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
        else:
            assert left == right


@pytest.mark.parametrize('options', [
    {}, dict(criterion='precision', target=.8),
    dict(criterion='precision', target=.999, confidence=.99),
    dict(criterion='recall', target=.7, confidence=.8, minimum=40)])
def test_it_survives_json_and_the_safe_loader(case, options, tmp_path):
    found = calibrate_logits(*case, NAMES, source='600 images', **options)
    content = found.to_dict()
    same(Calibration.from_dict(json.loads(
        json.dumps(content, allow_nan=False))), found)
    torch.save(dict(meta=dict(calibration=content)), tmp_path / 'file.pth')
    loaded = torch.load(tmp_path / 'file.pth', weights_only=True)
    same(Calibration.from_dict(loaded['meta']['calibration'],
                               classes=NAMES), found)
    np.testing.assert_array_equal(
        found.predict(case[0]), case[0] >= found.thresholds)


def test_it_says_what_it_is_made_of(case):
    logits, labels = case
    fit = fit_probabilities(logits, labels)
    for options, thresholds in (
            ({}, best_f1_thresholds(logits, labels, fit)),
            (dict(criterion='precision', target=.8),
             precision_thresholds(logits, labels, .8, fit=fit)),
            (dict(criterion='recall', target=.8),
             recall_thresholds(logits, labels, .8, fit=fit))):
        found = calibrate_logits(logits, labels, NAMES, **options)
        np.testing.assert_array_equal(found.thresholds, thresholds.values)
        assert found.shared == [
            name for name, one in zip(NAMES, thresholds.shared) if one]
        assert found.confidence == (.9 if options else None)
        np.testing.assert_array_equal(
            found.probabilities.probabilities(logits),
            fit.map.probabilities(logits))
    assert found.positives == [(labels[:, c] == 1).sum() for c in range(6)]
    assert found.negatives == [(labels[:, c] == 0).sum() for c in range(6)]
    assert found.images == 600
    assert found.error_before == calibration_error(sigmoid(logits), labels)
    assert found.error_after == calibration_error(
        fit.held_out_probabilities, labels)
    assert found.error_after < found.error_before / 2
    assert found.problems == []


def test_what_no_threshold_reaches_is_never_predicted(case):
    found = calibrate_logits(*case, NAMES, 'precision', .999)
    assert found.never_predicted == NAMES
    assert not found.predict(np.full(6, 1e9)).any()
    assert found.to_dict()['thresholds'] == [None] * 6


def test_labels_that_are_no_random_sample_are_told(case):
    logits, _ = case
    labels = drawn(600, scale=1.5, bias=-2.)[1]
    labels[:, 3] = np.where(labels[:, 3] == 1, 1, UNKNOWN)
    assert 'dog' in calibrate_logits(logits, labels, NAMES).problems[0]


def test_held_out_predictions_know_no_label_of_their_image(case):
    logits, labels = case
    found = held_out_predictions(logits, labels, classes=NAMES)
    turned = labels.copy()
    row = np.flatnonzero((labels != UNKNOWN).sum(1) >= 5)[0]
    known = labels[row] != UNKNOWN
    turned[row, known] = 1 - turned[row, known]
    again = held_out_predictions(logits, turned, classes=NAMES)
    np.testing.assert_array_equal(found[row], again[row])
    # F1 on images that chose the thresholds flatters, if anything.
    own = calibrate_logits(logits, labels, NAMES).predict(logits)
    ours, fixed, inside = (precision_recall(
        torch.tensor(p), torch.tensor(labels)).OF1
        for p in (found, logits >= 0, own))
    assert fixed < ours < inside + .01


def entries(content):
    """Every entry of the dict, with the dict that holds it."""
    for holder in (content, content['probabilities']):
        for name in holder:
            yield holder, name


def test_damaged_entries_are_refused(case):
    found = calibrate_logits(*case, NAMES, 'precision', .8)
    found = found._replace(probabilities=fit_probabilities(
        *case, ['isotonic']).map)
    whole = json.dumps(found.to_dict())
    names = [name for _, name in entries(json.loads(whole))]
    assert len(names) == len(set(names)) == 20
    for name in names:
        for wrong in (..., 'nonsense', -1, [1, 'a'], dict(a=1), False,
                      float('nan'), [float('inf')] * 6, [3., -3.]):
            content = json.loads(whole)
            holder = next(h for h, n in entries(content) if n == name)
            if wrong is ...:
                del holder[name]
            else:
                holder[name] = wrong
            if name == 'source' and wrong == 'nonsense':
                continue
            with pytest.raises(ValueError) as caught:
                Calibration.from_dict(content, 'epoch_3.pth: calibration')
            message = str(caught.value)
            assert message.startswith('epoch_3.pth: calibration ')
            assert 'calibrate the model again' in message
            # Where these are wrong, another entry may be told first.
            if name not in ('format', 'classes', 'probabilities', 'curve_x'):
                assert f'"{name}"' in message
    for whole_thing in (None, [], 'text', {}):
        with pytest.raises(ValueError, match='has format'):
            Calibration.from_dict(whole_thing)


def test_another_version_and_other_classes_are_refused(case):
    content = calibrate_logits(*case, NAMES).to_dict()
    with pytest.raises(ValueError, match='has format 99, and this version of '
                       'trm_ml_mm reads 1: calibrate the model again'):
        Calibration.from_dict(dict(content, format=99))
    with pytest.raises(ValueError, match='is of other classes than the '
                       'model, or of another order of them'):
        Calibration.from_dict(content, classes=NAMES[::-1])


def test_every_method_of_probabilities_is_read(case):
    found = calibrate_logits(*case, NAMES)
    for method in METHODS:
        found = found._replace(probabilities=fit_probabilities(
            *case, [method]).map)
        same(Calibration.from_dict(found.to_dict()), found)


def test_bad_arguments_are_refused(case):
    with pytest.raises(ValueError, match="criterion must be 'f1' or "
                       "'precision' or 'recall', got 'auc'"):
        calibrate_logits(*case, NAMES, 'auc')
    with pytest.raises(ValueError, match="'precision' needs a target"):
        calibrate_logits(*case, NAMES, 'precision')
    with pytest.raises(ValueError, match="'f1' has no target"):
        calibrate_logits(*case, NAMES, target=.9)
    with pytest.raises(ValueError, match='There are 2 class names and 6 '
                       'columns of logits'):
        calibrate_logits(*case, NAMES[:2])
    logits, labels = case
    with pytest.raises(ValueError, match='No positive label is known'):
        calibrate_logits(logits, np.full_like(labels, UNKNOWN), NAMES)
