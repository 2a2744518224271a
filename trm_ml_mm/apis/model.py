"""Load a trained model to use it."""
from typing import NamedTuple, Optional, Union

from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch import nn

from trm_ml_mm.engine import (
    fill_classes,
    load_config,
    load_learned,
    read_checkpoint,
)


class LoadedModel(NamedTuple):
    """A model and the config it was built from."""

    model: nn.Module  # in eval mode; takes images
    cfg: Config


def load_model(checkpoint: str,
               config: Union[str, Config],
               options: Optional[dict] = None,
               device: str = 'cpu') -> LoadedModel:
    """Build the model of a config, with the learned weights of a checkpoint.

    The model takes images, even if it was trained from cached features.

    Args:
        checkpoint: File of a training run. It is read without running code.
        config: The config it was trained with, or its file.
        options: See :func:`~trm_ml_mm.engine.load_config`.
        device: Where the model goes.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the checkpoint is damaged, or belongs to another model,
            CLIP or class list.
    """
    saved = read_checkpoint(checkpoint)
    cfg = load_config(config, options)
    trained = saved['meta'].get('dataset_meta') or {}
    fill_classes(cfg, 'test', trained.get('classes'))
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    load_learned(model, saved['state_dict'], checkpoint)
    return LoadedModel(model.to(device).eval(), cfg)
