"""CLIP's towers: loading, freezing, dense maps, the layout of features."""
from .dense import (
    dense_projection,
    resnet_dense_map,
    resnet_pooled,
    vit_value_path,
)
from .frozen import FrozenModule
from .layout import pack_rows, row_shape, unpack_rows
from .loading import LoadedCLIP, joint_width, load_clip, save_random_weights

__all__ = [
    'FrozenModule', 'LoadedCLIP', 'dense_projection', 'joint_width',
    'load_clip', 'pack_rows', 'resnet_dense_map', 'resnet_pooled', 'row_shape',
    'save_random_weights', 'unpack_rows', 'vit_value_path'
]
