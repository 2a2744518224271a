"""The runtime of one run: config, launch, hooks, checkpoints."""
from .baking import bake_text
from .calibration import read_calibration
from .checkpoint import (
    AtomicLocalBackend,
    load_learned,
    read_checkpoint,
    update_meta,
)
from .config import (
    build_dataset,
    fill_classes,
    fill_tower,
    load_config,
    work_dir_of,
)
from .description import (
    ModelDescription,
    complete,
    describe,
    find_class,
    read_description,
)
from .hooks import (
    AtomicCheckpointHook,
    EpochSeedHook,
    FiniteLossHook,
    PartialLabelHook,
    PlainCheckpointHook,
    PredictionPicturesHook,
    PseudoLabelQualityHook,
    ReportHook,
    SkippedImagesHook,
    StopSignalHook,
    TrainingTimeHook,
    seed_worker,
)
from .launch import build_runner, close, init_distributed
from .loops import ResumableTrainLoop
from .runner import SafeRunner
from .schedulers import WarmupLR

__all__ = [
    'AtomicCheckpointHook', 'AtomicLocalBackend', 'EpochSeedHook',
    'FiniteLossHook', 'ModelDescription', 'PartialLabelHook',
    'PlainCheckpointHook', 'PredictionPicturesHook', 'PseudoLabelQualityHook',
    'ReportHook', 'ResumableTrainLoop', 'SafeRunner', 'SkippedImagesHook',
    'StopSignalHook', 'TrainingTimeHook', 'WarmupLR', 'bake_text',
    'build_dataset', 'build_runner', 'close', 'complete', 'describe',
    'fill_classes', 'fill_tower', 'find_class', 'init_distributed',
    'load_config', 'load_learned', 'read_calibration', 'read_checkpoint',
    'read_description', 'seed_worker', 'update_meta', 'work_dir_of'
]
