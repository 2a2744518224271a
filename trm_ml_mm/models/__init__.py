from .backbones import CLIPFeatures, CLIPPromptBackbone
from .clip import load_clip
from .heads import (
                     LinearProbeHead,
                     MatchingHead,
                     MatchingOutput,
                     QueryDecoderHead,
                     TextImageHead,
                     TextPixelHead,
                     TextRegionMatchingHead,
)
from .losses import (
                     MultimodalContrastiveLoss,
                     PartialAsymmetricLoss,
                     RegionDistillationLoss,
)
from .prototypes import MultimodalPrototypes
from .region import CategoryRegions
from .relations import CategoryRelations
from .text import PromptedTextEncoder, PromptLearner

__all__ = [
    'CLIPFeatures', 'CLIPPromptBackbone', 'CategoryRegions',
    'CategoryRelations', 'LinearProbeHead', 'MatchingHead', 'MatchingOutput',
    'MultimodalContrastiveLoss', 'MultimodalPrototypes',
    'PartialAsymmetricLoss', 'PromptLearner', 'PromptedTextEncoder',
    'QueryDecoderHead', 'RegionDistillationLoss', 'TextImageHead',
    'TextPixelHead', 'TextRegionMatchingHead', 'load_clip'
]
