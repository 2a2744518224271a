"""What all matching heads have in common: where features, text and labels
come from, and how scores go out."""
from typing import List, Optional, Tuple

import torch
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..backbones import CLIPFeatures
from ..region import as_places
from ..text import PromptedTextEncoder


class MatchingHead(MultiLabelClsHead):
    """Base of the heads that match image features with text.

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
                 thr: Optional[float] = None,
                 topk: Optional[int] = None,
                 init_cfg: Optional[dict] = None):
        super().__init__(loss=loss, thr=thr, topk=topk, init_cfg=init_cfg)
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
