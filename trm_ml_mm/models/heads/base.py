"""What all heads share: where features, text and labels come from, how logits
are calibrated and supervised, and how scores leave."""
from contextlib import nullcontext
from typing import Dict, List, Optional, Tuple

import torch
from mmengine.dist import all_reduce
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN
from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_not_negative
from trm_ml_mm.utils.precision import as_double

from ..alignment import JointSpaceAlignment, centred
from ..backbones import CLIPFeatures
from ..class_blocks import Classes, take
from ..feature_maps import feature_places
from ..label_statistics import LabelCounts, LabelStatistics
from ..region import as_locations
from ..relations import CategoryRelations


class MatchingHead(MultiLabelClsHead):
    """Base class of TRM-ML's head and of the trained baselines.

    A subclass implements :meth:`raw_logits`, or ``forward`` and ``loss``.

    On :class:`~trm_ml_mm.models.backbones.CLIPPromptBackbone` the text
    features arrive with the image features. On any other backbone the head
    needs ``text`` (a prompted text encoder of its own) and ``in_channels`` (it
    projects the last feature map into the joint space).

    Args:
        num_classes: C; must agree with the class names.
            :class:`~trm_ml_mm.models.CLIPClassifier` fills it in.
        loss: Config of the loss over known labels.
        dim: Joint width D. Not needed with ``text``;
            :class:`~trm_ml_mm.models.CLIPClassifier` fills it in.
        text: Options of
            :class:`~trm_ml_mm.models.text.PromptedTextEncoder`, or, with
            ``type``, of another registered text encoder.
        in_channels: Channels of another backbone's last feature map; see
            :func:`~trm_ml_mm.models.feature_maps.feature_places` for the
            layouts.
        extra_tokens: Of another backbone that gives tokens: how many of them,
            the first ones, are no places (1 for most ViTs).
        assume_negative: Assume-negative weight (Cole et al., arXiv
            2106.09708): an unknown label without a pseudo-label counts as
            absent, if the negatives of its class are not labelled
            (``negatives_are_labelled`` of
            :class:`~trm_ml_mm.models.label_statistics.LabelCounts`), as with
            single positive labels or tags. 0: never.
        relations: Scale of
            :class:`~trm_ml_mm.models.relations.CategoryRelations`; 0: none.
        relation_rank: Its rank; None: full.
        initial_logit: Mean logit at the start; see :meth:`calibrate_bias`.
        thr: As in MMPretrain's ``MultiLabelClsHead``.
        topk: As in MMPretrain's ``MultiLabelClsHead``.

    Raises:
        ValueError: If ``num_classes`` disagrees with the names, a width is
            missing, or a weight is negative.
    """

    needs_map = True  # False: one vector per image is enough
    # Whether it recognises a class that it was not trained on by its words.
    is_open_vocabulary = True
    class_axes = dict(bias=(0, ))

    def __init__(self,
                 num_classes: int,
                 loss: dict,
                 dim: Optional[int] = None,
                 text: Optional[dict] = None,
                 in_channels: Optional[int] = None,
                 assume_negative: float = 0.,
                 relations: float = 0.,
                 initial_logit: float = -2.3,
                 thr: Optional[float] = None,
                 topk: Optional[int] = None,
                 init_cfg: Optional[dict] = None,
                 extra_tokens: Optional[int] = None,
                 relation_rank: Optional[int] = None):
        super().__init__(loss=MODELS.build(loss), thr=thr, topk=topk,
                         init_cfg=init_cfg)
        check_not_negative(assume_negative=assume_negative)
        self.num_classes = num_classes
        self.text = None
        if text is not None:
            self.text = MODELS.build(
                dict(dict(type='trm_ml_mm.PromptedTextEncoder'), **text))
            names = self.text.class_names
            if len(names) != num_classes:
                raise ValueError(
                    f'The head has num_classes={num_classes} and there are '
                    f'{len(names)} class names ({", ".join(names[:2])}, ...): '
                    'make them agree.')
            dim = self.text.embed_dim
        elif dim is None:
            raise ValueError(
                f'{type(self).__name__} needs dim, the joint width of its '
                'CLIPPromptBackbone (or build both with '
                'trm_ml_mm.CLIPClassifier, which fills it in); on another '
                'backbone it needs text.')
        self.dim = dim
        self.extra_tokens = extra_tokens
        self.projection = None
        if in_channels is not None:
            self.projection = nn.Linear(in_channels, dim)
        self.assume_negative = assume_negative
        self.initial_logit = initial_logit
        self.alignment = JointSpaceAlignment(dim)
        self.relations = CategoryRelations(num_classes, relations,
                                           relation_rank)
        self.label_statistics = LabelStatistics(num_classes)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer('common_bias', torch.zeros(()))
        self.register_buffer('calibrated', torch.zeros((), dtype=torch.bool))
        self._calibrated = False  # the buffer's value, without a device sync
        self._loaded = False  # whether a trained head's state was loaded

    def raw_logits(self, joint: CLIPFeatures) -> Tensor:
        """Logits before bias and relations, ``(B, C)``."""
        raise NotImplementedError

    def forward(self, feats: Tuple[Tensor]) -> Tensor:
        """Logits to predict from, ``(B, C)``."""
        joint = self.joint_features(feats)
        with full_precision(joint.dense):
            return self.relations(self.add_bias(self.raw_logits(joint)))

    def saliency(self, feats: Tuple[Tensor]) -> Tensor:
        """Where the head looks for each category: ``(B, C, L)``, which sums to
        1 over the locations.

        Raises:
            ValueError: If it looks at the whole image.
        """
        raise ValueError(f'{type(self).__name__} looks at the whole image: it '
                         'has no map of where a category is.')

    def joint_features(self, feats: Tuple[Tensor],
                       classes: Optional[Tensor] = None) -> CLIPFeatures:
        """Image and text features in the joint space.

        Args:
            feats: :class:`CLIPFeatures`, or the feature maps of another
                backbone, of which the last is used; the mean of its places
                stands for the image embedding.
            classes: Of which the text is asked for, ``(K,)`` on the CPU;
                None: of all.

        Raises:
            ValueError: If the features do not fit the head; says which option
                to change.
        """
        if has_text(feats):
            names, dim = feats.zero_shot_text.shape
            if names != self.num_classes:
                raise ValueError(
                    f'The head has num_classes={self.num_classes} and the '
                    f'backbone {names} class names: make them agree.')
            if dim != self.dim:
                raise ValueError(
                    f'The head has dim={self.dim} and the joint space of its '
                    f'backbone has {dim} dimensions: set dim to that, or '
                    'leave it out and use trm_ml_mm.CLIPClassifier.')
            return self.aligned(feats.select(classes))
        if self.text is None or self.projection is None:
            raise ValueError(
                f'{type(self).__name__} got features without text: use '
                'CLIPPromptBackbone with classes and without a neck, or give '
                'the head text and in_channels.')
        places = feature_places(feats, self.projection.in_features,
                                self.extra_tokens, not self.needs_map)
        dense = self.projection(places)
        zero_shot_text, mean = self.text.zero_shot_text(), self.text.text_mean()
        if mean is not None:  # images need none: their projection is learned
            zero_shot_text = centred(zero_shot_text, mean)
        return CLIPFeatures((dense, ), self.text, zero_shot_text, None,
                            dense.mean(1)).select(classes)

    def aligned(self, joint: CLIPFeatures) -> CLIPFeatures:
        """Centre images and zero-shot text, if the backbone asks for it.

        Raises:
            ValueError: If the checkpoint was trained otherwise.
        """
        aligns = joint.text_mean is not None
        if aligns != self.alignment.is_measured and (
                self._loaded or self.alignment.is_measured):
            raise ValueError(
                f'The head was trained with align={not aligns} in its '
                f'backbone, which now has align={aligns}: set '
                f'model.backbone.align={not aligns}.')
        if not aligns:
            return joint
        locations, pooled = self.alignment(as_locations(joint.dense),
                                           joint.pooled)
        return joint.replace(
            zero_shot_text=centred(joint.zero_shot_text, joint.text_mean),
            pooled=pooled, dense=locations)

    def scaled(self, scale: float):
        """A scale of cosines, adapted to the width of the joint space."""
        return scale / self.alignment.unit

    def loss(self, feats: Tuple[Tensor],
             data_samples: List[DataSample]) -> Dict[str, Tensor]:
        """Every loss term under its own name."""
        targets = targets_of(data_samples, self.num_classes)
        self.calibrate(feats)
        logits = self(feats)
        with full_precision(logits):
            self.label_statistics.update(targets)
            return self.supervision(logits, targets,
                                    self.label_statistics.counts)

    def supervision(self, logits: Tensor, targets: Tensor, labels: LabelCounts,
                    targets_with_pseudo: Optional[Tensor] = None,
                    among: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """The loss over known labels and, if switched on, over labels that
        are assumed negative.

        Args:
            logits: ``(B, C)``.
            targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
            labels: Label counts of the training set.
            targets_with_pseudo: The same with pseudo-labels filled in; None:
                there are none.
            among: ``(B, C)`` bool: the labels that the step looks at; None:
                all.
        """
        losses = dict(loss_cls=self.loss_module(logits, targets))
        if self.assume_negative:
            if targets_with_pseudo is None:
                targets_with_pseudo = targets
            assumed = (targets_with_pseudo == UNKNOWN) & (
                ~labels.negatives_are_labelled())
            if among is None:
                among = torch.ones_like(assumed)
            losses['loss_assumed'] = self.assume_negative * self.loss_module(
                logits, torch.where(assumed & among, float(ABSENT),
                                    float(UNKNOWN)), among)
        return losses

    def add_bias(self, logits: Tensor, classes: Classes = None) -> Tensor:
        """Add the bias of each class and the common bias."""
        return logits + take(self.bias, classes) + self.common_bias

    @torch.no_grad()
    def calibrate(self, feats: Tuple[Tensor]) -> None:
        """First training batches: measure the joint space, then the bias."""
        if (self.training and has_text(feats) and feats.text_mean is not None
                and self.alignment.is_measuring):
            with full_precision(feats.dense):
                self.alignment.measure(
                    as_locations(feats.dense), feats.pooled,
                    centred(feats.zero_shot_text, feats.text_mean))
        self.calibrate_bias(feats)

    @torch.no_grad()
    def calibrate_bias(self, feats: Tuple[Tensor]) -> None:
        """First training batch only: set the common bias so that the mean
        logit of all ranks' batches is ``initial_logit``. Needs no label.

        Does nothing in eval mode, or when a loaded checkpoint has the bias.
        """
        if not self.training or self._calibrated:
            return
        joint = self.joint_features(feats)
        with full_precision(joint.dense):
            logits = as_double(self.calibration_logits(joint))
        total = torch.stack([logits.sum(), torch.ones_like(logits).sum()])
        all_reduce(total)  # batches of ranks may differ in size
        self.common_bias.copy_(self.initial_logit - total[0] / total[1])
        self.calibrated.fill_(True)
        self._calibrated = True

    def calibration_logits(self, joint: CLIPFeatures) -> Tensor:
        """The logits whose mean :meth:`calibrate_bias` sets."""
        return self.raw_logits(joint)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'calibrated')
        if saved is not None:
            self._calibrated = self._loaded = bool(saved)
        if any(prefix + old in state_dict for old in ('seen',
                                                      'prototypes.seen')):
            raise ValueError(
                'The checkpoint was written by version 0.1.0 or earlier of '
                'trm_ml_mm, which kept label counts elsewhere: train again, '
                'or use it with that version.')
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _get_predictions(self, cls_score: Tensor,
                         data_samples: Optional[List[DataSample]]):
        logits = cls_score.float()
        return attach_predictions(data_samples, logits.sigmoid(), logits,
                                  self.thr, self.topk)


