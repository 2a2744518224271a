"""CLIP's towers: loading, freezing, dense maps, the layout of features."""
from .dense import (
    dense_projection,
    region_average,
    resnet_attention,
    resnet_dense_map,
    resnet_pooled,
)
from .frozen import FrozenModule
from .image import ImageTower, image_tower
from .last_block import attend, gaussian_window
from .layout import pack_rows, row_shape, unpack_rows
from .loading import (
    LoadedCLIP,
    built_size,
    default_weights,
    joint_width,
    load_clip,
    save_random_weights,
)
from .shared_prefix import encode_prompts, kept_positions
from .text import TextTower
from .tokens import tokenize_prompts
from .windows import WindowedTower, check_windows

__all__ = [
    'FrozenModule', 'ImageTower', 'LoadedCLIP', 'TextTower', 'WindowedTower',
    'attend', 'built_size', 'check_windows', 'default_weights',
    'dense_projection', 'encode_prompts', 'gaussian_window', 'image_tower',
    'joint_width', 'kept_positions', 'load_clip', 'pack_rows',
    'region_average', 'resnet_attention', 'resnet_dense_map', 'resnet_pooled',
    'row_shape', 'save_random_weights', 'tokenize_prompts', 'unpack_rows'
]
