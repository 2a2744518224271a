"""Load a trained model to use it."""
from typing import NamedTuple, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import nn

from trm_ml_mm.engine import (
    fill_classes,
    load_config,
    load_learned,
    read_checkpoint,
)
from trm_ml_mm.engine.hooks.partial_label import model_class_names
from trm_ml_mm.utils.mmengine_private import describe


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
    model = build_model(cfg, trained.get('classes'))
    load_learned(model, saved['state_dict'], checkpoint)
    return LoadedModel(model.to(device).eval(), cfg)


def build_model(cfg: Config, classes: Optional[Sequence[str]] = None
                ) -> nn.Module:
    """The model of a config, which MMPretrain's inferencers take too.

    Args:
        cfg: Changed in place: it gets the names of the classes.
        classes: These names; None: those of the data set.
    """
    fill_classes(cfg, 'test', classes)
    if cfg.get('data_preprocessor'):
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = MODELS.build(cfg.model)
    describe(model, cfg, model_class_names(model))
    return model
