"""Text-region matching: the head of TRM-ML."""
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmpretrain.structures import DataSample
from torch import Tensor

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import (
    check_choice,
    check_not_negative,
    check_positive,
)

from ..backbones import CLIPFeatures
from ..class_blocks import Classes, class_blocks, spread, take
from ..class_sampling import sample_classes
from ..label_statistics import LabelCounts
from ..region import RegionFeatures, matching_logits
from .base import MatchingHead, full_precision, targets_of

LEVELS = ('query', 'region', 'mean')


class MatchingOutput(NamedTuple):
    """What the head found in a batch."""

    query_logits: Tensor  # (B, C) query level: the student
    region_logits: Tensor  # (B, C) region level: the teacher
    features: RegionFeatures  # saliency (B, C, L), region and query (B, C, D)
    text: Tensor  # (P, C, D) text features they were matched with
    classes: Classes = None  # which classes all of it is of; None: all

    def logits(self, level: str) -> Tensor:
        """Logits of one level, without category relations."""
        if level == 'mean':
            return (self.query_logits + self.region_logits) / 2
        return getattr(self, f'{level}_logits')


@MODELS.register_module()
class TextRegionMatchingHead(MatchingHead):
    """Match each category's text with that category's own region.

    Source: "Text-Region Matching for Multi-Label Image Recognition with
    Missing Labels", ACM MM 2024 (arXiv 2407.18520). docs/method.md says what
    the paper states and what is our reconstruction. ``None``, or a weight of
    0, switches a term off::

        loss = L_cls(known labels) + pseudo_weight * L_cls(pseudo-labels)
               + assume_negative * L_cls(labels assumed negative)
               + L_distillation + L_contrast

    Logits have three levels: 'query', 'region', and their 'mean'.

    With ``sampled_classes``, a training step works on some of the classes, K
    in place of C in all shapes; labels, and the losses over them, stay
    ``(B, C)``. Prediction is always of all classes.

    Options that are not listed here are those of
    :class:`~trm_ml_mm.models.heads.base.MatchingHead`.

    Args:
        loss: Loss over known labels, on logits of ``train_level``.
        region: Options of :class:`~trm_ml_mm.models.region.CategoryRegions`,
            or, with ``type``, another module that is called like it; with
            ``classes`` too, if they are sampled or more than one block.
        region_loss: The same kind of loss on region-level logits.
        distillation: Config of ``RegionDistillationLoss``.
        prototypes: Config of ``MultimodalPrototypes``.
        pseudo_weight: Weight of the loss over pseudo-labels. 0: no
            pseudo-labels; prototypes may still serve the contrast.
        contrast: Config of ``MultimodalContrastiveLoss``; needs prototypes.
        logit_scale: Of the cosine similarities of both levels.
        train_level: The level that labels supervise.
        scores: The level to predict from.
        sampled_classes: How many classes a training step works on; see
            :func:`~trm_ml_mm.models.class_sampling.sample_classes`. None: all.

    Raises:
        ValueError: If contrast or pseudo-labels lack prototypes, a level is
            unknown, or a weight is negative.
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
                 scores: str = 'query',
                 thr: Optional[float] = None,
                 topk: Optional[int] = None,
                 init_cfg: Optional[dict] = None,
                 extra_tokens: Optional[int] = None,
                 relation_rank: Optional[int] = None,
                 sampled_classes: Optional[int] = None):
        super().__init__(num_classes, loss, dim, text, in_channels,
                         assume_negative, relations, initial_logit, thr, topk,
                         init_cfg, extra_tokens, relation_rank)
        if sampled_classes is not None:
            check_positive(sampled_classes=sampled_classes)
        check_choice(LEVELS, train_level=train_level, scores=scores)
        check_not_negative(pseudo_weight=pseudo_weight,
                           logit_scale=logit_scale)
        if prototypes is None and (contrast is not None or pseudo_weight):
            raise ValueError('Pseudo-labels and contrast need prototypes: give '
                             'prototypes, or switch both off '
                             '(pseudo_weight=0, contrast=None).')
        self.region = MODELS.build(dict(
            dict(type='trm_ml_mm.CategoryRegions', num_classes=num_classes,
                 dim=self.dim), **(region or {})))
        self.region_loss = _build(region_loss)
        self.distillation = _build(distillation)
        self.prototypes = _build(
            prototypes, num_classes=num_classes, dim=self.dim)
        self.contrast = _build(contrast)
        self.pseudo_weight = pseudo_weight
        self.logit_scale = logit_scale
        self.train_level = train_level
        self.score_level = scores
        self.sampled_classes = sampled_classes

    @property
    def is_open_vocabulary(self) -> bool:
        # Random queries do not read the text.
        return getattr(self.region, 'start', None) == 'text'

    def match(self, feats: Tuple[Tensor],
              classes: Optional[Tensor] = None) -> MatchingOutput:
        """Logits of both levels, with the features and maps behind them.

        Args:
            feats: Of the backbone.
            classes: ``(K,)`` on the CPU: of these alone; None: of all.
        """
        joint = self.joint_features(feats, classes)
        with full_precision(joint.dense):
            return self.matched(joint)

    def matched(self, joint: CLIPFeatures) -> MatchingOutput:
        """The same of features in the joint space."""
        found = self.find_regions(joint)
        query, region = (
            self.add_bias(self.level_logits(level, joint), joint.classes)
            for level in (found.query, found.region))
        return MatchingOutput(query, region, found, joint.text, joint.classes)

    def saliency(self, feats: Tuple[Tensor]) -> Tensor:
        """Where each category's region is, ``(B, C, L)``."""
        joint = self.joint_features(feats)
        with full_precision(joint.dense):
            return self.in_blocks(
                lambda part: self.find_regions(part).saliency, joint)

    @property
    def blocks(self) -> List[slice]:
        """Classes that prediction works on at once. One block if they depend
        on each other before the relations."""
        return class_blocks(self.num_classes)

    def in_blocks(self, function: Callable[[CLIPFeatures], Tensor],
                  joint: CLIPFeatures) -> Tensor:
        """What a function gives for all classes, ``(B, C, ...)``."""
        blocks = self.blocks
        if len(blocks) == 1:
            return function(joint)
        return torch.cat([function(joint.select(block)) for block in blocks],
                         1)

    def find_regions(self, joint: CLIPFeatures) -> RegionFeatures:
        """Where each category looks, and what it finds there."""
        # A custom region module without ``classes`` serves one block.
        some = {} if joint.classes is None else dict(classes=joint.classes)
        return self.region(joint.dense, joint.zero_shot_text,
                           self.alignment.unit, **some)

    def level_logits(self, features: Tensor, joint: CLIPFeatures) -> Tensor:
        """Match ``(B, C, D)`` features with the text: ``(B, C)``."""
        return matching_logits(features, joint.text,
                               self.scaled(self.logit_scale))

    def calibration_logits(self, joint: CLIPFeatures) -> Tensor:
        """Of the region level, which is what CLIP knows at the start."""
        return self.in_blocks(lambda part: self.level_logits(
            self.find_regions(part).region, part), joint)

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits to predict from, ``(B, C)``."""
        joint = self.joint_features(feats)
        with full_precision(joint.dense):
            return self.relations(self.in_blocks(
                lambda part: self.matched(part).logits(self.score_level),
                joint))

    def logits(self, output: MatchingOutput, level: str) -> Tensor:
        """Logits of one level, with category relations: ``(B, C)``."""
        return self.relations(output.logits(level), output.classes)

    def loss(self, feats: Tuple[Tensor],
             data_samples: List[DataSample]) -> Dict[str, Tensor]:
        """Every loss term under its own name."""
        targets = targets_of(data_samples, self.num_classes)
        self.calibrate(feats)
        batch = self.label_statistics.update(targets)
        output = self.match(feats, sample_classes(
            self.sampled_classes, batch, self.label_statistics.seen))
        with full_precision(output.text):
            return self.losses(output, targets, batch)

    def losses(self, output: MatchingOutput, targets: Tensor,
               batch: Optional[LabelCounts] = None) -> Dict[str, Tensor]:
        """The terms of :meth:`loss`.

        Args:
            output: Of all classes, or of some that include those of all known
                labels.
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
            batch: Their counts, from ``label_statistics.update``; None: they
                are counted now.
        """
        if batch is None:
            batch = self.label_statistics.update(targets)
        classes = output.classes
        logits = self.of_all(self.logits(output, self.train_level), classes)
        losses, targets_with_pseudo = {}, targets
        if self.region_loss is not None:
            losses['loss_region'] = self.region_loss(
                self.of_all(output.region_logits, classes), targets)
        if self.prototypes is not None:
            text = output.text[0].detach()
            pseudo = self.pseudo_labels(output, targets, batch)
            if self.pseudo_weight:
                losses['loss_pseudo'] = self.pseudo_weight * self.loss_module(
                    logits, pseudo, targets != UNKNOWN)
                targets_with_pseudo = torch.where(targets == UNKNOWN, pseudo,
                                                  targets)
            if self.contrast is not None:
                losses['loss_contrast'] = self.contrast(
                    output.features.query,
                    take(targets_with_pseudo, classes, 1) == PRESENT,
                    self.prototypes.visual_prototypes(text, classes), text,
                    self.alignment.unit)
            unknown = (take(targets, classes, 1) == UNKNOWN).sum()
            unknown = unknown.clamp(min=1)
            losses['pseudo_positive'] = (pseudo == PRESENT).sum() / unknown
            losses['pseudo_negative'] = (pseudo == ABSENT).sum() / unknown
        if self.distillation is not None:
            losses['loss_distillation'] = self.distillation(
                output.query_logits, output.region_logits,
                take(targets_with_pseudo, classes, 1))
        among = self.of_all(torch.ones_like(output.query_logits), classes) > 0
        known = self.supervision(logits, targets, self.label_statistics.counts,
                                 targets_with_pseudo, among)
        return {**known, **losses}

    def of_all(self, values: Tensor, classes: Optional[Tensor]) -> Tensor:
        """``(B, K)`` of the step's classes -> ``(B, C)``, zero elsewhere."""
        return spread(values, classes, self.num_classes)

    def pseudo_labels(self, output: MatchingOutput, targets: Tensor,
                      batch: LabelCounts) -> Tensor:
        """Estimate the unknown labels of a training batch, ``(B, C)``; updates
        the prototypes. See ``MultimodalPrototypes.forward``."""
        return self.prototypes(
            output.features.query.detach(), output.features.region.detach(),
            output.text[0].detach(),
            self.logits(output, self.score_level).detach(), targets,
            batch.positives, self.label_statistics.counts.prior(),
            self.label_statistics.seen, self.alignment.unit, output.classes)


def _build(config: Optional[dict], **options):
    if config is None:
        return None
    return MODELS.build(dict(config, **options))
