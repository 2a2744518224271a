"""Run the frozen tower once over a data set; train from what it gave."""
from pathlib import Path
from typing import Callable, Iterator, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank, get_world_size
from torch.utils.data import DataLoader, Dataset

from trm_ml_mm.datasets.base import (
    MissingImage,
    UnreadableImage,
    apply_pipeline,
)
from trm_ml_mm.datasets.feature_cache import (
    DONE,
    TODO,
    UNREADABLE,
    CacheMeta,
    FeatureCache,
    fingerprint_files,
    image_keys,
)
from trm_ml_mm.models.backbones import CLIPPromptBackbone
from trm_ml_mm.registry import DATASETS, MODELS

from .hooks.epoch_seed import seed_everything


def innermost(cfg: Config, part: str) -> dict:
    """Config of the data set under all wrappers of one part."""
    dataset = cfg[f'{part}_dataloader'].dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'pipeline' not in dataset:
        raise ValueError(
            f'The {part} set is a {dataset.type} without a pipeline of its '
            'own: features can be kept of single data sets only.')
    return dataset


def plain(value):
    """A config's value in JSON's types."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def cached_pipeline(cfg: Config, part: str, augmented: bool) -> list:
    """Transforms that features are computed after: the part's own, or for
    training without augmentation those of validation."""
    part = part if augmented or part != 'train' else 'val'
    return plain(innermost(cfg, part).pipeline)


def build_tower(cfg: Config) -> CLIPPromptBackbone:
    """The config's frozen tower, without its text side.

    Raises:
        ValueError: If the backbone is learned: its features change.
    """
    options = dict(cfg.model.backbone, classes=None, prompt=None,
                   prompt_names=None, text_residual=0.)
    options.pop('feature_grid', None)
    tower = MODELS.build(options) if options['type'].endswith(
        CLIPPromptBackbone.__name__) else None
    if tower is None or not tower.frozen:
        raise ValueError('Features can be kept of a frozen CLIPPromptBackbone '
                         'only: another backbone is learned, and what it '
                         'gives changes.')
    return tower.eval()


def tower_name(tower: CLIPPromptBackbone) -> str:
    """What the features depend on: weights, and precision."""
    return f'{tower.fingerprint} {tower.tower_dtype}'


class Views(Dataset):
    """Views of a data set's images as inputs of the tower.

    A view depends on (seed, image, view) alone: not on rank, worker or
    interruptions.
    """

    def __init__(self, dataset, todo: np.ndarray, seed: int):
        self.dataset, self.todo, self.seed = dataset, todo, seed

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, index: int):
        image, view = self.todo[index].tolist()
        state = np.random.SeedSequence([self.seed, image, view])
        seed_everything(int(state.generate_state(1)[0]))
        info = self.dataset.get_data_info(image)
        try:
            sample = apply_pipeline(self.dataset.pipeline, info)
        except (UnreadableImage, MissingImage):
            if getattr(self.dataset, 'unreadable', 'stop') == 'stop':
                raise
            return image, view, None
        return image, view, sample['inputs']


class CacheFiller:
    """Fills the cache of one part of a config.

    Args:
        cfg: The run's config.
        part: 'train', 'val' or 'test'.
        out: Folder of all parts' caches.
        views: Augmented views of each training image; 0: the plain view that
            validation sees. Other parts always have the plain one.
        dtype: 'float16' or 'float32'.
        seed: Draws the augmentation.
        tower: Of :func:`build_tower`, to be shared by all parts; None: built.

    Raises:
        ValueError: If ``out`` has features of another setting.
        OSError: If the disk has no room for them, or no image can be read.
    """

    def __init__(self, cfg: Config, part: str, out: Union[str, Path],
                 views: int = 0, dtype: str = 'float16', seed: int = 0,
                 tower: Optional[CLIPPromptBackbone] = None):
        self.tower = build_tower(cfg) if tower is None else tower
        self.device = torch.device(
            'cuda' if torch.cuda.is_available() else 'cpu')
        self.preprocess = MODELS.build(dict(
            cfg.get('data_preprocessor') or cfg.model.data_preprocessor,
            type='ClsDataPreprocessor'))
        for module in (self.tower, self.preprocess):
            module.to(self.device)
        augmented = part == 'train' and views > 0
        pipeline = cached_pipeline(cfg, part, augmented)
        options = dict(innermost(cfg, part), pipeline=pipeline)
        self.dataset = DATASETS.build(options)
        self.seed = seed
        dense, _ = self.encode([self.first_readable()])
        meta = CacheMeta(
            tower=tower_name(self.tower),
            pipeline=pipeline,
            files=files_of(self.dataset),
            views=max(views, 1) if part == 'train' else 1,
            grid=tuple(dense.shape[-2:]),
            dim=dense.shape[1],
            dtype=dtype)
        self.folder = Path(out, part)
        self.meta = meta
        self.bytes = int(np.prod(meta.shape(len(self.dataset)))) * np.dtype(
            dtype).itemsize

    def first_readable(self) -> torch.Tensor:
        """Of the images, as an input of the tower."""
        plain = np.stack([np.arange(len(self.dataset)),
                          np.zeros(len(self.dataset), int)], 1)
        for _, _, inputs in Views(self.dataset, plain, self.seed):
            if inputs is not None:
                return inputs
        raise OSError('No image of this part can be read, so there is nothing '
                      'to compute features from.')

    def open(self) -> FeatureCache:
        """Create the cache, or take up one of the same setting."""
        if get_rank() == 0:
            if (self.folder / 'meta.json').is_file():
                FeatureCache(self.folder).check(self.meta)
            else:
                FeatureCache.create(self.folder, self.meta, len(self.dataset))
        barrier()
        return FeatureCache(self.folder, write=True)

    @torch.no_grad()
    def encode(self, inputs: list) -> Tuple[torch.Tensor, torch.Tensor]:
        """Dense map and global embedding of a list of images."""
        data = self.preprocess(dict(inputs=inputs))
        return self.tower.encode_image(data['inputs'], pooled=True)

    def fill(self, batch_size: int = 32, workers: int = 2,
             progress: Optional[Callable[[int, int], None]] = None) -> None:
        """Compute what is missing, this rank's share of it.

        Args:
            batch_size, workers: Of the loader.
            progress: Called with (views done, views to do) after a batch.
        """
        cache = self.open()
        todo = np.argwhere(np.asarray(cache.state) == TODO)
        barrier()  # all ranks have looked before any writes
        todo = todo[get_rank()::get_world_size()]
        loader = DataLoader(
            Views(self.dataset, todo, self.seed), batch_size,
            num_workers=workers, collate_fn=list)
        done = 0
        for batch in loader:
            whole = [item for item in batch if item[2] is not None]
            if whole:
                dense, pooled = self.encode([item[2] for item in whole])
                rows = torch.cat([pooled[:, None],
                                  dense.flatten(2).transpose(1, 2)], 1)
                rows = rows.float().cpu().numpy()
                for (image, view, _), row in zip(whole, rows):
                    cache.features[image, view] = row
            for image, view, inputs in batch:
                cache.state[image, view] = (
                    UNREADABLE if inputs is None else DONE)
            done += len(batch)
            if progress is not None:
                progress(done, len(todo))
        cache.features.flush()
        cache.state.flush()
        barrier()


def files_of(dataset) -> str:
    """Fingerprint of a data set's images, wherever its folder lies."""
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    return fingerprint_files(
        image_keys(paths, getattr(dataset, 'data_root', '') or ''))


