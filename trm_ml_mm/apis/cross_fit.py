"""What models say about images that they were not trained on, for every image
of a training set.

A model has fitted the labels that it was trained on, and its own
pseudo-labels of the same images. So its scores of these images are too good,
and no threshold that is found on them holds for others. Here the images are
dealt out to folds. For each fold, a model is trained without it, and judges
it. So each image is new to its judge, be it of the training set or of the
validation set.
"""
import copy
import tempfile
from pathlib import Path
from typing import (
    Callable,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from mmengine.config import Config
from torch import nn
from torch.utils.data import DataLoader

from trm_ml_mm.datasets import find_masks
from trm_ml_mm.engine import build_runner, fill_classes
from trm_ml_mm.engine.tta import view_pipelines
from trm_ml_mm.features import (
    CacheFiller,
    FeatureCache,
    ImageFeatures,
    build_tower,
    cached_logits,
    use_cache,
)
from trm_ml_mm.features.fill import Views, resolve_dataset_config
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.configs import plain_types
from trm_ml_mm.utils.screen import silent_screen

FOLDS = 5
# What a fit needs of the package's hooks: no checkpoint, no report.
HOOKS = ('EpochSeedHook', 'PartialLabelHook', 'FiniteLossHook')
# Told what is done, how much of it, and of how much.
Progress = Callable[[str, int, int], None]


class UnseenLogits(NamedTuple):
    """Logits by models that have not seen the image; NaN where the image
    cannot be read."""

    train: np.ndarray  # (N, C) of the training set
    validation: np.ndarray  # (M, C) of the validation set; (0, C): none


def _silent(what: str, done: int, total: int) -> None:
    pass


def cross_fit(cfg: Config,
              features: Union[str, Path],
              folds: int = FOLDS,
              seed: int = 0,
              scales: Optional[Sequence[float]] = None,
              workers: int = 0,
              progress: Progress = _silent) -> UnseenLogits:
    """Judge each image of a training set by a model that has not seen it.

    The frozen tower runs once over each view of each image. Training is that
    of the config, on the features of the images as they are.

    Args:
        cfg: How to train, and on what. The images of its validation set, if
            it has one, are dealt out to the models too.
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
    count = len(caches['train'][0])
    others = len(caches['val'][0]) if 'val' in caches else 0
    if not 2 <= folds <= count:
        raise ValueError(f'{count} images cannot be dealt out to {folds} '
                         'folds: give at least two images, and no more folds '
                         'than images.')
    parts = []
    for fold in range(folds):
        progress('Training without a fold', fold, folds)
        model, rows = fit_without(fold, folds, cfg, features, seed)
        unseen = np.setdiff1d(np.arange(count), rows)
        dealt = np.arange(fold, others, folds)
        parts.append((unseen, view_logits(model, caches['train'], unseen),
                      dealt, view_logits(model, caches.get('val', ()), dealt)))
    progress('Training without a fold', folds, folds)
    found = UnseenLogits(*(np.full((size, parts[0][1].shape[1]), np.nan)
                           for size in (count, others)))
    for unseen, logits, dealt, other_logits in parts:
        found.train[unseen] = logits
        if others:
            found.validation[dealt] = other_logits
    return found


@torch.no_grad()
def checkpoint_logits(model: nn.Module,
                      cfg: Config,
                      scales: Optional[Sequence[float]] = None,
                      workers: int = 0,
                      batch_size: int = 32,
                      progress: Progress = _silent) -> UnseenLogits:
    """What one model says of the same images, if it was not trained on them.
    It may have any backbone.

    Args:
        model: A classifier that takes images, in eval mode.
        batch_size: Images that it sees at once.
        cfg: See :func:`cross_fit`.
        scales: See :func:`cross_fit`.
        workers: See :func:`cross_fit`.
        progress: See :func:`cross_fit`.
    """
    found = {'val': np.empty((0, model.head.num_classes))}
    pipelines = pipelines_of(cfg, scales)
    for split in ('train', 'val'):
        if not cfg.get(f'{split}_dataloader'):
            continue
        views = []
        for number, pipeline in enumerate(pipelines, 1):
            dataset = DATASETS.build(dict(
                resolve_dataset_config(cfg, split), pipeline=pipeline))
            count = len(dataset)
            logits = np.full((count, model.head.num_classes), np.nan)
            loader = DataLoader(
                Views(dataset, np.stack([np.arange(count),
                                         np.zeros(count, int)], 1), 0,
                      ['0'] * count),  # no augmentation needs a seed
                batch_size, num_workers=workers, collate_fn=list)
            for step, batch in enumerate(loader, 1):
                read = {image: inputs for image, _, inputs in batch
                        if inputs is not None}
                if read:
                    data = model.data_preprocessor(
                        dict(inputs=list(read.values())))
                    logits[list(read)] = model.head(model.extract_feat(
                        data['inputs'])).float().cpu().numpy()
                progress(f'Looking at {split}, view {number} of '
                         f'{len(pipelines)}', step, len(loader))
            views.append(logits)
        found[split] = np.mean(views, 0)
    return UnseenLogits(found['train'], found['val'])


def fill_views(cfg: Config,
               features: Union[str, Path],
               scales: Optional[Sequence[float]] = None,
               workers: int = 0,
               progress: Progress = _silent,
               splits: Sequence[str] = ('train', 'val')
               ) -> Dict[str, List[ImageFeatures]]:
    """Features of all views.

    Args:
        cfg: Its pipelines become that of the first view, in place.
        splits: Those that the config has are filled.
        features: See :func:`cross_fit`.
        scales: See :func:`cross_fit`.
        workers: See :func:`cross_fit`.
        progress: See :func:`cross_fit`.

    Returns:
        For each of these splits, the features of each view.
    """
    splits = [split for split in splits if cfg.get(f'{split}_dataloader')]
    tower = build_tower(cfg)
    pipelines = pipelines_of(cfg, scales)
    caches = {split: [] for split in splits}
    for view, pipeline in reversed(list(enumerate(pipelines))):
        for split in splits:
            resolve_dataset_config(cfg, split).pipeline = pipeline
        for split in splits:
            what = f'Features of {split}, view {view + 1} of {len(pipelines)}'
            filler = CacheFiller(cfg, split, view_folder(features, view), 1,
                                 tower=tower)
            filler.fill(workers=workers, progress=lambda done, total,
                        what=what: progress(what, done, total))
            caches[split].insert(0, ImageFeatures(
                FeatureCache(filler.folder), filler.files))
    return caches


def pipelines_of(cfg: Config, scales: Optional[Sequence[float]]
                 ) -> List[List[dict]]:
    """How a test of this config prepares images, a pipeline for each view."""
    split = next(s for s in ('val', 'test', 'train')
                 if cfg.get(f'{s}_dataloader'))
    pipeline = plain_types(resolve_dataset_config(cfg, split).pipeline)
    return [pipeline] if scales is None else view_pipelines(pipeline, scales)


def view_folder(features: Union[str, Path], view: int) -> str:
    return str(Path(features, f'view{view}'))


def view_logits(model: nn.Module, views: Sequence[ImageFeatures],
                rows: np.ndarray) -> Optional[np.ndarray]:
    """Mean logits over the views of some images, ``(len(rows), C)``; None
    without a view."""
    found = [cached_logits(model, cache, rows).numpy() for cache in views]
    return np.mean(found, 0) if found else None


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
    with silent_screen(), tempfile.TemporaryDirectory() as work_dir:
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
