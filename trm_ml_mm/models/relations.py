"""Category relations: what the presence of one category says about another."""
import torch
from torch import Tensor, nn

from trm_ml_mm.utils.checks import check_not_negative


class CategoryRelations(nn.Module):
    """``s_c + scale * sum_k sigmoid(s_k) R_kc``: the probabilities of the other
    categories move a category's logit. Our addition to the paper.

    R starts at zero and its diagonal stays empty. No gradient flows through
    the probabilities: a category is not detected for the sake of another one.

    Args:
        num_classes: C.
        scale: Factor of R; a larger one makes R learn faster. 0: no relations.

    Raises:
        ValueError: If the scale is negative.
    """

    class_axes = dict(weight=(0, 1))

    def __init__(self, num_classes: int, scale: float = 10.):
        super().__init__()
        check_not_negative(relations=scale)
        self.scale = scale
        if scale:
            self.weight = nn.Parameter(torch.zeros(num_classes, num_classes))
            self.register_buffer('others', 1 - torch.eye(num_classes),
                                 persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """``(B, C)`` -> ``(B, C)``."""
        if not self.scale:
            return logits
        present = logits.detach().sigmoid()
        return logits + self.scale * present @ (self.weight * self.others)
