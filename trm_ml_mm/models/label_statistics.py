"""How common labels of each class are, and what follows from it.

The only place where training counts labels. Ours.
"""
from typing import NamedTuple, Union

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from trm_ml_mm.labels import ABSENT, PRESENT


class LabelCounts(NamedTuple):
    """Known labels of some images, over all ranks."""

    negatives: Tensor  # (C,) int64
    positives: Tensor  # (C,) int64
    images: Tensor  # () int64

    @classmethod
    def of(cls, targets: Tensor) -> 'LabelCounts':
        """Count labels ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}."""
        return cls((targets == ABSENT).sum(0), (targets == PRESENT).sum(0),
                   torch.tensor(len(targets), device=targets.device))

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
        One positive at the mean ratio of all classes is added, which only
        matters to a class with next to no known label. All zero without any
        known positive.
        """
        known = torch.where(self.negatives_are_labelled(),
                            self.negatives + self.positives, self.images)
        rate = self.positives.sum() / known.sum().clamp(min=1)
        return (self.positives + 1) / (known + 1 / rate)


class LabelStatistics(nn.Module):
    """Label counts of the training set. Part of the checkpoint.

    :meth:`set_training_labels` counts the whole label matrix once, before
    training. Without it, as in a training loop of one's own, the counts are
    those of the batches so far.

    Args:
        num_classes: C.
    """

    class_axes = dict(negatives=(0, ), positives=(0, ))
    restarts = ('seen', )  # pseudo-labels of new classes need a warm-up

    def __init__(self, num_classes: int):
        super().__init__()
        for name, shape in zip(LabelCounts._fields,
                               ((num_classes, ), (num_classes, ), ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.long))
        self.register_buffer('seen', torch.zeros((), dtype=torch.long))
        self._whole = False

    @property
    def counts(self) -> LabelCounts:
        """Of the training set, as far as it is known."""
        return LabelCounts(self.negatives, self.positives, self.images)

    @torch.no_grad()
    def set_training_labels(self, labels: Union[Tensor, LabelCounts]) -> None:
        """Take the labels of the whole training set, the same on every rank.

        Args:
            labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}, or their counts.

        Raises:
            ValueError: If the number of classes differs.
        """
        if isinstance(labels, Tensor):
            labels = LabelCounts.of(labels)
        classes = len(labels.positives)
        if classes != len(self.positives):
            raise ValueError(
                f'The training set has labels of {classes} classes and '
                f'the head num_classes={len(self.positives)}: make them '
                'agree.')
        for total, value in zip(self.counts, labels):
            total.copy_(value)
        self._whole = True

    @torch.no_grad()
    def update(self, targets: Tensor) -> LabelCounts:
        """Take in the batches of all ranks.

        Args:
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}, of this rank.

        Returns:
            The counts of this step's batches alone.
        """
        negatives, positives, images = LabelCounts.of(targets)
        # One tensor, so that ranks talk once.
        counts = torch.cat([negatives, positives, images[None]])
        all_reduce(counts)
        *classes, images = counts.split([len(negatives), len(positives), 1])
        batch = LabelCounts(*classes, images.squeeze(0))
        self.seen += batch.images
        if not self._whole:
            for total, added in zip(self.counts, batch):
                total += added
        return batch
