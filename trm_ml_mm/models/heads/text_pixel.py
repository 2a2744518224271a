"""Baseline: text matched with every location (DualCoOp)."""
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_ml_mm.registry import MODELS

from ..backbones import CLIPFeatures
from ..region import as_locations, prompt_similarity
from .base import MatchingHead, full_precision


@MODELS.register_module()
class TextPixelHead(MatchingHead):
    """Match each category's text with every location (DualCoOp, arXiv
    2206.09541, written from the paper's description).

    The logit is the mean of the similarities of all locations, weighted by
    the softmax over locations of the similarity with the positive prompt.
    DualCoOp has a positive and a negative prompt per class (``prompt.pair``),
    whose similarities are subtracted, and the scale 20 for both.

    Args:
        logit_scale: Of the cosine similarities.
        attention_scale: Of those in the softmax; None: the same.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    def __init__(self, *args, logit_scale: float = 20.,
                 attention_scale: Optional[float] = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_scale = logit_scale
        self.attention_scale = (
            logit_scale if attention_scale is None else attention_scale)

    def raw_logits(self, joint: CLIPFeatures) -> Tensor:
        weights, similarity = self.weights_and_similarity(joint)
        return self.scaled(self.logit_scale) * (weights * similarity).sum(1)

    def saliency(self, feats: Tuple[Tensor]) -> Tensor:
        """Weight of each location in a category's logit, ``(B, C, L)``."""
        joint = self.joint_features(feats)
        with full_precision(joint.dense):
            return self.weights_and_similarity(joint)[0].transpose(1, 2)

    def weights_and_similarity(self, joint: CLIPFeatures
                               ) -> Tuple[Tensor, Tensor]:
        """Of every location and category, ``(B, L, C)`` each."""
        locations = F.normalize(as_locations(joint.dense).float(), dim=-1)
        positive, similarity = prompt_similarity(locations, joint.text)
        weights = torch.softmax(
            self.scaled(self.attention_scale) * positive, 1)
        return weights, similarity
