"""CLIP's towers: loading, freezing, dense maps, the layout of features."""
from .dense import (
    dense_projection,
    resnet_dense_map,
    resnet_pooled,
    vit_value_path,
)
from .frozen import FrozenModule
from .image import ImageTower, image_tower
from .layout import pack_rows, row_shape, unpack_rows
from .loading import (
    LoadedCLIP,
    built_size,
    default_weights,
    joint_width,
    load_clip,
    save_random_weights,
)
from .text import can_be_cut, encode_whole, text_part

__all__ = [
    'FrozenModule', 'ImageTower', 'LoadedCLIP', 'built_size', 'can_be_cut',
    'default_weights', 'dense_projection', 'encode_whole', 'image_tower',
    'joint_width', 'load_clip', 'pack_rows', 'resnet_dense_map',
    'resnet_pooled', 'row_shape', 'save_random_weights', 'text_part',
    'unpack_rows', 'vit_value_path'
]