def has_maps(head) -> bool:
    """Whether a head says where it looks for a category
    (:meth:`MatchingHead.saliency`)."""
    own = getattr(type(head), 'saliency', None)
    return own is not None and own is not MatchingHead.saliency


def has_text(feats: Tuple[Tensor]) -> bool:
    """Whether features come from CLIP, with the text of the classes."""
    return isinstance(feats, CLIPFeatures) and feats.text_source is not None


def targets_of(data_samples: List[DataSample], num_classes: int) -> Tensor:
    """Labels of a batch, ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}: the field
    gt_score, or every class of gt_label present and every other absent."""
    rows = []
    for sample in data_samples:
        if 'gt_score' in sample:
            rows.append(sample.gt_score)
        else:
            row = sample.gt_label.new_zeros(num_classes).float()
            row[sample.gt_label] = PRESENT  # a repeated label counts once
            rows.append(row)
    return torch.stack(rows)


def full_precision(x: Tensor):
    """Switch autocast off. The head is small next to the tower: mixed
    precision would save little, and similarities need every digit. (Where it
    is off, nothing is done: exported programs have no such contexts.)"""
    if not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def attach_predictions(data_samples: Optional[List[DataSample]],
                       scores: Tensor, logits: Tensor, thr: Optional[float],
                       topk: Optional[int]) -> List[DataSample]:
    """Write predictions into data samples.

    As MMPretrain does, and the fp32 logits too: metrics rank by them, because
    sigmoids tie where they saturate. No device synchronisation per image.

    Args:
        data_samples: Of B images; None: new ones.
        scores: ``(B, C)`` sigmoids.
        logits: ``(B, C)`` what the scores come from.
        thr: Labels with at least this score are predicted; None: the ``topk``.
        topk: Number of predicted labels without ``thr``.
    """
    if thr is not None:
        chosen = scores >= thr
        labels = chosen.nonzero()[:, 1].split(chosen.sum(1).tolist())
    else:
        labels = scores.topk(topk).indices
    if data_samples is None:
        data_samples = [DataSample() for _ in range(len(scores))]
    for sample, score, logit, label in zip(data_samples, scores, logits,
                                           labels):
        sample.set_pred_score(score).set_pred_label(label)
        sample.set_field(logit, 'pred_logit', dtype=torch.Tensor)
    return data_samples
