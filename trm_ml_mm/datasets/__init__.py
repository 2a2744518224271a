from .base import MultiLabelDataset, label_matrix
from .categories import COCO_CLASSES, VOC_CLASSES, class_names, prompt_name
from .coco import CocoMultiLabel
from .partial_labels import (
                             PartialLabelDataset,
                             known_label_mask,
                             mask_hash,
                             single_positive_mask,
)
from .scenes import RenderScene, Scenes

__all__ = [
    'COCO_CLASSES', 'CocoMultiLabel', 'MultiLabelDataset',
    'PartialLabelDataset', 'RenderScene', 'Scenes', 'VOC_CLASSES',
    'class_names', 'known_label_mask', 'label_matrix', 'mask_hash',
    'prompt_name', 'single_positive_mask'
]
