"""Labels: their values, class names, protocols and files.

Data sets and models both import this folder; it imports neither.
"""
from .image_names import ImageNames
from .mask_files import Mask, load_labels, load_mask, mask_hash, save_mask
from .matrix import (
    ContradictingLabels,
    DenseLabels,
    LabelMatrix,
    SparseLabels,
    stacked,
)
from .names import (
    COCO_CLASSES,
    CUB_ATTRIBUTES,
    NUS_CLASSES,
    VOC_CLASSES,
    class_names,
    prompt_name,
    scene_classes,
    vocabulary,
)
from .proposals import load_scores, proposed_mask
from .protocols import (
    check_known,
    draw_mask,
    keep_known,
    known_label_mask,
    listed_positives_mask,
    single_positive_mask,
)
from .summary import LabelSummary, summarize_labels
from .table import (
    LabelTable,
    TableColumns,
    read_classes,
    read_table,
    write_table,
)
from .values import ABSENT, PRESENT, UNKNOWN

__all__ = [
    'ABSENT', 'COCO_CLASSES', 'CUB_ATTRIBUTES', 'ContradictingLabels',
    'DenseLabels', 'ImageNames', 'LabelMatrix', 'LabelSummary', 'LabelTable',
    'Mask', 'NUS_CLASSES', 'PRESENT', 'SparseLabels', 'TableColumns',
    'UNKNOWN', 'VOC_CLASSES', 'check_known', 'class_names', 'draw_mask',
    'keep_known', 'known_label_mask', 'listed_positives_mask', 'load_labels',
    'load_mask', 'load_scores', 'mask_hash', 'prompt_name', 'proposed_mask',
    'read_classes', 'read_table', 'save_mask', 'scene_classes',
    'single_positive_mask', 'stacked', 'summarize_labels', 'vocabulary',
    'write_table'
]
