"""Scores inside a file are those of the calibrated model."""
import numpy as np
import pytest
import torch

from trm_ml_mm.evaluation import calibrate_logits, fit_probabilities
from trm_ml_mm.evaluation.probabilities import METHODS
from trm_ml_mm.export.probabilities import Scores


@pytest.mark.parametrize('method', METHODS)
def test_they_are_the_probabilities_of_the_calibration(method):
    rng = np.random.RandomState(0)
    labels = (rng.rand(300, 4) < .3).astype(np.int8)
    logits = 2 * rng.randn(300, 4) + 3 * labels - 3
    found = fit_probabilities(logits, labels, [method]).map
    calibration = calibrate_logits(logits, labels, list('abcd'))._replace(
        probabilities=found)
    x = 8 * rng.randn(100, 4)  # beyond the ends of a curve too
    scores = Scores(calibration)(torch.tensor(x, dtype=torch.float))
    assert np.abs(scores.numpy() - found.probabilities(x)).max() < 1e-5


def test_without_a_calibration_they_are_sigmoids():
    x = torch.randn(5, 3)
    assert torch.equal(Scores(None)(x), x.sigmoid())
