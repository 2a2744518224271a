"""Baseline: a linear layer on the whole image's embedding."""
from torch import Tensor, nn

from trm_ml_mm.registry import MODELS

from ..backbones import CLIPFeatures
from .base import MatchingHead
from .text_image import image_embedding


@MODELS.register_module()
class LinearProbeHead(MatchingHead):
    """A linear layer on CLIP's normalised image embedding (Radford et al.,
    arXiv 2103.00020).

    Needs ``pooled=True`` in a ``CLIPPromptBackbone``. On another backbone, the
    mean of the projected places stands for the embedding; one vector per image
    will do.

    Args:
        logit_scale: Factor of the layer's output. It has the same effect as a
            larger learning rate together with larger initial weights.
        **kwargs: See :class:`~trm_ml_mm.models.heads.base.MatchingHead`.
    """

    needs_map = False
    is_open_vocabulary = False
    class_axes = {**MatchingHead.class_axes, 'output.weight': (0, )}

    def __init__(self, *args, logit_scale: float = 10., **kwargs):
        super().__init__(*args, **kwargs)
        self.logit_scale = logit_scale
        self.output = nn.Linear(self.dim, self.num_classes, bias=False)

    def raw_logits(self, joint: CLIPFeatures) -> Tensor:
        return self.logit_scale * self.output(image_embedding(self, joint))
