from trm_ml_mm.labels import (
    COCO_CLASSES,
    CUB_ATTRIBUTES,
    NUS_CLASSES,
    VOC_CLASSES,
    ImageNames,
    Mask,
    class_names,
    draw_mask,
    known_label_mask,
    listed_positives_mask,
    load_mask,
    mask_hash,
    prompt_name,
    save_mask,
    single_positive_mask,
)

from .base import (
    MultiLabelDataset,
    UnreadableImage,
    label_matrix,
    matrix_of,
)
from .chexpert import CheXpert
from .coco import CocoMultiLabel
from .crops import CropBox
from .csv_labels import CSVMultiLabel
from .cub import CUBAttributes
from .json_labels import JSONMultiLabel
from .lvis import LVIS
from .nus_wide import NUSWide
from .open_images import OpenImages
from .partial_labels import (
    PartialLabelDataset,
    find_masks,
    has_three_values,
    known_labels_of,
    labels_of,
    training_matrix,
)
from .sampler import LeanSampler
from .scenes import RenderScene, Scenes
from .shards import ShardFolder
from .vaw import VAW
from .vg import VG200
from .voc import VOCMultiLabel, scores_from_pascal

__all__ = [
    'COCO_CLASSES', 'CSVMultiLabel', 'CUBAttributes', 'CUB_ATTRIBUTES',
    'CheXpert', 'CocoMultiLabel', 'CropBox', 'ImageNames', 'JSONMultiLabel',
    'LVIS', 'LeanSampler', 'Mask',
    'MultiLabelDataset', 'NUSWide', 'NUS_CLASSES', 'OpenImages',
    'PartialLabelDataset',
    'RenderScene', 'Scenes', 'ShardFolder', 'UnreadableImage', 'VAW',
    'VG200',
    'VOCMultiLabel',
    'VOC_CLASSES', 'class_names',
    'draw_mask', 'find_masks', 'has_three_values', 'known_label_mask',
    'known_labels_of', 'label_matrix', 'labels_of', 'listed_positives_mask',
    'load_mask', 'mask_hash', 'matrix_of', 'prompt_name', 'save_mask',
    'scores_from_pascal', 'single_positive_mask',
    'training_matrix'
]
