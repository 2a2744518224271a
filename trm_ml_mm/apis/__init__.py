"""What other programs call."""
from .calibrate import (
    LabelledLogits,
    logits_of_config,
    logits_of_table,
    store_calibration,
)
from .hub import get_config, get_model, list_models
from .inferencer import MultiLabelInferencer
from .model import LoadedModel, load_model

__all__ = ['LabelledLogits', 'LoadedModel', 'MultiLabelInferencer',
           'get_config', 'get_model', 'list_models', 'load_model',
           'logits_of_config', 'logits_of_table', 'store_calibration']
