from .epoch_seed import EpochSeedHook, seed_worker
from .partial_label import PartialLabelHook
from .plain_checkpoint import PlainCheckpointHook
from .pseudo_labels import PseudoLabelQualityHook
from .report import ReportHook
from .skipped_images import SkippedImagesHook

__all__ = [
    'EpochSeedHook', 'PartialLabelHook', 'PlainCheckpointHook',
    'PseudoLabelQualityHook', 'ReportHook', 'SkippedImagesHook',
    'seed_worker'
]
