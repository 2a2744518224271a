"""Multimodal category prototypes, and the pseudo-labels they give.

The paper keeps visual and text prototypes in memory. It estimates unknown
labels from their intra- and inter-class relations, within and across the two
modalities. How the relations become a score, and where the score is cut, is
ours (docs/method.md).
"""
from typing import NamedTuple, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, all_reduce, get_world_size
from mmengine.model import BaseModule
from torch import Tensor

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import (
    check_not_negative,
    check_positive,
    check_ratio,
)

from .class_blocks import similarity_blocks, spread, take

MODALITIES = ('visual', 'text')
LEVELS = ('query', 'region')
HISTORY = (256, 4096)  # fewest and most images that thresholds are taken from
HISTORY_SCORES = 4_000_000  # at most, if that is more than the fewest images


def prototype_score(features: Tensor,
                    prototypes: Tensor,
                    inter_class: float = 0.5) -> Tensor:
    """How much more a category's feature resembles its own prototype than the
    other prototypes.

    ``cos(f_c, P_c) - inter_class * max_{k != c} cos(f_c, P_k)``: the intra-
    class relation minus the weighted inter-class relation. Many prototypes
    are compared in blocks.

    Args:
        features: ``(B, C, D)``, one feature per category.
        prototypes: ``(C, D)``. An empty (zero) prototype resembles nothing.
        inter_class: Weight of the inter-class relation.

    Returns:
        ``(B, C)`` fp32; the larger, the more likely the label is present.
    """
    features = F.normalize(features.float(), dim=-1)
    prototypes = F.normalize(prototypes.float(), dim=-1)
    own, others = [], features.new_full(features.shape[:2], -1.)
    for block in similarity_blocks(len(prototypes), others.numel()):
        cosines = features @ prototypes[block].T  # B C k
        itself = torch.diagonal(cosines[:, block], dim1=-2, dim2=-1)  # B k
        own.append(itself.clone())
        itself.fill_(-1.)
        others = torch.maximum(others, cosines.amax(-1))
    return torch.cat(own, 1) - inter_class * others


class Thresholds(NamedTuple):
    """A score of at least ``upper`` is positive, of at most ``lower``
    negative; between them the label stays unknown. NaN: never."""

    lower: Tensor  # (C,)
    upper: Tensor  # (C,)


def pseudo_label_thresholds(scores: Tensor, labels: Tensor, prior: Tensor,
                            positive_ratio: float, negative_ratio: float,
                            min_precision: float = 0.,
                            class_ratio: float = 0.,
                            classes: Optional[Tensor] = None) -> Thresholds:
    """Choose thresholds from the scores of recent images.

    Positives: the score that ``positive_ratio`` of the known positives reach,
    over all classes together. So easy classes get more pseudo-labels than hard
    ones, and no prior is needed, which single positive labels could not give.
    If labels are missing at random, about the same ratio of the unknown
    positives reaches the threshold. It is higher if fewer than
    ``min_precision`` of the known labels that reach it are positive: a weak
    start makes fewer pseudo-labels. Where no negative is known, nobody can
    tell, and the ratio alone decides.

    For a class that few labels reach, it is lower: of the positives that the
    prior expects, the ``class_ratio`` with the highest scores become positive.
    Otherwise a hard class without a known positive would learn from negatives
    alone, which lowers its scores further.

    Negatives, of which there are many: a ratio of ``1 - prior[c]`` of the
    unknown labels of class c is expected to be negative. Of these, the
    ``negative_ratio`` with the lowest scores become negative.

    Args:
        scores: ``(K, C)``, NaN where there is none.
        labels: ``(K, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        prior: ``(C,)`` expected ratio of positives.
        positive_ratio: In [0, 1].
        negative_ratio: In [0, 1].
        min_precision: In [0, 1].
        class_ratio: In [0, 1].
        classes: ``(K,)`` of which thresholds are asked for; None: all.
    """
    common = _positive_threshold(scores.flatten(), labels.flatten(),
                                 positive_ratio, min_precision)
    scores, labels = (take(x, classes, 1) for x in (scores, labels))
    prior = take(prior, classes)
    unknown = torch.where(labels == UNKNOWN, scores, float('nan'))
    ordered = unknown.sort(0).values  # NaNs go to the end
    count = unknown.isfinite().sum(0)
    negatives = (count * ((1 - prior) * negative_ratio)).floor().long()
    positives = (count * (prior * class_ratio)).floor().long()
    return Thresholds(
        lower=_entries(ordered, negatives - 1, negatives > 0),
        upper=torch.fmin(common, _entries(ordered, count - positives,
                                          positives > 0)))


