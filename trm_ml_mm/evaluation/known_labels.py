"""Are known labels a random sample of all labels?

What is found on known labels holds for all labels only then. Whether they are
cannot be proven, but a sample that is not random often shows: in the values
that are known, and in the scores that the model gives to known and unknown
labels. Ours.
"""
from typing import List, Sequence

import numpy as np

from trm_ml_mm.labels import PRESENT, UNKNOWN, summarize_labels

from .probabilities import check_scores

# Standard deviations that chance exceeds in 1 of 16,000 random samples.
LIMIT = 4.
# Fewer equal labels may be chance.
ENOUGH = 10


def sampling_problems(scores: np.ndarray, labels: np.ndarray,
                      classes: Sequence[str]) -> List[str]:
    """Signs that known labels are no random sample, one sentence each.

    Args:
        scores: ``(N, C)`` floats.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        classes: C names.
    """
    scores, labels = check_scores(scores, labels)
    problems = []
    count = summarize_labels(labels)
    found = (count.positive >= ENOUGH) & (count.negative == 0)
    if found.any():
        problems.append(
            f'{int(found.sum())} of {len(classes)} classes have known '
            f'positives and no known negative: {named(classes, found)}.')
    known = (labels != UNKNOWN).sum(1)
    if len(labels) >= ENOUGH and (known == 1).all() and (
            labels.max(1) == PRESENT).all():
        problems.append('Each image has one known label, which is a positive '
                        '(single positive labels).')
    together = score_difference(scores, labels)
    if abs(together) > LIMIT:
        problems.append(
            f'Known labels have {"higher" if together > 0 else "lower"} '
            f'scores than unknown ones ({abs(together):.1f} standard '
            'deviations, all classes together).')
    else:
        apart = np.array([
            score_difference(scores[:, c:c + 1], labels[:, c:c + 1])
            for c in range(len(classes))])
        found = abs(apart) > LIMIT
        if found.any():
            problems.append(
                'Known labels have other scores than unknown ones (more than '
                f'{LIMIT:g} standard deviations) in {int(found.sum())} of '
                f'{len(classes)} classes: {named(classes, found)}.')
    return problems


def score_difference(scores: np.ndarray, labels: np.ndarray) -> float:
    """How far ranks of known and of unknown labels differ, in standard
    deviations.

    Scores are ranked within each class. An image adds the centred ranks of its
    known labels, less the part of them that a random sample would have. These
    sums have mean 0 if labels were drawn at random, whether image by image or
    label by label. With one class this is the rank-sum test.

    Args:
        scores: ``(N, C)``.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.

    Returns:
        Above 0: known labels have the higher scores. 0 if all or none are
        known.
    """
    known = labels != UNKNOWN
    ranks = np.empty(scores.shape)
    for c, column in enumerate(scores.T):
        _, place, count = np.unique(column, return_inverse=True,
                                    return_counts=True)
        ranks[:, c] = (np.cumsum(count) - (count - 1) / 2)[place]
    ranks -= ranks.mean(0)
    # In units of images, so that classes weigh alike.
    sums = (ranks / len(ranks) * (known - known.mean(0))).sum(1)
    spread = np.sqrt((sums**2).sum())
    return float(sums.sum() / spread) if spread > 0 else 0.


def named(classes: Sequence[str], chosen: np.ndarray, most: int = 5) -> str:
    """Names of chosen classes, ``(C,)`` bool, the first few of them."""
    names = [name for name, one in zip(classes, chosen) if one]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
