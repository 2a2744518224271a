"""Baseline: CLIP without any training."""
from typing import List, Optional

import torch
import torch.nn.functional as F
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_choice

from ..backbones import CLIPFeatures
from ..class_blocks import similarity_blocks
from ..region import as_locations
from .base import attach_predictions, has_text

LEVELS = ('global', 'dense')


def zero_shot_scores(feats: CLIPFeatures, level: str) -> Tensor:
    """Cosine similarities with "a photo of a {class}.", ``(B, C)`` fp32.

    Args:
        feats: Of :class:`~trm_ml_mm.models.backbones.CLIPPromptBackbone`.
        level: 'global': of the image embedding (needs ``pooled``); 'dense':
            the largest over all locations of the dense map.
    """
    if level == 'global':
        image = F.normalize(feats.pooled.float(), dim=-1)
        return image @ feats.zero_shot_text.T
    locations = F.normalize(as_locations(feats.dense).float(), dim=-1)
    text = feats.zero_shot_text
    return torch.cat([
        torch.einsum('bld,cd->bcl', locations, text[block]).amax(-1)
        for block in similarity_blocks(len(text), locations[..., 0].numel())
    ], 1)


@MODELS.register_module()
class ZeroShotHead(MultiLabelClsHead):
    """CLIP without any training (Radford et al., arXiv 2103.00020).

    Scores and logits are both the cosine similarities: they rank images, and
    have no threshold that means anything.

    Args:
        level: See :func:`zero_shot_scores`. 'global' needs ``pooled=True`` in
            the backbone.
        num_classes: C, for others to read.
        dim: Not used; accepted so that the head can replace any other.
        thr: As in MMPretrain's ``MultiLabelClsHead``.
        topk: As in MMPretrain's ``MultiLabelClsHead``.

    Raises:
        ValueError: If the level is unknown, or the head is trained.
    """

    is_open_vocabulary = True

    def __init__(self,
                 level: str = 'dense',
                 num_classes: Optional[int] = None,
                 dim: Optional[int] = None,
                 thr: Optional[float] = None,
                 topk: Optional[int] = None):
        super().__init__(thr=thr, topk=topk)
        check_choice(LEVELS, level=level)
        self.level = level
        self.num_classes = num_classes

    def forward(self, feats: CLIPFeatures) -> Tensor:
        """Cosine similarities, ``(B, C)``."""
        if not has_text(feats):
            raise ValueError('ZeroShotHead needs a CLIPPromptBackbone with '
                             'classes: other backbones have no text.')
        if self.level == 'global' and feats.pooled is None:
            raise ValueError("ZeroShotHead with level='global' uses the "
                             'embedding of the whole image: set pooled=True '
                             'in its CLIPPromptBackbone.')
        return zero_shot_scores(feats, self.level)

    def loss(self, feats, data_samples):
        raise ValueError('Zero-shot CLIP has nothing to train: evaluate it '
                         'with tools/test.py, without a checkpoint.')

    def _get_predictions(self, cls_score: Tensor,
                         data_samples: Optional[List[DataSample]]):
        return attach_predictions(data_samples, cls_score, cls_score,
                                  self.thr, self.topk)
