"""Shared by several test files."""
from pathlib import Path

ROOT = Path(__file__).parents[1]


def small_backbones():
    """Overrides that make the COCO configs small and free of downloads."""
    return {
        'model.backbone.init_cfg': None,
        'model.head.num_classes': 3,
        'model.head.prototypes.warmup_images': 8,
        'model.head.text.classes': ['red circle', 'blue star', 'green heart'],
        'model.head.text.arch': 'mini',
        'model.head.text.weights': None,
    }
