"""Multimodal category prototypes, and the pseudo-labels they give.

The paper keeps visual and text prototypes in memory and estimates unknown
labels from their intra- and inter-class relations, within and across the two
modalities. How evidence is measured and where it is cut is ours
(docs/method.md).
"""
from typing import NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from trm_ml_mm.registry import MODELS

from .counts import count_labels, negatives_are_labelled


def prototype_evidence(features: Tensor,
                       prototypes: Tensor,
                       inter_class: float = 0.5) -> Tensor:
    """How much more a category's feature is like its own prototype than like
    the others'.

    ``cos(f_c, P_c) - inter_class * max_{k != c} cos(f_c, P_k)``: the first
    term is the intra-class relation, the second the inter-class one.

    Args:
        features: ``(B, C, D)``, one feature per category.
        prototypes: ``(C, D)``; an empty (zero) one counts as dissimilar to
            everything.
        inter_class: Weight of the inter-class relation.

    Returns:
        ``(B, C)`` fp32; larger means "present" is likelier.
    """
    features = F.normalize(features.float(), dim=-1)
    prototypes = F.normalize(prototypes.float(), dim=-1)
    cosines = features @ prototypes.T  # B C C
    own = torch.diagonal(cosines, dim1=-2, dim2=-1)
    itself = torch.eye(len(prototypes), dtype=torch.bool,
                       device=cosines.device)
    others = cosines.masked_fill(itself, -1.).amax(-1)
    return own - inter_class * others


class Thresholds(NamedTuple):
    """Evidence at or above ``upper`` is positive, at or below ``lower``
    negative, between them unknown. NaN: never."""

    lower: Tensor  # (C,)
    upper: Tensor  # scalar


def evidence_thresholds(unknown: Tensor, positive: Tensor, prior: Tensor,
                        positive_share: float,
                        negative_share: float) -> Thresholds:
    """Cut recent evidence where known positives and the prior say.

    Positives: the evidence that ``positive_share`` of the known positives
    reach, over all classes together, so that easy classes give more than hard
    ones. Where labels are missing at random, about that share of the unknown
    positives reaches it too; no prior is needed, which single positive labels
    do not give.

    Negatives, of which there are many: of the unknown labels of class c a part
    ``1 - prior[c]`` is expected to be negative, and of those the
    ``negative_share`` with the least evidence are.

    Args:
        unknown: ``(K, C)`` evidence of unknown labels, NaN elsewhere.
        positive: ``(K, C)`` evidence of known positives, NaN elsewhere.
        prior: ``(C,)`` expected share of positives.
        positive_share, negative_share: In [0, 1].
    """
    return Thresholds(
        lower=_kth(unknown, (1 - prior) * negative_share),
        # Negated, the largest come first.
        upper=-_kth(-positive.flatten()[:, None], positive_share)[0])


def _kth(values: Tensor, share) -> Tensor:
    """In every column of ``(K, N)`` the value up to which a share lies,
    ``(N,)``; NaN where that is less than one. NaNs do not count. The host
    reads no value."""
    ordered = values.sort(0).values  # NaNs go to the end
    rank = (values.isfinite().sum(0) * share).floor().long()
    found = ordered.gather(0, (rank - 1).clamp(min=0)[None])[0]
    return torch.where(rank > 0, found, float('nan'))


