"""How often labels of each class were seen, and what follows from it.

The only place where training counts labels. Ours.
"""
from typing import NamedTuple

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from trm_ml_mm.labels import ABSENT, PRESENT


class LabelCounts(NamedTuple):
    """Known labels of some images, over all ranks."""

    negatives: Tensor  # (C,) int64
    positives: Tensor  # (C,) int64
    images: Tensor  # () int64

    def negatives_are_labelled(self, least: float = 0.1) -> Tensor:
        """Whether absence is labelled too, class by class, ``(C,)`` bool.

        With single positive labels or tags it is not: a class has no known
        negative, or a few by accident. Then known labels do not tell how
        common the class is.

        Args:
            least: From this number of known negatives per known positive on,
                the negatives of a class count as labelled.
        """
        return (self.negatives > 0) & (
            self.negatives >= least * self.positives)

    def prior(self) -> Tensor:
        """Estimated ratio of positives in each class, ``(C,)`` in [0, 1].

        Known positives divided by known labels. For a class whose negatives
        are not labelled: known positives divided by images, a lower bound.
        """
        known = torch.where(self.negatives_are_labelled(),
                            self.negatives + self.positives, self.images)
        return self.positives / known.clamp(min=1)


class LabelStatistics(nn.Module):
    """Counts the labels of all training batches. Part of the checkpoint.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        for name, shape in zip(LabelCounts._fields,
                               ((num_classes, ), (num_classes, ), ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.long))

    @property
    def counts(self) -> LabelCounts:
        """Everything seen so far."""
        return LabelCounts(self.negatives, self.positives, self.images)

    @torch.no_grad()
    def update(self, targets: Tensor) -> LabelCounts:
        """Add the batches of all ranks.

        Args:
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}, of this rank.

        Returns:
            The counts of this step's batches alone.
        """
        # One tensor, so that ranks talk once.
        counts = torch.cat([(targets == ABSENT).sum(0),
                            (targets == PRESENT).sum(0),
                            targets.new_tensor([len(targets)]).long()])
        all_reduce(counts)
        classes = targets.shape[1]
        batch = LabelCounts(counts[:classes], counts[classes:2 * classes],
                            counts[-1])
        for total, added in zip(self.counts, batch):
            total += added
        return batch
