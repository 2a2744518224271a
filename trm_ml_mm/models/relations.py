"""Category relations: what the presence of one category says about another."""
from typing import Optional

import torch
from torch import Tensor, nn

from trm_ml_mm.utils.checks import check_not_negative, check_positive

from .class_blocks import Classes, take

MAX_CLASSES = 2048  # of a full R: 4M learned values


class CategoryRelations(nn.Module):
    """``s_c + scale * sum_k sigmoid(s_k) R_kc``: the probabilities of the other
    categories move a category's logit. Our addition to the paper.

    R starts at zero and its diagonal stays empty. No gradient flows through
    the probabilities: a category is not detected for the sake of another one.

    With a rank r, ``R = U V^T`` without its diagonal; U and V are ``(C, r)``.
    V starts at zero, and U at random with a standard deviation of 1/r, so that
    an entry of R moves about as far per step as that of a full R.

    Args:
        num_classes: C.
        scale: Factor of R; a larger one makes R learn faster. 0: no relations.
        rank: r. None: a full R, of at most 2,048 classes.

    Raises:
        ValueError: If the scale is negative, the rank is not positive, or
            there are too many classes for a full R.
    """

    class_axes = dict(weight=(0, 1), left=(0, ), right=(0, ))

    def __init__(self, num_classes: int, scale: float = 10.,
                 rank: Optional[int] = None):
        super().__init__()
        check_not_negative(relations=scale)
        if rank is not None:
            check_positive(relation_rank=rank)
        self.scale = scale
        self.rank = rank
        if not scale:
            return
        if rank is not None:
            self.left = nn.Parameter(torch.randn(num_classes, rank) / rank)
            self.right = nn.Parameter(torch.zeros(num_classes, rank))
            return
        if num_classes > MAX_CLASSES:
            raise ValueError(
                f'Relations between {num_classes} classes are '
                f'{num_classes**2:,} learned values; at most {MAX_CLASSES} '
                'classes have all of them: set relation_rank=16 in the head, '
                'or relations=0.')
        self.weight = nn.Parameter(torch.zeros(num_classes, num_classes))
        self.register_buffer('others', 1 - torch.eye(num_classes),
                             persistent=False)

    def forward(self, logits: Tensor, classes: Classes = None) -> Tensor:
        """``(B, K)`` -> ``(B, K)``.

        Args:
            logits: Of K classes, among which the relations count.
            classes: Which ones; None: all C.
        """
        if not self.scale:
            return logits
        present = self.scale * logits.detach().sigmoid()
        if self.rank is None:
            weight, others = (take(take(matrix, classes, 0), classes, 1)
                              for matrix in (self.weight, self.others))
            return logits + present @ (weight * others)
        left, right = take(self.left, classes), take(self.right, classes)
        diagonal = (left * right).sum(-1)
        return logits + present @ left @ right.T - present * diagonal
