from .base import MatchingHead
from .text_region import MatchingOutput, TextRegionMatchingHead

__all__ = ['MatchingHead', 'MatchingOutput', 'TextRegionMatchingHead']
