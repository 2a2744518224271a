from .base import MatchingHead, targets_of
from .linear_probe import LinearProbeHead
from .query_decoder import QueryDecoderHead
from .text_image import TextImageHead
from .text_pixel import TextPixelHead
from .text_region import MatchingOutput, TextRegionMatchingHead
from .zero_shot import ZeroShotHead, zero_shot_scores

__all__ = [
    'LinearProbeHead', 'MatchingHead', 'MatchingOutput', 'QueryDecoderHead',
    'TextImageHead', 'TextPixelHead', 'TextRegionMatchingHead',
    'ZeroShotHead', 'targets_of', 'zero_shot_scores'
]
