from .backbones import CLIPFeatures, CLIPPromptBackbone
from .classifier import CLIPClassifier
from .heads import (
                     LinearProbeHead,
                     MatchingHead,
                     MatchingOutput,
                     QueryDecoderHead,
                     TextImageHead,
                     TextPixelHead,
                     TextRegionMatchingHead,
                     ZeroShotHead,
)
from .losses import (
                     MultimodalContrastiveLoss,
                     PartialAsymmetricLoss,
                     RegionDistillationLoss,
                     SelectiveLoss,
)
from .prototypes import MultimodalPrototypes
from .region import CategoryRegions
from .relations import CategoryRelations
from .text import BakedText, PromptedTextEncoder, PromptLearner
from .towers import load_clip
from .tta import MultiLabelTTA

__all__ = [
    'BakedText', 'CLIPClassifier', 'CLIPFeatures', 'CLIPPromptBackbone',
    'CategoryRegions', 'CategoryRelations', 'LinearProbeHead', 'MatchingHead',
    'MatchingOutput', 'MultiLabelTTA', 'MultimodalContrastiveLoss',
    'MultimodalPrototypes', 'PartialAsymmetricLoss', 'PromptLearner',
    'PromptedTextEncoder', 'QueryDecoderHead', 'RegionDistillationLoss',
    'SelectiveLoss', 'TextImageHead', 'TextPixelHead',
    'TextRegionMatchingHead', 'ZeroShotHead', 'load_clip'
]
