"""How many labels of each kind a label matrix has."""
from typing import NamedTuple

import numpy as np

from .values import ABSENT, PRESENT, UNKNOWN


class LabelSummary(NamedTuple):
    """Numbers of labels per class, and of images without any known label."""

    positive: np.ndarray  # (C,)
    negative: np.ndarray  # (C,)
    unknown: np.ndarray  # (C,)
    images_without: int  # images without any known label

    @property
    def images(self) -> int:
        return int(self.known[0] + self.unknown[0])

    @property
    def known(self) -> np.ndarray:
        return self.positive + self.negative


def summarize_labels(labels: np.ndarray) -> LabelSummary:
    """Count the labels of a whole data set.

    (The labels that a model sees while training are counted by
    :class:`~trm_ml_mm.models.label_statistics.LabelStatistics`.)

    Args:
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
    """
    unknown = labels == UNKNOWN
    return LabelSummary((labels == PRESENT).sum(0), (labels == ABSENT).sum(0),
                        unknown.sum(0), int(unknown.all(1).sum()))
