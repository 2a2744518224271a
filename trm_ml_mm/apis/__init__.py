"""What other programs call."""
from .hub import get_config, get_model, list_models
from .inferencer import MultiLabelInferencer
from .model import LoadedModel, load_model

__all__ = ['LoadedModel', 'MultiLabelInferencer', 'get_config', 'get_model',
           'list_models', 'load_model']
