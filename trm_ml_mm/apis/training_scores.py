"""What a model says of the training images, as a test would prepare them."""
from pathlib import Path
from typing import Optional, Union

import numpy as np
from mmengine.config import Config

from trm_ml_mm.engine import load_config
from trm_ml_mm.evaluation.probabilities import sigmoid
from trm_ml_mm.models import ZeroShotHead

from .cross_fit import checkpoint_logits
from .model import build_model, load_model


def zero_shot_training_scores(config: Union[str, Config],
                              options: Optional[dict] = None) -> np.ndarray:
    """Scores of zero-shot CLIP for the training images: the weak model of
    :func:`~trm_ml_mm.labels.proposed_mask`.

    Args:
        config: A config with a ``ZeroShotHead``, such as
            ``configs/baselines/zero_shot_global.py``.
        options: See :func:`~trm_ml_mm.engine.load_config`.

    Returns:
        ``(N, C)``, in the order of the training set; NaN where an image cannot
        be read.

    Raises:
        ValueError: If the config's model has to be trained first.
    """
    cfg = load_config(config, options)
    cfg.val_dataloader = None
    model = build_model(cfg)
    if not isinstance(model.head, ZeroShotHead):
        raise ValueError(f'The model of {cfg.filename} has learned nothing '
                         'yet: take a config with a ZeroShotHead, or give a '
                         'file of scores.')
    return checkpoint_logits(model.eval(), cfg).train


def label_prior(checkpoint: Union[str, Path], config: Union[str, Config],
                options: Optional[dict] = None) -> np.ndarray:
    """Label prior of the classes: the mean prediction of a model on its
    training set, ``(C,)`` in [0, 1].

    The estimate of CSL (arXiv 2110.10955), whose model is one that was trained
    with known labels only. Images that cannot be read are left out.

    Args:
        checkpoint: Of the model.
        config: A config with its training set.
        options: See :func:`~trm_ml_mm.engine.load_config`.

    Raises:
        ValueError, FileNotFoundError: See :func:`~trm_ml_mm.apis.load_model`.
    """
    cfg = load_config(config, options)
    cfg.val_dataloader = None
    loaded = load_model(checkpoint)
    return np.nanmean(sigmoid(checkpoint_logits(loaded.model, cfg).train), 0)
