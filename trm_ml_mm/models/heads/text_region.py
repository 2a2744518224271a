"""Text-region matching: the head of TRM-ML."""
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from trm_ml_mm.registry import MODELS

from ..region import CategoryRegions, RegionFeatures, matching_logits
from .base import MatchingHead


class MatchingOutput(NamedTuple):
    """Everything the head found in a batch."""

    query_logits: Tensor  # (B, C) query level: the student
    region_logits: Tensor  # (B, C) region level: the teacher
    features: RegionFeatures  # saliency (B, C, L), region and query (B, C, D)
    text: Tensor  # (P, C, D) text features they were matched with


@MODELS.register_module()
class TextRegionMatchingHead(MatchingHead):
    """Match each category's text with that category's own region.

    Source: "Text-Region Matching for Multi-Label Image Recognition with
    Missing Labels", ACM MM 2024 (arXiv 2407.18520); docs/method.md says what
    is the paper's and what is our reconstruction. Every term but the first
    is switched off by ``None``, or its weight by 0::

        loss = L_cls(known) + pseudo_weight * L_cls(pseudo-labels)
               + assume_negative * L_cls(the rest, read as absent)
               + L_distillation + L_contrast

    Levels of logits: 'query', 'region', or their 'mean'.

    Args:
        num_classes, dim, text, in_channels, assume_negative, relations,
            initial_logit, thr, topk: See
            :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
        loss: Loss over known labels, on logits of ``train_level``.
        region: Options of :class:`~trm_ml_mm.models.region.CategoryRegions`.
        region_loss: The same kind of loss on region-level logits.
        distillation: Config of ``RegionDistillationLoss``.
        prototypes: Options of ``MultimodalPrototypes``, with its ``type``.
        pseudo_weight: Weight of the loss over pseudo-labels; 0: none are
            used, though prototypes may serve the contrast.
        contrast: Config of ``MultimodalContrastiveLoss``; needs prototypes.
        logit_scale: Of both levels' cosine similarities.
        train_level: The level that labels supervise.
        scores: The level that is predicted from.

    Raises:
        ValueError: If contrast or pseudo-labels lack prototypes, or a level
            is unknown.
    """

    def __init__(self,
                 num_classes: int,
                 loss: dict,
                 dim: Optional[int] = None,
                 text: Optional[dict] = None,
                 in_channels: Optional[int] = None,
                 region: Optional[dict] = None,
                 region_loss: Optional[dict] = None,
                 distillation: Optional[dict] = None,
                 prototypes: Optional[dict] = None,
                 pseudo_weight: float = 0.,
                 assume_negative: float = 0.,
                 contrast: Optional[dict] = None,
                 relations: float = 0.,
                 logit_scale: float = 10.,
                 initial_logit: float = -2.3,
                 train_level: str = 'query',
                 scores: str = 'mean',
                 thr: Optional[float] = None,
                 topk: Optional[int] = None,
                 init_cfg: Optional[dict] = None):
        super().__init__(num_classes, loss, dim, text, in_channels,
                         assume_negative, relations, initial_logit, thr, topk,
                         init_cfg)
        for level in (train_level, scores):
            if level not in ('query', 'region', 'mean'):
                raise ValueError("train_level and scores are 'query', "
                                 f"'region' or 'mean', got {level!r}.")
        if prototypes is None and (contrast is not None or pseudo_weight):
            raise ValueError('Pseudo-labels and contrast are made from '
                             'prototypes: give prototypes, or switch both '
                             'off (pseudo_weight=0, contrast=None).')
        self.region = CategoryRegions(num_classes, self.dim, **(region or {}))
        self.region_loss = _build(region_loss)
        self.distillation = _build(distillation)
        self.prototypes = _build(
            prototypes, num_classes=num_classes, dim=self.dim)
        self.contrast = _build(contrast)
        self.pseudo_weight = pseudo_weight
        self.logit_scale = logit_scale
        self.train_level = train_level
        self.score_level = scores
        self.pseudo_labels = None  # of the latest training batch, (B, C)

    def match(self, feats: Tuple[Tensor]) -> MatchingOutput:
        """Both levels' logits, with the features and maps behind them."""
        joint = self.joint_features(feats)
        # The head is small beside the tower: mixed precision would save
        # little, and similarities are wanted to the last digit.
        with torch.autocast(joint.dense.device.type, enabled=False):
            found = self.region(joint.dense, joint.anchor)
            region = matching_logits(found.region, joint.text,
                                     self.logit_scale)
            query = matching_logits(found.query, joint.text, self.logit_scale)
            self.calibrate(region)
            return MatchingOutput(self.biased(query), self.biased(region),
                                  found, joint.text)

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits that are predicted from, ``(B, C)``."""
        output = self.match(feats)
        with torch.autocast(feats[-1].device.type, enabled=False):
            return self.logits(output, self.score_level)

    def logits(self, output: MatchingOutput, level: str) -> Tensor:
        """Logits of one level, with relations: ``(B, C)``."""
        if level == 'mean':
            logits = (output.query_logits + output.region_logits) / 2
        else:
            logits = getattr(output, f'{level}_logits')
        return self.relations(logits)

    def loss(self, feats: Tuple[Tensor],
             data_samples: List[DataSample]) -> Dict[str, Tensor]:
        """Every term of the loss under its own name."""
        targets = self.targets(data_samples)
        output = self.match(feats)
        with torch.autocast(targets.device.type, enabled=False):
            return self.losses(output, targets)

    def losses(self, output: MatchingOutput,
               targets: Tensor) -> Dict[str, Tensor]:
        """The terms for labels ``(B, C)`` in {1, 0, -1}; see :meth:`loss`."""
        logits = self.logits(output, self.train_level)
        losses, settled = {}, targets
        if self.region_loss is not None:
            losses['loss_region'] = self.region_loss(output.region_logits,
                                                     targets)
        if self.prototypes is not None:
            text = output.text[0].detach()
            pseudo = self.pseudo_labels = self.prototypes(
                output.features.query.detach(),
                output.features.region.detach(), text,
                self.logits(output, self.score_level).detach(), targets)
            if self.pseudo_weight:
                losses['loss_pseudo'] = self.pseudo_weight * self.loss_module(
                    logits, pseudo, targets != -1)
                settled = torch.where(targets == -1, pseudo, targets)
            if self.contrast is not None:
                losses['loss_contrast'] = self.contrast(
                    output.features.query, settled == 1,
                    self.prototypes.visual, text)
            unknown = (targets == -1).sum().clamp(min=1)
            losses['pseudo_positive'] = (pseudo == 1).sum() / unknown
            losses['pseudo_negative'] = (pseudo == 0).sum() / unknown
        if self.distillation is not None:
            losses['loss_distillation'] = self.distillation(
                output.query_logits, output.region_logits, settled)
        return {**self.supervision(logits, targets, settled), **losses}


def _build(config: Optional[dict], **options):
    if config is None:
        return None
    return MODELS.build(dict(config, **options))
