from .multimodal_contrastive import (
    MultimodalContrastiveLoss,
    prototype_contrast,
)
from .partial_asymmetric import PartialAsymmetricLoss, partial_asymmetric_loss
from .reduce import normalize_by_global_count
from .region_distillation import (
    RegionDistillationLoss,
    region_distillation_loss,
)
from .selective import SelectiveLoss, selected_negatives

__all__ = [
    'MultimodalContrastiveLoss', 'PartialAsymmetricLoss',
    'RegionDistillationLoss', 'SelectiveLoss', 'normalize_by_global_count',
    'partial_asymmetric_loss', 'prototype_contrast',
    'region_distillation_loss', 'selected_negatives'
]
