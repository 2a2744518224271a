"""Load a trained model to use it."""
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS
from torch import nn

from trm_ml_mm.engine import (
    ModelDescription,
    complete,
    describe,
    fill_classes,
    load_config,
    load_learned,
    read_checkpoint,
    read_description,
)
from trm_ml_mm.engine.description import KEY
from trm_ml_mm.engine.hooks.partial_label import model_class_names
from trm_ml_mm.utils.configs import nested_dicts
from trm_ml_mm.utils.errors import root_cause
from trm_ml_mm.utils.mmengine_private import describe as describe_for_mmpretrain


class LoadedModel(NamedTuple):
    """A trained model, and what belongs to it."""

    model: nn.Module  # in eval mode; takes images
    cfg: Config  # what it was built from: that config, or the `model` alone
    description: ModelDescription
    meta: dict  # of the checkpoint: plain data


def load_model(checkpoint: Union[str, Path],
               config: Union[None, str, Config] = None,
               options: Optional[dict] = None,
               device: str = 'cpu',
               weights: Optional[str] = None) -> LoadedModel:
    """A trained model from its checkpoint.

    The model takes images, even if it was trained from cached features.

    Args:
        checkpoint: File of a training run. It is read without running code.
        config: The config it was trained with, or its file. None: build what
            the checkpoint describes.
        options: See :func:`~trm_ml_mm.engine.load_config`. For a config only.
        device: Where the model goes.
        weights: File of the frozen CLIP, if it is not where it was in
            training.

    Raises:
        FileNotFoundError: If a file is missing, the CLIP's too.
        ValueError: If the checkpoint is damaged, says nothing of its model, or
            belongs to another model, CLIP or class list.
    """
    saved = read_checkpoint(checkpoint)
    if config is None:
        if options:
            raise ValueError('Options change a config: give the config too.')
        found = read_description(saved['meta'].get(KEY), checkpoint)
        cfg = Config(dict(model=found.model, default_scope='mmpretrain'))
    else:
        cfg = load_config(config, options)
        trained = saved['meta'].get('dataset_meta') or {}
        fill_classes(cfg, 'test', trained.get('classes'))
        found = describe(cfg)
    locate_tower(cfg.model, checkpoint, weights)
    try:
        model = build_model(cfg)
    except (OSError, RuntimeError) as error:  # no file, or no internet
        raise FileNotFoundError(
            f'The CLIP of {checkpoint}, {tower_of(cfg.model)}, is not at hand '
            f'({str(root_cause(error)).split(" Or give ")[0]}) Give its file: '
            'weights=FILE in Python, '
            '--weights FILE in a command.') from error
    found = complete(found, model, found.classes or (
        saved['meta'].get('dataset_meta') or {}).get('classes'))
    load_learned(model, saved['state_dict'], checkpoint)
    describe_for_mmpretrain(model, cfg, found.classes)
    return LoadedModel(model.to(device).eval(), cfg, found, saved['meta'])


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
    describe_for_mmpretrain(model, cfg, model_class_names(model))
    return model


def locate_tower(model: dict, checkpoint: Union[str, Path],
                 weights: Optional[str] = None) -> None:
    """Say where a model's CLIP is.

    Args:
        model: Config of the classifier; changed in place.
        checkpoint: A file of weights that is no longer where it was in
            training may lie beside it.
        weights: The file; None: where it was in training.

    Raises:
        ValueError: If ``weights`` are given and the model has no CLIP.
    """
    towers = [options for options in nested_dicts(model)
              if 'arch' in options and 'weights' in options]
    if weights is not None and not towers:
        raise ValueError(f'weights={weights}: the model has no CLIP that '
                         'could be loaded from a file.')
    for options in towers:
        if weights is not None:
            options['weights'] = weights
        elif options['weights'] and not Path(options['weights']).is_file():
            beside = Path(checkpoint).with_name(
                Path(options['weights']).name)
            if beside.is_file():
                options['weights'] = str(beside)


def tower_of(model: dict) -> str:
    """Architecture and weights of a model's CLIP, in words."""
    for options in nested_dicts(model):
        if 'arch' in options and 'weights' in options:
            weights = options['weights']
            return (options['arch'] if weights is None else
                    f'{options["arch"]} with the weights {weights!r}')
    return 'its CLIP'