def parts_to_cache(cfg: Config) -> Iterator[str]:
    """Parts of a config; the test set, where it is not the validation set."""
    for part in ('train', 'val', 'test'):
        if cfg.get(f'{part}_dataloader') is None:
            continue
        if part != 'test' or _test_part(cfg) == 'test':
            yield part


def _test_part(cfg: Config) -> str:
    val = cfg.get('val_dataloader') or {}
    return 'val' if val.get('dataset') == cfg.test_dataloader.dataset else (
        'test')


def use_cache(cfg: Config,
              folder: Union[str, Path],
              parts: Sequence[str] = ('train', 'val', 'test')) -> None:
    """Change a config in place, so that it runs on cached features.

    Every part's pipeline becomes one that loads features, the backbone takes
    them for images, and normalisation is left out.

    Args:
        cfg: The run's config.
        folder: Of all parts' caches.
        parts: What is going to run.

    Raises:
        ValueError: If the features are of another tower, pipeline or images,
            or not complete.
        FileNotFoundError: If a part has none.
    """
    tower = tower_name(build_tower(cfg))
    own = {part: cached_pipeline(cfg, part, True)
           for part in parts if cfg.get(f'{part}_dataloader') is not None}
    unaugmented = cached_pipeline(cfg, 'train', False) if 'val' in own else []
    datasets = {part: innermost(cfg, part) for part in own}
    where = {part: _test_part(cfg) if part == 'test' else part for part in own}
    for part, options in datasets.items():
        cache = FeatureCache(Path(folder, where[part]))
        pipeline = own[part]
        if part == 'train' and cache.meta.pipeline == unaugmented:
            pipeline = unaugmented
        dataset = DATASETS.build(dict(options, pipeline=[]))
        dataset.full_init()
        cache.check(cache.meta._replace(
            tower=tower, pipeline=pipeline, files=files_of(dataset)))
        cache.check_complete()
    for part, options in datasets.items():
        options.pipeline = [
            dict(type='trm_ml_mm.LoadCachedFeatures',
                 cache=str(Path(folder, where[part]))),
            dict(type='PackInputs', input_key='features'),
        ]
    cfg.model.backbone.feature_grid = list(cache.meta.grid)
    cfg.data_preprocessor = dict(
        type='ClsDataPreprocessor', mean=None, std=None, to_rgb=False)
    cfg.model.pop('data_preprocessor', None)
