"""Multimodal contrastive learning against category prototypes."""
from typing import Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trm_ml_mm.registry import MODELS
from trm_ml_mm.utils.checks import check_not_negative, check_positive
from trm_ml_mm.utils.precision import full_precision

from ..class_blocks import similarity_blocks
from .reduce import reduce_loss, weighted


def prototype_contrast(features: Tensor,
                       prototypes: Tensor,
                       temperature: Union[float, Tensor] = 0.07) -> Tensor:
    """InfoNCE of each category's feature against all categories' prototypes.

    ``-log exp(cos(q_c, P_c) / tau) / sum_k exp(cos(q_c, P_k) / tau)``: the own
    prototype attracts, the others repel, moderated by the softmax. The paper
    states the contrast; the form is ours.

    Many prototypes are compared in blocks. Their similarities are not kept,
    but computed once more for the gradients, which are the same.

    Args:
        features: ``(B, C, D)``.
        prototypes: ``(C, D)``, constants.
        temperature: tau.

    Returns:
        ``(B, C)`` fp32 (fp64 for fp64 features).
    """
    features = F.normalize(full_precision(features), dim=-1)
    prototypes = F.normalize(full_precision(prototypes.detach()), dim=-1)
    blocks = similarity_blocks(len(prototypes), features[..., 0].numel())
    if len(blocks) == 1:
        total, own = _contrast(features, prototypes, temperature, blocks[0])
        return total - own
    totals, own = zip(*(
        checkpoint(_contrast, features, prototypes, temperature, block,
                   use_reentrant=False) for block in blocks))
    return torch.logsumexp(torch.stack(totals), 0) - torch.cat(own, 1)


def _contrast(features: Tensor, prototypes: Tensor,
              temperature: Union[float, Tensor], block: slice
              ) -> Tuple[Tensor, Tensor]:
    """Of k prototypes: the logarithm of their summed exponentials ``(B, C)``,
    and the logits of their own categories ``(B, k)``."""
    logits = features @ prototypes[block].T / temperature  # B C k
    own = torch.diagonal(logits[:, block], dim1=-2, dim2=-1)
    return torch.logsumexp(logits, -1), own


@MODELS.register_module()
class MultimodalContrastiveLoss(BaseModule):
    """Mean of :func:`prototype_contrast` over the positives of all ranks,
    summed over the modalities.

    Args:
        temperature: tau.
        modalities: Which prototypes: 'visual', 'text' or both.
        loss_weight: Weight in the total.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(self,
                 temperature: float = 0.07,
                 modalities: Sequence[str] = ('visual', 'text'),
                 loss_weight: float = 0.1):
        super().__init__()
        unknown = set(modalities) - {'visual', 'text'}
        if unknown or not modalities:
            raise ValueError("modalities are 'visual', 'text' or both, got "
                             f'{list(modalities)}.')
        check_positive(temperature=temperature)
        check_not_negative(loss_weight=loss_weight)
        self.temperature = temperature
        self.modalities = tuple(modalities)
        self.loss_weight = loss_weight

    def forward(self, features: Tensor, positives: Tensor, visual: Tensor,
                text: Tensor, unit: Union[float, Tensor] = 1.,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Scalar loss.

        Args:
            features: ``(B, C, D)`` query-level features.
            positives: ``(B, C)`` bool, known or pseudo-labelled.
            visual: ``(C, D)`` visual prototypes.
            text: ``(C, D)`` text prototypes.
            unit: Of the joint space; multiplies the temperature.
            weight: ``(B,)`` of images or ``(B, C)`` of labels.
            avg_factor: See
                :func:`~trm_ml_mm.models.losses.reduce.reduce_loss`.
            reduction_override: See
                :func:`~trm_ml_mm.models.losses.reduce.reduce_loss`.
        """
        prototypes = dict(visual=visual, text=text)
        loss = sum(
            prototype_contrast(features, prototypes[modality],
                               self.temperature * unit)
            for modality in self.modalities)
        loss = weighted(loss * positives.to(loss.dtype), weight)
        return self.loss_weight * reduce_loss(
            loss, positives.to(loss.dtype).sum(), avg_factor=avg_factor,
            reduction_override=reduction_override)
