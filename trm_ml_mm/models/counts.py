"""How often labels of each class were seen, and what follows from it."""
import torch
from mmengine.dist import all_reduce
from torch import Tensor


def count_labels(targets: Tensor) -> Tensor:
    """Known negatives and positives of each class in the batches of all ranks.

    Args:
        targets: ``(B, C)`` in {1, 0, -1}.

    Returns:
        ``(2, C)``: negatives, positives.
    """
    counts = torch.stack([(targets == 0).sum(0), (targets == 1).sum(0)])
    counts = counts.float()
    all_reduce(counts)
    return counts


def negatives_are_labelled(negatives: Tensor, positives: Tensor,
                           least: float = 0.1) -> Tensor:
    """Whether absence is labelled too, class by class, ``(C,)`` bool.

    With single positive labels, or tags, it is not: there is no known
    negative, or a stray one. Known labels then do not tell how common a class
    is. Ours.

    Args:
        negatives, positives: ``(C,)`` counts of known labels.
        least: Known negatives for each known positive, from which on they
            are no stray ones.
    """
    return (negatives > 0) & (negatives >= least * positives)
