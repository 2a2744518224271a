"""Use a feature cache: train and test from features instead of images."""
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from torch import nn

from trm_ml_mm.datasets.base import UnreadableImage
from trm_ml_mm.labels.image_names import image_name
from trm_ml_mm.registry import DATASETS, TRANSFORMS
from trm_ml_mm.utils.configs import (
    SPLITS,
    backend_args_of,
    nested_dicts,
    with_backend,
)

from .fill import (
    build_tower,
    cached_pipeline,
    cached_test_split,
    files_of,
    normalisation,
    resolve_dataset_config,
    tower_name,
)
from .storage import DONE, FeatureCache, ImageFile


def use_cache(cfg: Config,
              folder: Union[str, Path],
              splits: Sequence[str] = SPLITS) -> None:
    """Change a config in place, so that it runs on cached features.

    The pipeline of each split loads features, the backbone takes them instead
    of images, and nothing is normalised.

    Args:
        cfg: The run's config.
        folder: Of the caches of all splits.
        splits: The splits that are going to run.

    Raises:
        ValueError: If the features belong to another tower, pipeline or
            images, or are incomplete.
        FileNotFoundError: If a split has none.
    """
    tower = build_tower(cfg)
    own_normalisation = normalisation(cfg, tower)
    own = {split: cached_pipeline(cfg, split, True) for split in splits
           if cfg.get(f'{split}_dataloader') is not None}
    has_test = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    unaugmented = with_backend(
        cached_pipeline(cfg, 'train', False) if has_test else [], None)
    datasets = {split: resolve_dataset_config(cfg, split) for split in own}
    where = {split: cached_test_split(cfg) if split == 'test' else split
             for split in own}
    for split, options in datasets.items():
        cache = FeatureCache(Path(folder, where[split]))
        pipeline = with_backend(own[split], None)
        if split == 'train' and cache.meta.pipeline == unaugmented:
            pipeline = unaugmented
        # The first step knows where the images are.
        dataset = DATASETS.build(dict(options,
                                      pipeline=options.pipeline[:1]))
        dataset.full_init()
        cache.check(cache.meta._replace(
            tower=tower_name(tower), normalisation=own_normalisation,
            pipeline=pipeline))
        cache.check_complete(files_of(dataset))
    for split, options in datasets.items():
        options.pipeline = [
            dict(type='trm_ml_mm.LoadCachedFeatures',
                 cache=str(Path(folder, where[split])),
                 root=options.get('data_root') or '',
                 backend_args=backend_args_of(options.pipeline)),
            dict(type='PackInputs', input_key='features'),
        ]
    cfg.model.backbone.feature_grid = list(cache.meta.grid)
    cfg.data_preprocessor = dict(
        type='ClsDataPreprocessor', mean=None, std=None, to_rgb=False)
    cfg.model.pop('data_preprocessor', None)


def use_images(cfg: Config) -> None:
    """Undo :func:`use_cache` in a config, in place, as for pictures of a run
    that was trained on features. Does nothing if it uses none.

    Raises:
        FileNotFoundError: If the features are no longer there: what they say
            of the images is needed.
    """
    for split in SPLITS:
        for options in nested_dicts(cfg.get(f'{split}_dataloader')):
            first = next(iter(options.get('pipeline') or ()), {})
            if not first.get('type', '').endswith('LoadCachedFeatures'):
                continue
            meta = FeatureCache(first['cache']).meta
            options['pipeline'] = with_backend(
                meta.pipeline, first.get('backend_args'))
            cfg.data_preprocessor = meta.normalisation
            cfg.model.backbone.pop('feature_grid', None)


@TRANSFORMS.register_module()
class LoadCachedFeatures(BaseTransform):
    """Load an image's features from a cache, instead of the image.

    If there are several views, one is drawn at random.

    Required key: ``img_path``. Added key: ``features``, a ``(1 + L, D)``
    tensor.

    Args:
        cache: Folder of a :class:`~trm_ml_mm.features.FeatureCache`.
        root: ``data_root`` of the data set.
        backend_args: Where the data set finds its images; None: in files.

    Raises:
        UnreadableImage: If the image could not be decoded for the cache.
        ValueError: If the cache does not have the image.
    """

    def __init__(self, cache: str, root: str = '',
                 backend_args: Optional[dict] = None):
        self.folder, self.root = cache, root
        self.backend_args = backend_args
        self.cache = FeatureCache(cache)

    def __getstate__(self) -> dict:
        return dict(vars(self), cache=None)  # would copy all features

    def transform(self, results: dict) -> dict:
        if self.cache is None:
            self.cache = FeatureCache(self.folder)
        name = image_name(results['img_path'], self.root)
        if name not in self.cache.entries:
            raise ValueError(
                f'{self.folder} has no features of {name}: run '
                'tools/cache_features.py again, it computes what is missing.')
        part, row, *_ = self.cache.entries[name]
        view = np.random.randint(self.cache.meta.views)
        if self.cache.state[part][row, view] != DONE:
            raise UnreadableImage(
                f'Image {results["img_path"]} could not be decoded when '
                f'{self.folder} was made; repair it and make the cache again, '
                "or train with on_error='skip' on its data set.")
        results['features'] = torch.from_numpy(
            np.array(self.cache.features[part][row, view]))
        return results


class ImageFeatures:
    """The features of the images of a data set, in its order.

    Args:
        cache: Has all of them.
        files: The images.

    Raises:
        ValueError: If some are missing.
    """

    def __init__(self, cache: FeatureCache, files: Sequence[ImageFile]):
        cache.check_complete(files)
        self.cache = cache
        self.entries = cache.find(files)

    def __len__(self) -> int:
        return len(self.entries)

    def view(self, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """The first view of some images: features ``(len(rows), 1 + L, D)``
        fp32, and whether each could be decoded."""
        chosen = [self.entries[row] for row in rows]
        features = [self.cache.features[part][row, 0]
                    for part, row, *_ in chosen]
        return (np.array(features, np.float32),
                self.cache.states(chosen)[:, 0] == DONE)


@torch.no_grad()
def cached_logits(model: nn.Module, images: ImageFeatures, rows: np.ndarray,
                  batch_size: int = 256) -> torch.Tensor:
    """Logits of images from their cached features.

    Args:
        model: A classifier on a ``CLIPPromptBackbone`` whose tower the
            features come from, in eval mode.
        images: Their first view is taken.
        rows: Which of them.
        batch_size: Images that the model sees at once.

    Returns:
        ``(len(rows), C)`` fp32 on the CPU; NaN where an image could not be
        decoded for the cache.
    """
    device = next(model.parameters()).device
    backbone, found = model.backbone, []
    grid, backbone.feature_grid = backbone.feature_grid, images.cache.meta.grid
    try:
        for start in range(0, len(rows), batch_size):
            inputs, readable = images.view(rows[start:start + batch_size])
            feats = model.extract_feat(torch.from_numpy(inputs).to(device))
            logits = model.head(feats).float().cpu()
            logits[torch.from_numpy(~readable)] = float('nan')
            found.append(logits)
    finally:
        backbone.feature_grid = grid
    return torch.cat(found)
