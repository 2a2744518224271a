"""Logits and labels whose true probabilities are known."""
import numpy as np

from trm_ml_mm.evaluation.probabilities import sigmoid
from trm_ml_mm.labels import UNKNOWN


def drawn(images=400, classes=6, scale=1., bias=0., known=.5, seed=0,
          curve=sigmoid):
    """Logits, all labels, and those that are known. Labels are drawn with
    the probability ``curve(scale * logit + bias)``."""
    rng = np.random.RandomState(seed)
    logits = rng.randn(images, classes) * 2 - 1
    labels = (rng.rand(*logits.shape) < curve(scale * logits + bias)).astype(
        np.int8)
    mask = rng.rand(*logits.shape) < known
    return logits, labels, np.where(mask, labels, UNKNOWN).astype(np.int8)
