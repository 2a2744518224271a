"""Which unknown labels are worth asking a person for (active learning)."""
from typing import Callable, Dict

import numpy as np

from trm_ml_mm.labels import UNKNOWN, summarize_labels


def uncertainty(labels: np.ndarray, probabilities: np.ndarray,
                seed: int = 0) -> np.ndarray:
    """The variance of each label, ``p (1 - p)``: uncertainty sampling."""
    return probabilities * (1 - probabilities)


def gain(labels: np.ndarray, probabilities: np.ndarray,
         seed: int = 0) -> np.ndarray:
    """Uncertainty, more for classes with few known positives."""
    positives = summarize_labels(labels).positive
    return uncertainty(labels, probabilities) / (positives + 1)


def at_random(labels: np.ndarray, probabilities: np.ndarray,
              seed: int = 0) -> np.ndarray:
    """Any label, for comparison."""
    return np.random.RandomState(seed).random_sample(labels.shape)


STRATEGIES: Dict[str, Callable[..., np.ndarray]] = dict(
    uncertainty=uncertainty, gain=gain, random=at_random)


def rank_questions(labels: np.ndarray, probabilities: np.ndarray,
                   strategy: str = 'uncertainty', seed: int = 0) -> np.ndarray:
    """Unknown labels, those most worth an answer first.

    Args:
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        probabilities: ``(N, C)`` that a label is present, by a model that was
            not trained on it; NaN: an image that cannot be asked for.
        strategy: A name of :data:`STRATEGIES`.
        seed: Of the strategy 'random'.

    Returns:
        ``(K, 2)`` int, image and class of each.
    """
    worth = STRATEGIES[strategy](labels, probabilities, seed)
    open_ = (labels == UNKNOWN) & ~np.isnan(probabilities)
    found = np.argwhere(open_)
    return found[np.argsort(-worth[open_], kind='stable')]
