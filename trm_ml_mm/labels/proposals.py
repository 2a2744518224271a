"""A mask of labels that are not missing at random: a weak model proposes, a
person verifies."""
from pathlib import Path
from typing import Union

import numpy as np

from trm_ml_mm.utils.arrays import read_arrays
from trm_ml_mm.utils.checks import check_ratio
from trm_ml_mm.utils.io import existing

from .protocols import PROPORTION_SEED


def proposed_mask(scores: np.ndarray,
                  proportion: float,
                  random: float = 0.1,
                  seed: int = PROPORTION_SEED) -> np.ndarray:
    """Draw which labels are known when a weak model proposes the labels that
    a person verifies.

    The labels of Open Images came about like this. A label that nobody
    proposes stays unknown, whatever it is: positives that the model does not
    see are never labelled, and the known negatives are those that it takes for
    positives. The rule is ours: scores of a class are compared after
    subtracting the class's mean and dividing by its standard deviation, the
    highest of all scores are the model's proposals, and a few labels are
    proposed at random.

    Args:
        scores: ``(N, C)`` of the weak model; higher: more likely present.
        proportion: Of labels that are known, in [0, 1].
        random: Ratio of them that is proposed at random.
        seed: Draws those.

    Returns:
        ``(N, C)`` bool, True = proposed, so verified, so known. Exactly
        ``round(proportion * N * C)`` are.

    Raises:
        ValueError: If a ratio is out of its range, or the scores are no finite
            matrix.
    """
    check_ratio(proportion=proportion, random=random)
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or 0 in scores.shape or not np.isfinite(scores).all():
        raise ValueError('The scores of the weak model must be finite numbers, '
                         f'(N, C), got shape {scores.shape} with '
                         f'{(~np.isfinite(scores)).sum()} that are not finite.')
    spread = scores.std(0)
    scores = (scores - scores.mean(0)) / np.where(spread > 0, spread, 1)
    budget = round(proportion * scores.size)
    drawn = round(random * budget)
    # Stable: of equal scores, the earlier one is proposed.
    order = np.argsort(-scores, axis=None, kind='stable')
    proposals, others = np.split(order, [budget - drawn])
    chosen = np.random.RandomState(seed).choice(others, drawn, replace=False)
    mask = np.zeros(scores.size, bool)
    mask[proposals] = mask[chosen] = True
    return mask.reshape(scores.shape)


def load_scores(path: Union[str, Path]) -> np.ndarray:
    """Scores ``(N, C)`` of a weak model, from a .npy file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no matrix of numbers.
    """
    existing(path, 'File of scores', 'give a .npy file, or a config of '
             'zero-shot CLIP')
    try:
        scores = read_arrays(path).get('')
        if scores is None or scores.ndim != 2 or scores.dtype.kind not in 'iuf':
            raise ValueError('it is no matrix of numbers')
    except (ValueError, OSError) as error:
        raise ValueError(f'{path} holds no (N, C) matrix of scores '
                         f'({error}).') from error
    return scores
