"""What models say about images that they were not trained on, for every image
of a training set.

A model has fitted the labels that it was trained on, and its own
pseudo-labels of the same images. So its scores of these images are too good,
and no threshold that is found on them holds. Here the images are dealt out to
folds. A model is trained without each fold, and judges it. Then all images
are new to their judges: those of the table, and those of a validation set.
"""
import copy
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from trm_ml_mm.datasets import find_masks
from trm_ml_mm.engine import build_runner, fill_classes
from trm_ml_mm.engine.tta import view_pipelines
from trm_ml_mm.features import (
    CacheFiller,
    FeatureCache,
    build_tower,
    cached_logits,
    use_cache,
)
from trm_ml_mm.features.fill import resolve_dataset_config
from trm_ml_mm.utils.configs import plain_types

FOLDS = 5
# What a fit needs of the package's hooks: no checkpoint, no report.
HOOKS = ('EpochSeedHook', 'PartialLabelHook', 'FiniteLossHook')
# Told what is done, how much of it, and of how much.
Progress = Callable[[str, int, int], None]


class CrossFit(NamedTuple):
    """Logits by models that did not see the image."""

    logits: np.ndarray  # (N, C) of the training set; NaN: not readable
    validation: np.ndarray  # (M, C) of the validation set, if there is one


def cross_fit(cfg: Config,
              features: Union[str, Path],
              folds: int = FOLDS,
              seed: int = 0,
              scales: Optional[Sequence[float]] = None,
              workers: int = 0,
              progress: Progress = lambda what, done, total: None) -> CrossFit:
    """Judge each image of a training set by a model that has not seen it.

    The frozen tower runs once over each view of each image. Training is that
    of the config, on the features of the images as they are.

    Args:
        cfg: How to train, and on what. Images of its validation set, if it
            has one, are dealt out to the models too.
        features: Folder for the features; what is in it is not computed
            again.
        folds: How many models.
        seed: Deals out the images, and seeds the trainings.
        scales: Test-time augmentation: average over each image and its
            mirror image, at these scales. None: the image as it is.
        workers: Processes that read images.
        progress: Called after every step.

    Raises:
        ValueError: If the tower is not frozen, there are fewer images than
            folds, or a setting does not fit; see
            :func:`~trm_ml_mm.features.use_cache`.
    """
    cfg = copy.deepcopy(cfg)
    fill_classes(cfg)
    caches = fill_views(cfg, features, scales, workers, progress)
    count = len(caches['train'][0].state)
    if not 2 <= folds <= count:
        raise ValueError(f'{count} images cannot be dealt out to {folds} '
                         'folds: give at least two images, and no more folds '
                         'than images.')
    logits = validation = None
    for fold in range(folds):
        progress('Training without a fold', fold, folds)
        model, rows = fit_without(fold, folds, cfg, features, seed)
        unseen = np.setdiff1d(np.arange(count), rows)
        scores = view_logits(model, caches['train'], unseen)
        if logits is None:
            logits = np.full((count, scores.shape[1]), np.nan)
            others = len(caches['val'][0].state) if 'val' in caches else 0
            validation = np.full((others, scores.shape[1]), np.nan)
        logits[unseen] = scores
        if others:
            dealt = np.arange(fold, others, folds)
            validation[dealt] = view_logits(model, caches['val'], dealt)
        progress('Training without a fold', fold + 1, folds)
    return CrossFit(logits, validation)


def fill_views(cfg: Config, features: Union[str, Path],
               scales: Optional[Sequence[float]] = None, workers: int = 0,
               progress: Progress = lambda what, done, total: None,
               splits: Sequence[str] = ('train', 'val')
               ) -> Dict[str, List[FeatureCache]]:
    """Features of all views. The pipelines of ``cfg`` become that of the first
    view, in place.

    Returns:
        For each of the splits that the config has, a cache for each view.
    """
    splits = [split for split in splits if cfg.get(f'{split}_dataloader')]
    tower = build_tower(cfg)
    pipelines = [pipeline_of(cfg)] if scales is None else view_pipelines(
        pipeline_of(cfg), scales)
    caches = {split: [] for split in splits}
    for view, pipeline in reversed(list(enumerate(pipelines))):
        for split in splits:
            resolve_dataset_config(cfg, split).pipeline = pipeline
        for split in splits:
            filler = CacheFiller(cfg, split, view_folder(features, view), 1,
                                 tower=tower)
            what = f'Features of {split}, view {view + 1} of {len(pipelines)}'
            filler.fill(workers=workers, progress=lambda done, total,
                        what=what: progress(what, done, total))
            caches[split].insert(0, FeatureCache(filler.folder))
    return caches


def view_folder(features: Union[str, Path], view: int) -> str:
    return str(Path(features, f'view{view}'))


def pipeline_of(cfg: Config) -> List[dict]:
    """How a test of this config prepares images.

    Raises:
        ValueError: If the config has neither a validation nor a test set.
    """
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            return plain_types(resolve_dataset_config(cfg, split).pipeline)
    raise ValueError('The config has no val_dataloader and no test_dataloader, '
                     'whose pipeline says how to look at images: add one.')


def fit(cfg: Config, features: Union[str, Path], seed: int = 0
        ) -> Tuple[nn.Module, np.ndarray]:
    """Train a config on the features of :func:`fill_views`, and keep no file
    of it.

    Returns:
        The model in eval mode, and the rows ``(K,)`` of the set under
        ``PartialLabelDataset`` that it was trained on.
    """
    cfg = copy.deepcopy(cfg)
    use_cache(cfg, view_folder(features, 0), ('train', ))
    for name in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'val_{name}'] = cfg[f'test_{name}'] = None
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.custom_hooks = [dict(type=f'trm_ml_mm.{name}') for name in HOOKS]
    cfg.default_hooks.checkpoint = None
    cfg.load_from, cfg.resume = None, False
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    cfg.log_level = 'ERROR'
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.experiment_name = Path(work_dir).name  # MMEngine keeps them apart
        runner = build_runner(cfg, work_dir)
        runner.train()
    partial, = find_masks(runner.train_dataloader.dataset)
    rows = [partial.wrapped_index(i) for i in range(len(partial))]
    return runner.model.eval(), np.array(rows)


def fit_without(fold: int, folds: int, cfg: Config,
                features: Union[str, Path], seed: int
                ) -> Tuple[nn.Module, np.ndarray]:
    """:func:`fit` without a fold of the images."""
    data = in_folds(cfg.train_dataloader.dataset, fold=fold,
                    num_splits=folds, seed=seed)
    cfg = copy.deepcopy(cfg)
    cfg.train_dataloader.dataset = data
    return fit(cfg, features, seed + fold)


def in_folds(dataset: dict, **options) -> dict:
    """Config of a training set without a fold of its images: wrappers that
    repeat images stay outside."""
    if str(dataset['type']).endswith('PartialLabelDataset'):
        return dict(type='KFoldDataset', dataset=dataset, **options)
    if 'dataset' in dataset:
        return dict(dataset, dataset=in_folds(dataset['dataset'], **options))
    return in_folds(dict(type='trm_ml_mm.PartialLabelDataset', known='all',
                         dataset=dataset), **options)


def view_logits(model: nn.Module, views: Sequence[FeatureCache],
                rows: np.ndarray) -> np.ndarray:
    """Mean logits over the views of some images, ``(len(rows), C)``."""
    return torch.stack([cached_logits(model, cache, rows)
                        for cache in views]).mean(0).numpy()
