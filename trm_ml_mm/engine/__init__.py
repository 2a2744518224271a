from .atomic_backend import AtomicLocalBackend
from .hooks import (
    EpochSeedHook,
    PartialLabelHook,
    PlainCheckpointHook,
    ReportHook,
    SkippedImagesHook,
    seed_worker,
    zero_shot_scores,
)

__all__ = [
    'AtomicLocalBackend', 'EpochSeedHook', 'PartialLabelHook',
    'PlainCheckpointHook', 'ReportHook', 'SkippedImagesHook', 'seed_worker',
    'zero_shot_scores'
]
