from .atomic_checkpoint import AtomicCheckpointHook
from .epoch_seed import EpochSeedHook, seed_worker
from .finite_loss import FiniteLossHook
from .partial_label import PartialLabelHook
from .plain_checkpoint import PlainCheckpointHook
from .prediction_pictures import PredictionPicturesHook
from .pseudo_labels import PseudoLabelQualityHook
from .report import ReportHook
from .screen import ScreenHook
from .skipped_images import SkippedImagesHook
from .stop_signal import StopSignalHook
from .training_time import TrainingTimeHook
from .watch import WatchHook

__all__ = [
    'AtomicCheckpointHook', 'EpochSeedHook', 'FiniteLossHook',
    'PartialLabelHook', 'PlainCheckpointHook', 'PredictionPicturesHook',
    'PseudoLabelQualityHook', 'ReportHook', 'ScreenHook', 'SkippedImagesHook',
    'StopSignalHook', 'TrainingTimeHook', 'WatchHook', 'seed_worker'
]
