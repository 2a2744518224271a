"""What other programs call."""
from .calibrate import (
    LabelledLogits,
    logits_of_config,
    logits_of_table,
    store_calibration,
)
from .cross_fit import UnseenLogits, checkpoint_logits, cross_fit
from .fill import ClassReport, Evidence, Filled, fill_blanks, report
from .hub import get_config, get_model, list_models
from .inferencer import MultiLabelInferencer
from .model import LoadedModel, load_model
from .other_classes import with_classes
from .tables import TrainingTable, from_config, from_table
from .training_scores import label_prior, zero_shot_training_scores

__all__ = [
    'ClassReport', 'Evidence', 'Filled', 'LabelledLogits', 'LoadedModel',
    'MultiLabelInferencer', 'TrainingTable', 'UnseenLogits',
    'checkpoint_logits', 'cross_fit', 'fill_blanks', 'from_config',
    'from_table', 'get_config', 'get_model', 'label_prior', 'list_models',
    'load_model', 'logits_of_config', 'logits_of_table', 'report',
    'store_calibration', 'with_classes', 'zero_shot_training_scores'
]
