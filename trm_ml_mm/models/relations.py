"""What the presence of one category says about another."""
import torch
from torch import Tensor, nn


class CategoryRelations(nn.Module):
    """``s_c + gain * sum_k sigmoid(s_k) R_kc``: a category's logit, moved by
    the probabilities of the others. R is learned from zero, with an empty
    diagonal; no gradient flows through the probabilities, so that a category
    is not seen in an image for the sake of another one. Ours.

    Args:
        num_classes: C.
        gain: How fast R moves for one rate of learning; 0: no relations.
    """

    def __init__(self, num_classes: int, gain: float = 10.):
        super().__init__()
        self.gain = gain
        if gain:
            self.weight = nn.Parameter(torch.zeros(num_classes, num_classes))
            self.register_buffer('others', 1 - torch.eye(num_classes),
                                 persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        """``(B, C)`` -> ``(B, C)``."""
        if not self.gain:
            return logits
        present = logits.detach().sigmoid()
        return logits + self.gain * present @ (self.weight * self.others)
