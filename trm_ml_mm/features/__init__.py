"""The feature cache: run the frozen tower once, then train from its output."""
from .fill import CacheFiller, build_tower, splits_to_cache
from .storage import CacheMeta, FeatureCache
from .use import (
    ImageFeatures,
    LoadCachedFeatures,
    cached_logits,
    use_cache,
    use_images,
)

__all__ = [
    'CacheFiller', 'CacheMeta', 'FeatureCache', 'ImageFeatures',
    'LoadCachedFeatures', 'build_tower', 'cached_logits', 'splits_to_cache',
    'use_cache', 'use_images'
]
