"""Baseline: text matched with the whole image (CoOp)."""
import torch.nn.functional as F
from torch import Tensor

from trm_ml_mm.registry import MODELS

from ..backbones import CLIPFeatures
from ..region import prompt_similarity
from .base import MatchingHead


def image_embedding(head: MatchingHead, joint: CLIPFeatures) -> Tensor:
    """CLIP's normalised image embedding, ``(B, D)``.

    Raises:
        ValueError: If the backbone did not compute it.
    """
    if joint.pooled is None:
        raise ValueError(
            f'{type(head).__name__} uses the embedding of the whole image: '
            'set pooled=True in its CLIPPromptBackbone.')
    return F.normalize(joint.pooled.float(), dim=-1)


@MODELS.register_module()
class TextImageHead(MatchingHead):
    """Match each category's text with the whole image (CoOp, arXiv
    2109.01134): ``logit_scale * cos(image embedding, t_c) + b_c``.

    Needs ``pooled=True`` in a ``CLIPPromptBackbone``. On another backbone, the
    mean of the projected places stands for the embedding; one vector per image
    will do.

    Args:
        logit_scale: Of the cosine similarities.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    needs_map = False

    def __init__(self, *args, logit_scale: float = 10., **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_scale = logit_scale

    def raw_logits(self, joint: CLIPFeatures) -> Tensor:
        image = image_embedding(self, joint)
        _, similarity = prompt_similarity(image[:, None], joint.text)
        return self.scaled(self.logit_scale) * similarity[:, 0]
