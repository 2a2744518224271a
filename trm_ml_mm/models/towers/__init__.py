"""CLIP's towers: loading, freezing, dense maps, the layout of features."""
from .dense import (
    dense_projection,
    region_average,
    resnet_attention,
    resnet_dense_map,
    resnet_pooled,
    vit_value_path,
)
from .frozen import FrozenModule
from .image import ImageTower, image_tower
from .last_block import attend, gaussian_window
from .layout import pack_rows, row_shape, unpack_rows
from .loading import LoadedCLIP, joint_width, load_clip, save_random_weights
from .text import can_be_cut, encode_whole, text_part
from .windows import WindowedTower, check_windows

__all__ = [
    'FrozenModule', 'ImageTower', 'LoadedCLIP', 'WindowedTower', 'attend',
    'can_be_cut', 'check_windows', 'dense_projection', 'encode_whole',
    'gaussian_window', 'image_tower', 'joint_width', 'load_clip', 'pack_rows',
    'region_average', 'resnet_attention', 'resnet_dense_map', 'resnet_pooled',
    'row_shape', 'save_random_weights', 'text_part', 'unpack_rows',
    'vit_value_path'
]