@MODELS.register_module()
class MultimodalPrototypes(BaseModule):
    """Memory of category prototypes; estimates unknown labels.

    Visual prototypes are running means of the normalised query-level features
    of known positives. Text prototypes are the current text features. For
    every unknown label, evidence from both levels and both modalities is
    averaged and added to the matching logit, and the sum cut by
    :func:`evidence_thresholds`. All ranks' samples enter the memory, so that
    every rank holds the same one and a pseudo-label does not depend on the
    rank that makes it.

    Args:
        num_classes: C.
        dim: D.
        momentum: Of the visual prototypes, per batch in which the class has a
            known positive.
        modalities: Evidence from 'visual' prototypes, 'text' ones, or both.
        levels: Evidence of 'query'-level features, 'region'-level, or both.
        inter_class: See :func:`prototype_evidence`.
        gain: Weight of the prototypes' evidence beside the matching logit;
            0: the logit alone decides.
        positive_share, negative_share: See :func:`evidence_thresholds`.
        history: K, how many recent images the thresholds are taken from.
        warmup_images: No pseudo-label until so many images were seen. None: as
            many as the training set has, which PartialLabelHook fills in.

    Raises:
        ValueError: If a modality or level is unknown, or a share is not in
            [0, 1].
    """

    def __init__(self,
                 num_classes: int,
                 dim: int,
                 momentum: float = 0.99,
                 modalities: Sequence[str] = ('visual', 'text'),
                 levels: Sequence[str] = ('query', 'region'),
                 inter_class: float = 0.5,
                 gain: float = 10.,
                 positive_share: float = 0.65,
                 negative_share: float = 0.75,
                 history: int = 1024,
                 warmup_images: Optional[int] = None):
        super().__init__()
        if set(modalities) - {'visual', 'text'} or not modalities:
            raise ValueError("modalities are 'visual', 'text' or both, got "
                             f'{list(modalities)}.')
        if set(levels) - {'query', 'region'} or not levels:
            raise ValueError("levels are 'query', 'region' or both, got "
                             f'{list(levels)}.')
        for share in (positive_share, negative_share):
            if not 0 <= share <= 1:
                raise ValueError('positive_share and negative_share lie in '
                                 f'[0, 1], got {share}.')
        self.momentum = momentum
        self.modalities = tuple(modalities)
        self.levels = tuple(levels)
        self.inter_class = inter_class
        self.gain = gain
        self.positive_share = positive_share
        self.negative_share = negative_share
        self.warmup_images = warmup_images
        self.register_buffer('visual', torch.zeros(num_classes, dim))
        self.register_buffer('seen', torch.zeros(2, num_classes))  # neg, pos
        self.register_buffer('images', torch.zeros(()))
        # Evidence of recent images, and their labels.
        self.register_buffer(
            'history', torch.full((2, history, num_classes), float('nan')))

    def prior(self) -> Tensor:
        """Estimated share of positives of each class, ``(C,)``.

        Known positives over known labels. A class whose negatives are not
        labelled (single positive labels) takes known positives over images
        instead, a lower bound.
        """
        negatives, positives = self.seen
        known = torch.where(negatives_are_labelled(negatives, positives),
                            negatives + positives, self.images)
        return positives / known.clamp(min=1)

    def evidence(self, query: Tensor, region: Tensor, text: Tensor,
                 logits: Tensor) -> Tensor:
        """The matching logit, and the mean evidence of prototypes over the
        chosen levels and modalities: ``(B, C)``.

        Args:
            query, region: ``(B, C, D)`` features.
            text: ``(C, D)`` text prototypes.
            logits: ``(B, C)``.
        """
        features = dict(query=query, region=region)
        prototypes = dict(visual=self.visual, text=text)
        parts = [
            prototype_evidence(features[level], prototypes[modality],
                               self.inter_class) for level in self.levels
            for modality in self.modalities
        ]
        return logits + self.gain * torch.stack(parts).mean(0)

    @torch.no_grad()
    def forward(self, query: Tensor, region: Tensor, text: Tensor,
                logits: Tensor, targets: Tensor) -> Tensor:
        """Estimate the unknown labels of a training batch, and learn from its
        known ones.

        Args:
            query, region: ``(B, C, D)`` features.
            text: ``(C, D)`` text prototypes.
            logits: ``(B, C)`` matching logits.
            targets: ``(B, C)`` in {1, 0, -1}.

        Returns:
            ``(B, C)`` in {1, 0, -1}: pseudo-labels of unknown labels; -1 where
            the evidence is not sure, before the warm-up is over, and for
            every known label.
        """
        if self.warmup_images is None:
            raise ValueError(
                'warmup_images of the prototypes is open: give a number of '
                'images, or put PartialLabelHook into custom_hooks.')
        self._remember(query, targets)
        evidence = self.evidence(query, region, text, logits)
        self._push(torch.stack([evidence, targets]))
        recent, labels = self.history
        nan = float('nan')
        lower, upper = evidence_thresholds(
            torch.where(labels == -1, recent, nan),
            torch.where(labels == 1, recent, nan), self.prior(),
            self.positive_share, self.negative_share)
        ready = (targets == -1) & (self.images > self.warmup_images)
        pseudo = torch.full_like(targets, -1)
        pseudo[ready & (evidence >= upper)] = 1
        # Where the cuts of a hard class cross, absent is the likelier.
        pseudo[ready & (evidence <= lower)] = 0
        return pseudo

    def _remember(self, query: Tensor, targets: Tensor) -> None:
        """Running means of known positives, over all ranks' batches."""
        positive = (targets == 1).float()
        sums = torch.einsum('bc,bcd->cd', positive,
                            F.normalize(query.float(), dim=-1))
        counts = count_labels(targets)
        images = torch.tensor(float(len(targets)), device=sums.device)
        for value in (sums, images):
            all_reduce(value)
        self.seen += counts
        self.images += images
        present = counts[1] > 0
        mean = sums / counts[1].clamp(min=1)[:, None]
        empty = self.visual.abs().sum(1) == 0
        momentum = torch.where(empty, 0., self.momentum)[:, None]
        updated = momentum * self.visual + (1 - momentum) * mean
        self.visual.copy_(torch.where(present[:, None], updated, self.visual))

    def _push(self, rows: Tensor) -> None:
        """First in, first out, ``(2, B, C)`` of all ranks in their order."""
        if get_world_size() > 1:
            rows = torch.cat(all_gather(rows), 1)
        kept = self.history.shape[1]
        self.history.copy_(torch.cat([self.history, rows], 1)[:, -kept:])
