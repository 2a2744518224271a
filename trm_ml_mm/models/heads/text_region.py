"""Text-region matching: the head of TRM-ML."""
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from mmengine.dist import all_reduce
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS

from ..region import CategoryRegions, RegionFeatures, matching_logits
from .base import MatchingHead


class MatchingOutput(NamedTuple):
    """Everything the head found in a batch."""

    query_logits: Tensor  # (B, C) query level: the student
    region_logits: Tensor  # (B, C) region level: the teacher
    features: RegionFeatures  # saliency (B, C, L), region and query (B, C, D)
    text: Tensor  # (P, C, D) text features they were matched with

    def scores(self, level: str) -> Tensor:
        """Logits of one level, or the mean of both."""
        if level == 'mean':
            return (self.query_logits + self.region_logits) / 2
        return getattr(self, f'{level}_logits')


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

    Args:
        num_classes, dim, text, in_channels, thr, topk: See
            :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
        loss: Loss over known labels, on query-level logits.
        region: Options of :class:`~trm_ml_mm.models.region.CategoryRegions`.
        region_loss: The same kind of loss on region-level logits.
        distillation: Config of ``RegionDistillationLoss``.
        prototypes: Options of ``MultimodalPrototypes``, with its ``type``.
        pseudo_weight: Weight of the loss over pseudo-labels; 0: none are
            used, though prototypes may serve the contrast.
        assume_negative: Weight of reading labels that are unknown, and got no
            pseudo-label, as absent ("assume negative", Cole et al., arXiv
            2106.09708): of a class without any known negative so far, as
            with single positive labels, or tags. The first known negative
            of a class ends it for that class. 0: never.
        contrast: Config of ``MultimodalContrastiveLoss``; needs prototypes.
        logit_scale: Of both levels' cosine similarities.
        initial_logit: The mean first logit; the common bias that gives it is
            measured on the first training batch, which needs no label.
        scores: What is predicted from: 'query', 'region' or 'mean'.

    Raises:
        ValueError: If contrast or pseudo-labels lack prototypes, or
            ``scores`` is unknown.
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
                 logit_scale: float = 10.,
                 initial_logit: float = -2.3,
                 scores: str = 'query',
                 thr: Optional[float] = None,
                 topk: Optional[int] = None,
                 init_cfg: Optional[dict] = None):
        super().__init__(num_classes, MODELS.build(loss), dim, text,
                         in_channels, thr, topk, init_cfg)
        if scores not in ('query', 'region', 'mean'):
            raise ValueError("scores is 'query', 'region' or 'mean', got "
                             f'{scores!r}.')
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
        self.assume_negative = assume_negative
        self.logit_scale = logit_scale
        self.initial_logit = initial_logit
        self.score_level = scores
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer('common_bias', torch.zeros(()))
        self.register_buffer('calibrated', torch.zeros((), dtype=torch.bool))
        self.register_buffer('negative_known',
                             torch.zeros(num_classes, dtype=torch.bool))
        self._calibrated = False  # the buffer's value, without a device sync

    def match(self, feats: Tuple[Tensor]) -> MatchingOutput:
        """Both levels' logits, with the features and maps behind them."""
        joint = self.joint_features(feats)
        # The head is small beside the tower: mixed precision would save
        # little, and similarities are wanted to the last digit.
        with torch.autocast(joint.dense.device.type, enabled=False):
            found = self.region(joint.dense, joint.anchor)
            if self.training and not self._calibrated:
                self._calibrate(found.region, joint.text)
            bias = self.bias + self.common_bias
            return MatchingOutput(
                matching_logits(found.query, joint.text, self.logit_scale,
                                bias),
                matching_logits(found.region, joint.text, self.logit_scale,
                                bias), found, joint.text)

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits that are predicted from, ``(B, C)``."""
        return self.match(feats).scores(self.score_level)

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
        losses = dict(
            loss_cls=self.loss_module(output.query_logits, targets))
        if self.region_loss is not None:
            losses['loss_region'] = self.region_loss(output.region_logits,
                                                     targets)
        if self.distillation is not None:
            losses['loss_distillation'] = self.distillation(
                output.query_logits, output.region_logits)
        settled = targets
        if self.prototypes is not None:
            text = output.text[0].detach()
            pseudo = self.prototypes(output.features.query.detach(),
                                     output.features.region.detach(), text,
                                     targets)
            if self.pseudo_weight:
                losses['loss_pseudo'] = self.pseudo_weight * self.loss_module(
                    output.query_logits, pseudo)
                settled = torch.where(targets == -1, pseudo, targets)
            if self.contrast is not None:
                losses['loss_contrast'] = self.contrast(
                    output.features.query, settled == 1,
                    self.prototypes.visual, text)
            unknown = (targets == -1).sum().clamp(min=1)
            losses['pseudo_positive'] = (pseudo == 1).sum() / unknown
            losses['pseudo_negative'] = (pseudo == 0).sum() / unknown
        if self.assume_negative:
            self._remember_negatives(targets)
            absent = torch.where((settled == -1) & ~self.negative_known, 0.,
                                 -1.)
            losses['loss_assumed'] = self.assume_negative * self.loss_module(
                output.query_logits, absent)
        return losses

    @torch.no_grad()
    def _calibrate(self, region: Tensor, text: Tensor) -> None:
        """Set the common bias from the first batch of all ranks."""
        logits = matching_logits(region, text, self.logit_scale, self.bias)
        mean = logits.mean()
        all_reduce(mean, 'mean')
        self.common_bias.copy_(self.initial_logit - mean)
        self.calibrated.fill_(True)
        self._calibrated = True

    @torch.no_grad()
    def _remember_negatives(self, targets: Tensor) -> None:
        """Which classes had a known negative so far, on any rank."""
        found = (targets == 0).any(0).float()
        all_reduce(found, 'max')
        self.negative_known |= found.bool()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'calibrated')
        if saved is not None:
            self._calibrated = bool(saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _build(config: Optional[dict], **options):
    if config is None:
        return None
    return MODELS.build(dict(config, **options))
