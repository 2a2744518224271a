"""Category-aware regions: queries, saliency, query- and region-level features.

The paper's "category-aware region learning": cross-attention gives a saliency
map per category, and two feature levels. Shapes: B images, C categories,
L locations, D joint width, h attention heads.
"""
from typing import NamedTuple, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import (
    check_choice,
    check_not_negative,
    check_positive,
)

from .class_blocks import Classes, take

STARTS = ('text', 'random')


class RegionFeatures(NamedTuple):
    """What the category queries found in a batch of images."""

    saliency: Tensor  # (B, C, L) where each category looks; sums to 1 over L
    region: Tensor  # (B, C, D) the map pooled by saliency: the teacher's level
    query: Tensor  # (B, C, D) the learned level: the student's


def saliency_maps(queries: Tensor, locations: Tensor) -> Tensor:
    """Where each category looks.

    Args:
        queries: ``(h, C, D)``, one for each head and category.
        locations: ``(B, L, D)``.

    Returns:
        ``(B, h, C, L)``, a distribution over locations.
    """
    logits = queries.flatten(0, 1) @ locations.transpose(1, 2)  # B hC L
    return torch.softmax(logits.float(), -1).unflatten(1, queries.shape[:2])


@MODELS.register_module()
class CategoryRegions(nn.Module):
    """Learns where each category looks, and what it finds there.

    It starts from what CLIP knows. Queries are the text features of "a photo
    of a {class}.". Both attention projections are the identity times
    ``sqrt(attention_scale)``, so a category first attends where CLIP finds it
    similar. The last layer of the MLP is zero, so the query level starts equal
    to the region level.

    Args:
        num_classes: C.
        dim: D.
        num_heads: h. Heads split the joint space; one head attends by the
            whole cosine similarity.
        attention_scale: The first attention logits are cosines times this.
        mlp_layers: Linear layers of the MLP, at least 1.
        residual: The query level is ``region + MLP(values)``. False: the MLP
            alone, the literal reading of the paper; its last layer then has
            the usual random start.
        start: 'text', as above; or 'random': the text is not used, each query
            is a random vector, and the projections are random with the same
            scale.

    Raises:
        ValueError: If heads do not divide D, ``start`` is unknown, or the
            scale is negative.
    """

    class_axes = dict(query_offset=(0, ))

    def __init__(self,
                 num_classes: int,
                 dim: int,
                 num_heads: int = 1,
                 attention_scale: float = 40.,
                 mlp_layers: int = 2,
                 residual: bool = True,
                 start: str = 'text'):
        super().__init__()
        check_choice(STARTS, start=start)
        check_not_negative(attention_scale=attention_scale)
        check_positive(mlp_layers=mlp_layers)
        if dim % num_heads:
            raise ValueError(f'num_heads={num_heads} does not divide the '
                             f'joint width {dim}.')
        self.num_heads = num_heads
        self.residual = residual
        self.start = start
        # An offset from CLIP's text feature: zero at the start.
        self.query_offset = nn.Parameter(torch.zeros(num_classes, dim))
        self.query_proj = nn.Linear(dim, dim, bias=False)
        self.key_proj = nn.Linear(dim, dim, bias=False)
        self.value_proj = nn.Linear(dim, dim, bias=False)
        layers = [nn.LayerNorm(dim)]
        for _ in range(mlp_layers - 1):
            layers += [nn.Linear(dim, dim), nn.GELU()]
        layers.append(nn.Linear(dim, dim))
        self.mlp = nn.Sequential(*layers)
        with torch.no_grad():
            if start == 'random':
                self.query_offset.normal_(std=dim**-0.5)
                for proj in (self.query_proj, self.key_proj):
                    proj.weight.normal_(std=(attention_scale / dim)**0.5)
            else:
                for proj in (self.query_proj, self.key_proj):
                    proj.weight.copy_(torch.eye(dim) * attention_scale**0.5)
                self.value_proj.weight.copy_(torch.eye(dim))
            if residual:
                self.mlp[-1].weight.zero_()
                self.mlp[-1].bias.zero_()

    def forward(self, dense: Tensor, zero_shot_text: Tensor,
                unit: Union[float, Tensor] = 1.,
                classes: Classes = None) -> RegionFeatures:
        """Region- and query-level features of every category.

        Args:
            dense: ``(B, D, H, W)`` or ``(B, L, D)`` map in the joint space.
            zero_shot_text: ``(C, D)`` text features that queries start from.
            unit: Of the joint space; divides the attention logits.
            classes: Which of its classes ``zero_shot_text`` has, and the
                result will have; None: all.
        """
        locations = as_locations(dense)
        locations = F.normalize(locations.float(), dim=-1)  # B L D
        queries = self.queries(zero_shot_text, classes)
        queries = self._head_queries(queries) / unit
        attention = saliency_maps(queries, locations)  # B h C L
        pooled = attention @ locations[:, None]  # B h C D
        saliency, region = attention.mean(1), pooled.mean(1)
        # A (F W_v) = (A F) W_v: there are fewer categories than locations.
        values = self.value_proj.weight.unflatten(0, (self.num_heads, -1))
        attended = torch.einsum('bhcd,hed->bche', pooled, values).flatten(2)
        query = self.mlp(attended)
        if self.residual:
            query = region + query
        return RegionFeatures(saliency, region, query)

    def queries(self, zero_shot_text: Tensor,
                classes: Classes = None) -> Tensor:
        """The category queries, ``(C, D)``."""
        offset = take(self.query_offset, classes)
        if self.start == 'random':
            return offset
        return zero_shot_text + offset

    def _head_queries(self, queries: Tensor) -> Tensor:
        """Every head's queries, ``(h, C, D)``, to compare with unprojected
        locations: (Q W_q)(F W_k)^T = (Q W_q W_k^T) F^T."""
        queries = self.query_proj(queries)
        queries = queries.unflatten(-1, (self.num_heads, -1))  # C h d
        keys = self.key_proj.weight.unflatten(0, (self.num_heads, -1))
        return torch.einsum('chd,hde->hce', queries, keys)


def as_locations(dense: Tensor) -> Tensor:
    """``(B, D, H, W)`` or ``(B, L, D)`` -> ``(B, L, D)``."""
    return dense.flatten(2).transpose(1, 2) if dense.dim() == 4 else dense


def prompt_similarity(features: Tensor, text: Tensor) -> Tuple[Tensor, Tensor]:
    """Similarity of every feature with every category's text.

    Args:
        features: ``(B, L, D)``, normalised.
        text: ``(P, C, D)``, normalised: P = 1, or P = 2 for a positive and a
            negative prompt.

    Returns:
        ``(B, L, C)`` similarity with the positive prompt; and the same minus
        the similarity with the negative prompt, if there is one.
    """
    positive = features @ text[0].float().T
    if len(text) == 1:
        return positive, positive
    return positive, positive - features @ text[1].float().T


def matching_logits(features: Tensor, text: Tensor,
                    scale: Union[float, Tensor]) -> Tensor:
    """One-to-one matching: category c's feature with category c's text.

    Args:
        features: ``(B, C, D)``.
        text: ``(P, C, D)``, normalised: P = 1, or P = 2 for a positive and a
            negative prompt, whose similarity is subtracted.
        scale: Logit scale.

    Returns:
        ``(B, C)`` logits, fp32, before any bias.
    """
    features = F.normalize(features.float(), dim=-1)
    similarity = torch.einsum('bcd,pcd->pbc', features, text.float())
    if len(text) == 2:
        return scale * (similarity[0] - similarity[1])
    return scale * similarity[0]
