"""What all heads have in common: where features, text and labels come from,
how logits are calibrated and supervised, and how scores go out."""
from typing import Dict, List, Optional, Tuple

import torch
from mmengine.dist import all_reduce
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS

from ..backbones import CLIPFeatures
from ..counts import count_labels, negatives_are_labelled
from ..region import as_places
from ..relations import CategoryRelations
from ..text import PromptedTextEncoder


class MatchingHead(MultiLabelClsHead):
    """Base of the heads that match image features with text, and of the rivals
    they are compared with: a subclass gives ``forward``.

    On :class:`~trm_ml_mm.models.backbones.CLIPPromptBackbone` text travels in
    the features. On any other backbone the head needs ``text`` (a prompted
    text encoder of its own) and ``in_channels`` (it projects the last feature
    map into the joint space).

    Args:
        num_classes: C; must agree with the class names.
        loss: Config of the loss over known labels.
        dim: Joint width D; needed where ``text`` is not given.
        text: Options of
            :class:`~trm_ml_mm.models.text.PromptedTextEncoder`.
        in_channels: Channels of another backbone's last feature map.
        assume_negative: Weight of reading labels that are unknown, and got no
            pseudo-label, as absent ("assume negative", Cole et al., arXiv
            2106.09708), in a class whose negatives are not labelled
            (:func:`~trm_ml_mm.models.counts.negatives_are_labelled`), as
            with single positive labels, or tags. 0: never.
        relations: Gain of
            :class:`~trm_ml_mm.models.relations.CategoryRelations`; 0: none.
        initial_logit: The mean first logit; the common bias that gives it is
            measured on the first training batch, which needs no label.
        thr, topk: As in MMPretrain's ``MultiLabelClsHead``.

    Raises:
        ValueError: If ``num_classes`` disagrees with the names, or neither
            ``dim`` nor ``text`` is given.
    """

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
                 init_cfg: Optional[dict] = None):
        super().__init__(loss=MODELS.build(loss), thr=thr, topk=topk,
                         init_cfg=init_cfg)
        self.num_classes = num_classes
        self.text = None
        if text is not None:
            self.text = PromptedTextEncoder(**text)
            self._check_classes(self.text.class_names)
            dim = self.text.embed_dim
        elif dim is None:
            raise ValueError(
                f'{type(self).__name__} needs dim, the joint width of its '
                'CLIPPromptBackbone, or text, on another backbone.')
        self.dim = dim
        self.projection = None
        if in_channels is not None:
            self.projection = nn.Linear(in_channels, dim)
        self.assume_negative = assume_negative
        self.initial_logit = initial_logit
        self.relations = CategoryRelations(num_classes, relations)
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer('common_bias', torch.zeros(()))
        self.register_buffer('calibrated', torch.zeros((), dtype=torch.bool))
        self.register_buffer('seen', torch.zeros(2, num_classes))  # neg, pos
        self._calibrated = False  # the buffer's value, without a device sync

    def _check_classes(self, names) -> None:
        if len(names) != self.num_classes:
            raise ValueError(
                f'The head has num_classes={self.num_classes} and there are '
                f'{len(names)} class names ({", ".join(names[:2])}, ...): '
                'make them agree.')

    def joint_features(self, feats: Tuple[Tensor]) -> CLIPFeatures:
        """Image and text features in the joint space."""
        if isinstance(feats, CLIPFeatures):
            if feats.text.shape[1] != self.num_classes:
                raise ValueError(
                    f'The head has num_classes={self.num_classes} and the '
                    f'backbone {feats.text.shape[1]} class names: make them '
                    'agree.')
            if feats.text.shape[-1] != self.dim:
                raise ValueError(
                    f'The head has dim={self.dim} and its backbone\'s joint '
                    f'space {feats.text.shape[-1]} dimensions: set dim to '
                    'that.')
            return feats
        if self.text is None or self.projection is None:
            raise ValueError(
                f'{type(self).__name__} got features without text: use '
                'CLIPPromptBackbone with classes, or give the head text and '
                'in_channels.')
        dense = feats[-1] if isinstance(feats, (tuple, list)) else feats
        dense = as_places(dense)
        if dense.dim() != 3:
            raise ValueError(
                f'{type(self).__name__} needs a map (B, C, H, W) or (B, L, C) '
                f'and the backbone gave {tuple(dense.shape)}: take its '
                'feature map instead of its pooled feature.')
        return CLIPFeatures(self.text(), self.text.anchor(), None,
                            self.projection(dense))

    def targets(self, data_samples: List[DataSample]) -> Tensor:
        """Labels of a batch, ``(B, C)`` in {1, 0, -1}."""
        rows = []
        for sample in data_samples:
            if 'gt_score' in sample:
                rows.append(sample.gt_score)
            else:
                row = sample.gt_label.new_zeros(self.num_classes).float()
                row[sample.gt_label] = 1  # a repeated label counts once
                rows.append(row)
        return torch.stack(rows)

    def loss(self, feats: Tuple[Tensor],
             data_samples: List[DataSample]) -> Dict[str, Tensor]:
        """Every term of the loss under its own name."""
        targets = self.targets(data_samples)
        logits = self(feats)
        with torch.autocast(targets.device.type, enabled=False):
            return self.supervision(logits, targets)

    def supervision(self, logits: Tensor, targets: Tensor,
                    settled: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """The loss over known labels and, where it is on, over labels that
        are assumed absent.

        Args:
            logits: ``(B, C)``.
            targets: ``(B, C)`` in {1, 0, -1}.
            settled: The same with pseudo-labels; None: there are none.
        """
        losses = dict(loss_cls=self.loss_module(logits, targets))
        if self.assume_negative:
            self.seen += count_labels(targets)
            settled = targets if settled is None else settled
            assumed = (settled == -1) & ~negatives_are_labelled(*self.seen)
            losses['loss_assumed'] = self.assume_negative * self.loss_module(
                logits, torch.where(assumed, 0., -1.),
                torch.ones_like(assumed))
        return losses

    def biased(self, logits: Tensor) -> Tensor:
        """Logits with the biases; the first training batch sets the common
        one."""
        self.calibrate(logits)
        return logits + self.bias + self.common_bias

    @torch.no_grad()
    def calibrate(self, logits: Tensor) -> None:
        """Set the common bias from the first batch of all ranks."""
        if not self.training or self._calibrated:
            return
        mean = logits.detach().float().mean()
        all_reduce(mean, 'mean')
        self.common_bias.copy_(self.initial_logit - mean)
        self.calibrated.fill_(True)
        self._calibrated = True

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'calibrated')
        if saved is not None:
            self._calibrated = bool(saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _get_predictions(self, cls_score: Tensor,
                         data_samples: Optional[List[DataSample]]):
        """MMPretrain's, with the fp32 logits beside the scores, as metrics
        rank by them (sigmoids tie where they saturate), and without waiting
        for the device once per image."""
        logits = cls_score.float()
        scores = logits.sigmoid()
        if self.thr is not None:
            chosen = scores >= self.thr
            labels = chosen.nonzero()[:, 1].split(chosen.sum(1).tolist())
        else:
            labels = scores.topk(self.topk).indices
        if data_samples is None:
            data_samples = [DataSample() for _ in range(len(scores))]
        for sample, score, logit, label in zip(data_samples, scores, logits,
                                               labels):
            sample.set_pred_score(score).set_pred_label(label)
            sample.set_field(logit, 'pred_logit', dtype=torch.Tensor)
        return data_samples
