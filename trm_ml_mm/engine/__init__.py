from .atomic_backend import AtomicLocalBackend
from .hooks import (
                    EpochSeedHook,
                    PlainCheckpointHook,
                    ReportHook,
                    seed_worker,
                    zero_shot_scores,
)

__all__ = [
    'AtomicLocalBackend', 'EpochSeedHook', 'PlainCheckpointHook',
    'ReportHook', 'seed_worker', 'zero_shot_scores'
]
