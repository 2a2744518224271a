from .atomic_backend import AtomicLocalBackend
from .hooks import (
    EpochSeedHook,
    PartialLabelHook,
    PlainCheckpointHook,
    PseudoLabelQualityHook,
    ReportHook,
    SkippedImagesHook,
    seed_worker,
    zero_shot_scores,
)

__all__ = [
    'AtomicLocalBackend', 'EpochSeedHook', 'PartialLabelHook',
    'PlainCheckpointHook', 'PseudoLabelQualityHook', 'ReportHook',
    'SkippedImagesHook', 'seed_worker', 'zero_shot_scores'
]
