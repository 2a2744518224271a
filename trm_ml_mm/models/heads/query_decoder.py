"""Baseline: category queries with free output vectors (Query2Label)."""
from typing import List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_choice, check_ratio

from ..backbones import CLIPFeatures
from ..class_blocks import take
from ..region import STARTS, RegionFeatures
from .text_region import TextRegionMatchingHead


@MODELS.register_module()
class QueryDecoderHead(TextRegionMatchingHead):
    """Category queries with free output vectors (Query2Label, arXiv
    2107.10834, written from the paper's description).

    The same cross-attention as text-region matching, then self-attention
    among the categories, then a learned vector w_c per category instead of its
    text: ``logit_scale * w_c . q_c / |q_c| + b_c``. With ``start='text'``,
    queries, attention and output vectors start from CLIP's text; with
    'random', the text is not used at all.

    Args:
        region: Options of :class:`~trm_ml_mm.models.region.CategoryRegions`.
        start: 'text' or 'random'.
        self_attention: Heads of the self-attention, whose output starts at
            zero. 0: no self-attention.
        dropout: Of the features that the output vectors see. Without text,
            these vectors learn the few known labels by heart, the more so the
            longer they are trained.
        logit_scale: See above.
        scores: The level to predict from.
        **kwargs: See
            :class:`~trm_ml_mm.models.heads.text_region.TextRegionMatchingHead`,
            whose other parts are off unless they are given.

    Raises:
        ValueError: If ``start`` is unknown, dropout is no ratio, region sets
            what follows from ``start``, or a step would sample from classes
            that see each other in self-attention.
    """

    class_axes = dict(TextRegionMatchingHead.class_axes, output=(0, ))

    def __init__(self, *args, region: Optional[dict] = None,
                 start: str = 'random', self_attention: int = 4,
                 dropout: float = 0., logit_scale: float = 10.,
                 scores: str = 'query', **kwargs):
        check_choice(STARTS, start=start)
        check_ratio(dropout=dropout)
        for name in ('start', 'residual'):
            if name in (region or {}):
                raise ValueError(f'region.{name} follows from start of '
                                 'QueryDecoderHead: leave it out.')
        region = dict(region or {}, start=start, residual=start == 'text')
        super().__init__(*args, region=region, logit_scale=logit_scale,
                         scores=scores, **kwargs)
        self.start = start
        self.attention = None
        if self_attention and self.sampled_classes is not None:
            raise ValueError(
                'Self-attention among sampled categories is not that among '
                'all, which predicts: set self_attention=0, or '
                'sampled_classes=None.')
        if self_attention:
            self.attention = nn.MultiheadAttention(
                self.dim, self_attention, batch_first=True)
            nn.init.zeros_(self.attention.out_proj.weight)
        self.dropout = nn.Dropout(dropout)
        # An offset from the text with start='text', else the vector itself.
        self.output = nn.Parameter(torch.zeros(self.num_classes, self.dim))
        if start == 'random':
            nn.init.normal_(self.output, std=self.dim**-0.5)

    @property
    def is_open_vocabulary(self) -> bool:
        return self.start == 'text'

    @property
    def blocks(self) -> List[slice]:
        if self.attention is not None:
            return [slice(None)]
        return super().blocks

    def find_regions(self, joint: CLIPFeatures) -> RegionFeatures:
        """As of text-region matching, then self-attention and dropout."""
        found = super().find_regions(joint)
        query = found.query
        if self.attention is not None:
            # As in a decoder: queries say which category, features what is
            # there.
            named = query + self.region.queries(joint.zero_shot_text,
                                                joint.classes)
            query = query + self.attention(named, named, query,
                                           need_weights=False)[0]
        return found._replace(query=self.dropout(query))

    def level_logits(self, features: Tensor, joint: CLIPFeatures) -> Tensor:
        """Match ``(B, C, D)`` features with the output vectors: ``(B, C)``."""
        output = take(self.output, joint.classes)
        if self.start == 'text':
            output = output + joint.zero_shot_text
        features = F.normalize(features, dim=-1)
        return self.scaled(self.logit_scale) * (features * output).sum(-1)

    def calibration_logits(self, joint: CLIPFeatures) -> Tensor:
        """Of the query level."""
        return self.in_blocks(lambda part: self.level_logits(
            self.find_regions(part).query, part), joint)
