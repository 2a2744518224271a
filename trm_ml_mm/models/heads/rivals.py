"""What text-region matching is compared with: the same tower, data, labels,
kind of loss and number of epochs; what is matched differs, and the settings
that a search chose for each.

All are written from the papers' descriptions.
"""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS

from ..region import CategoryRegions, as_places, prompt_similarity
from .base import MatchingHead


def _without_autocast(feats: Tuple[Tensor]):
    return torch.autocast(feats[-1].device.type, enabled=False)


def _global_embedding(head: MatchingHead, pooled: Optional[Tensor]) -> Tensor:
    if pooled is None:
        raise ValueError(
            f'{type(head).__name__} looks at the embedding of the whole '
            'image: set pooled=True in its CLIPPromptBackbone.')
    return F.normalize(pooled.float(), dim=-1)


@MODELS.register_module()
class TextImageHead(MatchingHead):
    """Every category's text against the whole image (CoOp, arXiv 2109.01134).

    ``scale cos(global embedding, t_c) + b_c``; needs ``pooled=True`` in the
    backbone.

    Args:
        logit_scale: Of the cosine similarities.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    def __init__(self, *args, logit_scale: float = 10., **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_scale = logit_scale

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits, ``(B, C)``."""
        joint = self.joint_features(feats)
        with _without_autocast(feats):
            image = _global_embedding(self, joint.pooled)
            _, own = prompt_similarity(image[:, None], joint.text)
            return self.relations(self.biased(
                self.logit_scale * own[:, 0]))


@MODELS.register_module()
class TextPixelHead(MatchingHead):
    """Every category's text against every place (DualCoOp, arXiv 2206.09541).

    Similarities of all places, averaged with the softmax of the positive
    prompt's similarities over places. DualCoOp has a positive and a negative
    prompt per class (``prompt.pair``), whose similarities are subtracted, and
    the scale 20 for both.

    Args:
        logit_scale: Of the cosine similarities.
        sharpness: Of those in the softmax; None: the same.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    def __init__(self, *args, logit_scale: float = 20.,
                 sharpness: Optional[float] = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_scale = logit_scale
        self.sharpness = logit_scale if sharpness is None else sharpness

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits, ``(B, C)``."""
        joint = self.joint_features(feats)
        with _without_autocast(feats):
            places = F.normalize(as_places(joint.dense).float(), dim=-1)
            positive, own = prompt_similarity(places, joint.text)
            weights = torch.softmax(self.sharpness * positive, 1)
            return self.relations(self.biased(
                self.logit_scale * (weights * own).sum(1)))


@MODELS.register_module()
class QueryDecoderHead(MatchingHead):
    """Category queries with free outputs (Query2Label, arXiv 2107.10834).

    The same cross-attention as text-region matching, self-attention among the
    categories, and then a learned vector per category in the place of its
    text: ``scale w_c . q_c / |q_c| + b_c``. With ``start='text'`` queries,
    attention and outputs begin as CLIP has them; with 'random' nothing of the
    text is used.

    Args:
        region: Options of :class:`~trm_ml_mm.models.region.CategoryRegions`.
        start: 'text' or 'random'.
        self_attention: Heads of the self-attention, whose output starts at
            zero; 0: none.
        logit_scale: See above.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    def __init__(self, *args, region: Optional[dict] = None,
                 start: str = 'random', self_attention: int = 4,
                 logit_scale: float = 10., **kwargs):
        super().__init__(*args, **kwargs)
        region = dict(region or {}, start=start, residual=start == 'text')
        self.region = CategoryRegions(self.num_classes, self.dim, **region)
        self.start = start
        self.logit_scale = logit_scale
        self.attention = None
        if self_attention:
            self.attention = nn.MultiheadAttention(
                self.dim, self_attention, batch_first=True)
            nn.init.zeros_(self.attention.out_proj.weight)
        self.output = nn.Parameter(torch.zeros(self.num_classes, self.dim))
        if start == 'random':
            nn.init.normal_(self.output, std=self.dim**-0.5)

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits, ``(B, C)``."""
        joint = self.joint_features(feats)
        with _without_autocast(feats):
            query = self.region(joint.dense, joint.anchor).query
            if self.attention is not None:
                # As in a decoder: queries say who is who, features what is.
                named = query + self.region.queries(joint.anchor)
                query = query + self.attention(named, named, query,
                                               need_weights=False)[0]
            query = F.normalize(query, dim=-1)
            output = self.output
            if self.start == 'text':
                output = output + joint.anchor
            return self.relations(self.biased(
                self.logit_scale * (query * output).sum(-1)))


@MODELS.register_module()
class LinearProbeHead(MatchingHead):
    """A linear layer on CLIP's normalised image embedding (Radford et al.,
    arXiv 2103.00020); needs ``pooled=True`` in the backbone.

    Args:
        logit_scale: Of the layer's output, which is the same as a larger
            step and a larger first weight.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    def __init__(self, *args, logit_scale: float = 10., **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_scale = logit_scale
        self.output = nn.Linear(self.dim, self.num_classes, bias=False)

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits, ``(B, C)``."""
        joint = self.joint_features(feats)
        with _without_autocast(feats):
            image = _global_embedding(self, joint.pooled)
            return self.relations(self.biased(
                self.logit_scale * self.output(image)))
