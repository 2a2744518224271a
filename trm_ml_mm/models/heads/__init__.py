from .base import MatchingHead
from .rivals import (
    LinearProbeHead,
    QueryDecoderHead,
    TextImageHead,
    TextPixelHead,
)
from .text_region import MatchingOutput, TextRegionMatchingHead

__all__ = [
    'LinearProbeHead', 'MatchingHead', 'MatchingOutput', 'QueryDecoderHead',
    'TextImageHead', 'TextPixelHead', 'TextRegionMatchingHead'
]
