from .backbones import CLIPFeatures, CLIPPromptBackbone
from .clip import load_clip
from .heads import MatchingHead, MatchingOutput, TextRegionMatchingHead
from .losses import (
                     MultimodalContrastiveLoss,
                     PartialAsymmetricLoss,
                     RegionDistillationLoss,
)
from .prototypes import MultimodalPrototypes
from .region import CategoryRegions
from .text import PromptedTextEncoder, PromptLearner

__all__ = [
    'CLIPFeatures', 'CLIPPromptBackbone', 'CategoryRegions', 'MatchingHead',
    'MatchingOutput', 'MultimodalContrastiveLoss', 'MultimodalPrototypes',
    'PartialAsymmetricLoss', 'PromptLearner', 'PromptedTextEncoder',
    'RegionDistillationLoss', 'TextRegionMatchingHead', 'load_clip'
]
