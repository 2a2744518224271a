"""Baseline: category queries with free output vectors (Query2Label)."""
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_choice

from ..backbones import CLIPFeatures
from ..region import STARTS, CategoryRegions
from .base import MatchingHead


@MODELS.register_module()
class QueryDecoderHead(MatchingHead):
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
        logit_scale: See above.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.

    Raises:
        ValueError: If ``start`` is unknown, or region sets what follows from
            it.
    """

    def __init__(self, *args, region: Optional[dict] = None,
                 start: str = 'random', self_attention: int = 4,
                 logit_scale: float = 10., **kwargs):
        super().__init__(*args, **kwargs)
        check_choice(STARTS, start=start)
        for name in ('start', 'residual'):
            if name in (region or {}):
                raise ValueError(f'region.{name} follows from start of '
                                 'QueryDecoderHead: leave it out.')
        region = dict(region or {}, start=start, residual=start == 'text')
        self.region = CategoryRegions(self.num_classes, self.dim, **region)
        self.start = start
        self.logit_scale = logit_scale
        self.attention = None
        if self_attention:
            self.attention = nn.MultiheadAttention(
                self.dim, self_attention, batch_first=True)
            nn.init.zeros_(self.attention.out_proj.weight)
        # An offset from the text with start='text', else the vector itself.
        self.output = nn.Parameter(torch.zeros(self.num_classes, self.dim))
        if start == 'random':
            nn.init.normal_(self.output, std=self.dim**-0.5)

    def raw_logits(self, joint: CLIPFeatures) -> Tensor:
        query = self.region(joint.dense, joint.zero_shot_text,
                            self.alignment.unit).query
        if self.attention is not None:
            # As in a decoder: queries say which category, features what is
            # there.
            named = query + self.region.queries(joint.zero_shot_text)
            query = query + self.attention(named, named, query,
                                           need_weights=False)[0]
        query = F.normalize(query, dim=-1)
        output = self.output
        if self.start == 'text':
            output = output + joint.zero_shot_text
        return self.scaled(self.logit_scale) * (query * output).sum(-1)