def _positive_threshold(scores: Tensor, labels: Tensor, ratio: float,
                        min_precision: float) -> Tensor:
    """The lowest score of a known positive that at most this ratio of the
    known positives reach, with this precision; NaN: none."""
    known = (labels != UNKNOWN) & scores.isfinite()
    ordered, order = torch.where(known, scores, -float('inf')).sort(
        descending=True)  # what is not known goes to the end
    positive = known[order] & (labels[order] == PRESENT)
    found = positive.cumsum(0)
    reached = torch.arange(1, len(found) + 1, device=scores.device)
    good = positive & (found <= (found[-1] * ratio).floor()) & (
        found >= min_precision * reached)
    lowest = torch.where(good, ordered, float('inf')).amin()
    return torch.where(lowest.isfinite(), lowest, float('nan'))


def _entries(ordered: Tensor, index: Tensor, exists: Tensor) -> Tensor:
    """Of each column of ``(K, C)`` the entry at its own index, ``(C,)``; NaN
    where none exists. No device synchronisation."""
    found = ordered.gather(0, index.clamp(0, len(ordered) - 1)[None])[0]
    return torch.where(exists, found, float('nan'))


@MODELS.register_module()
class MultimodalPrototypes(BaseModule):
    """Memory of category prototypes that estimates unknown labels.

    A visual prototype is the mean of the normalised query-level features of
    about the last ``memory`` known positives; for a class that had none yet,
    its text feature. A text prototype is the current text feature. The score
    of an unknown label is the matching logit plus ``scale`` times the mean of
    :func:`prototype_score` over both levels and both modalities;
    :func:`pseudo_label_thresholds` cuts it. Samples of all ranks enter the
    memory, so every rank holds the same one, and a pseudo-label does not
    depend on the rank that makes it.

    Args:
        num_classes: C.
        dim: D.
        memory: Positives that a visual prototype remembers. It is the mean of
            all so far until there are more; then older ones fade.
        modalities: Prototypes to compare with: 'visual', 'text', or both.
        levels: Features to compare: 'query', 'region', or both.
        inter_class: See :func:`prototype_score`.
        scale: Weight of the prototypes in the score, next to the matching
            logit. 0: the logit alone decides.
        positive_ratio: See :func:`pseudo_label_thresholds`.
        negative_ratio: See :func:`pseudo_label_thresholds`.
        min_precision: See :func:`pseudo_label_thresholds`.
        class_ratio: See :func:`pseudo_label_thresholds`.
        history: How many recent images the thresholds are taken from, as a
            ratio of the training set; at least 256, at most 4,096 images.
            Not more than 4 million scores, such as 416 images of 9,605
            classes.
        warmup_images: No pseudo-label before this many images were seen. None:
            the size of the training set.

    Raises:
        ValueError: If a modality or level is unknown, a ratio is not in
            [0, 1], or another number is out of its range.
    """

    class_axes = dict(visual=(0, ), visual_count=(0, ), history=(2, ))
    restarts = ('history', )

    def __init__(self,
                 num_classes: int,
                 dim: int,
                 memory: int = 1000,
                 modalities: Sequence[str] = MODALITIES,
                 levels: Sequence[str] = LEVELS,
                 inter_class: float = 0.5,
                 scale: float = 10.,
                 positive_ratio: float = 0.8,
                 negative_ratio: float = 0.75,
                 min_precision: float = 0.8,
                 class_ratio: float = 0.4,
                 history: float = 0.25,
                 warmup_images: Optional[int] = None):
        super().__init__()
        for name, chosen, choices in (('modalities', modalities, MODALITIES),
                                      ('levels', levels, LEVELS)):
            if set(chosen) - set(choices) or not chosen:
                words = ', '.join(map(repr, choices))
                raise ValueError(f'{name} must be {words} or both, got '
                                 f'{list(chosen)}.')
        check_ratio(positive_ratio=positive_ratio,
                    negative_ratio=negative_ratio,
                    min_precision=min_precision, class_ratio=class_ratio,
                    history=history)
        check_not_negative(scale=scale)
        check_positive(memory=memory)
        self.memory = memory
        self.modalities = tuple(modalities)
        self.levels = tuple(levels)
        self.inter_class = inter_class
        self.scale = scale
        self.positive_ratio = positive_ratio
        self.negative_ratio = negative_ratio
        self.min_precision = min_precision
        self.class_ratio = class_ratio
        self.history_ratio = history
        self.warmup_images = warmup_images
        self.batch_size = None
        self.register_buffer('visual', torch.zeros(num_classes, dim))
        self.register_buffer('visual_count', torch.zeros(num_classes))
        # Scores of recent images, and their labels. prepare() sets its length.
        self.register_buffer('history', torch.zeros(2, 0, num_classes))

    def prepare(self, training_images: int,
                batch_size: Optional[int] = None) -> None:
        """Fit warm-up and history to the size of the training set.
        PartialLabelHook calls it before training.

        What was loaded from a checkpoint stays.

        Args:
            training_images: On all ranks together.
            batch_size: Largest number of images in a batch of one rank. None:
                every batch is as large on all ranks.
        """
        if batch_size is not None:
            self.batch_size = batch_size
        if self.warmup_images is None:
            self.warmup_images = training_images
        if not self.history.shape[1]:
            length = round(self.history_ratio * training_images)
            classes = self.history.shape[2]
            length = min(length, HISTORY_SCORES // classes)
            length = min(max(length, HISTORY[0]), HISTORY[1])
            self.history = self.history.new_full((2, length, classes),
                                                 float('nan'))

    def visual_prototypes(self, text: Tensor,
                          classes: Optional[Tensor] = None) -> Tensor:
        """``(C, D)``; of a class without a known positive so far, its text.

        Args:
            text: ``(C, D)``.
            classes: Whose text it is; None: of all.
        """
        count, visual = take(self.visual_count, classes), take(self.visual,
                                                               classes)
        return torch.where(count[:, None] > 0, visual, text)

    def scores(self, query: Tensor, region: Tensor, text: Tensor,
               logits: Tensor, unit: Union[float, Tensor] = 1.,
               classes: Optional[Tensor] = None) -> Tensor:
        """Pseudo-label scores, ``(B, C)``.

        Args:
            query: ``(B, C, D)`` query-level features.
            region: ``(B, C, D)`` region-level features.
            text: ``(C, D)`` text prototypes.
            logits: ``(B, C)`` matching logits.
            unit: Of the joint space; divides ``scale``.
            classes: Which classes all of it is of; None: all.
        """
        features = dict(query=query, region=region)
        prototypes = dict(visual=self.visual_prototypes(text, classes),
                          text=text)
        terms = [
            prototype_score(features[level], prototypes[modality],
                            self.inter_class) for level in self.levels
            for modality in self.modalities
        ]
        return logits + self.scale / unit * torch.stack(terms).mean(0)

    @torch.no_grad()
    def forward(self, query: Tensor, region: Tensor, text: Tensor,
                logits: Tensor, targets: Tensor, positives: Tensor,
                prior: Tensor, seen: Tensor,
                unit: Union[float, Tensor] = 1.,
                classes: Optional[Tensor] = None) -> Tensor:
        """Learn from the known labels of a training batch, then estimate the
        unknown ones.

        Args:
            query: ``(B, K, D)`` query-level features of the step's classes.
            region: ``(B, K, D)`` region-level features.
            text: ``(K, D)`` text prototypes.
            logits: ``(B, K)`` matching logits.
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
            positives: ``(C,)`` known positives of this step, all ranks.
            prior: ``(C,)`` expected ratio of positives.
            seen: Scalar, images of all steps so far, this one included.
            unit: Of the joint space.
            classes: ``(K,)`` the step's classes, those of its known labels
                among them; None: all.

        Returns:
            Pseudo-labels, ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}. UNKNOWN
            where the score is between the thresholds, during the warm-up, for
            every known label, and for a class that is not the step's.

        Raises:
            ValueError: If :meth:`prepare` was not called and
                ``warmup_images`` is None.
        """
        if self.warmup_images is None:
            raise ValueError(
                'The prototypes do not know the size of the training set: add '
                'PartialLabelHook to custom_hooks, or call '
                'head.prototypes.prepare(number of images) before training.')
        self.prepare(self.warmup_images)  # if nobody did
        own = take(targets, classes, 1)  # B K
        self._update_visual(query, own, positives, classes)
        scores = self.scores(query, region, text, logits, unit, classes)
        self._push(torch.stack([
            spread(scores, classes, len(positives), float('nan')), targets]))
        recent, labels = self.history
        lower, upper = pseudo_label_thresholds(
            recent, labels, prior, self.positive_ratio, self.negative_ratio,
            self.min_precision, self.class_ratio, classes)
        ready = (own == UNKNOWN) & (seen > self.warmup_images)
        pseudo = torch.full_like(own, UNKNOWN)
        pseudo[ready & (scores >= upper)] = PRESENT
        # If the thresholds cross, the label is negative.
        pseudo[ready & (scores <= lower)] = ABSENT
        return spread(pseudo, classes, len(positives), UNKNOWN)

    def _update_visual(self, query: Tensor, targets: Tensor,
                       positives: Tensor,
                       classes: Optional[Tensor] = None) -> None:
        """Update the means of known positives, over all ranks. A feature that
        is not finite would stay in them for good, so it counts as zero."""
        positive = (targets == PRESENT).float()
        features = F.normalize(query.float(), dim=-1)
        features = torch.where(features.isfinite(), features, 0.)
        sums = torch.einsum('bc,bcd->cd', positive, features)
        all_reduce(sums)
        self.visual_count += positives
        count, visual, positives = (
            take(x, classes)
            for x in (self.visual_count, self.visual, positives))
        weight = count.clamp(min=1, max=self.memory)[:, None]
        change = sums - positives[:, None] * visual
        visual = visual + change / torch.maximum(weight, positives[:, None])
        if classes is None:
            self.visual.copy_(visual)
        else:
            self.visual.index_copy_(0, classes, visual)

    def _push(self, rows: Tensor) -> None:
        """First in, first out: ``(2, B, C)`` of all ranks, in the order in
        which one rank would have them (samplers deal images out in turn)."""
        new = rows
        if get_world_size() > 1:
            if self.batch_size:  # of all ranks; a last batch may be smaller
                rows = F.pad(rows, (0, 0, 0, self.batch_size - rows.shape[1]),
                             value=float('nan'))
            new = torch.stack(all_gather(rows), 2).flatten(1, 2)
        recent = torch.cat([self.history, new], 1)
        # What only fills up a batch goes to the front, and so out.
        filler = new[1].isnan().all(-1)
        filler = F.pad(filler, (self.history.shape[1], 0))
        order = (~filler).to(torch.uint8).argsort(stable=True)
        self.history.copy_(recent[:, order[-self.history.shape[1]:]])

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'history')
        if saved is not None and saved.dim() == 3:
            length = saved.shape[1]  # of the set that it was trained on
            self.history = self.history.new_zeros(
                2, length, self.history.shape[2])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
