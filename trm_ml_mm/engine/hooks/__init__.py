from .epoch_seed import EpochSeedHook, seed_worker
from .plain_checkpoint import PlainCheckpointHook
from .report import ReportHook, zero_shot_scores

__all__ = [
    'EpochSeedHook', 'PlainCheckpointHook', 'ReportHook', 'seed_worker',
    'zero_shot_scores'
]
