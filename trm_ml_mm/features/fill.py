"""Fill a feature cache: run the frozen tower once over a data set."""
from pathlib import Path
from typing import (
    Callable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from filelock import FileLock
from mmengine.config import Config
from mmengine.dist import (
    barrier,
    broadcast_object_list,
    get_rank,
    get_world_size,
)
from torch.utils.data import DataLoader, Dataset

from trm_ml_mm.datasets.base import (
    MissingImage,
    UnreadableImage,
    apply_pipeline,
    backend_of,
)
from trm_ml_mm.models import CLIPPromptBackbone
from trm_ml_mm.models.towers import pack_rows
from trm_ml_mm.registry import DATASETS, MODELS
from trm_ml_mm.utils.checks import check_positive
from trm_ml_mm.utils.configs import (
    SPLITS,
    plain_types,
    tests_on_validation,
    with_backend,
    wrapped_datasets,
)
from trm_ml_mm.utils.seeding import mix_seed, seed_everything

from .storage import (
    DONE,
    PART_GB,
    TODO,
    UNREADABLE,
    CacheMeta,
    Entry,
    FeatureCache,
    ImageFile,
    Update,
    image_files,
)


def resolve_dataset_config(cfg: Config, split: str) -> dict:
    """Config of the data set under all wrappers of one split.

    Raises:
        ValueError: If it is not a single data set with its own pipeline, or a
            wrapper prepares images in another way.
    """
    if not cfg.get(f'{split}_dataloader'):
        raise ValueError(f'The config has no {split}_dataloader, which the '
                         'feature cache needs.')
    *wrappers, dataset = wrapped_datasets(cfg, split)
    for outer in wrappers:
        if outer.get('pipeline') is not None:
            raise ValueError(
                f'The {split} set has a pipeline in {outer.type} too: give '
                'the pipeline to the innermost data set, whose features are '
                'cached.')
    if 'pipeline' not in dataset:
        raise ValueError(
            f'The {split} set is a {dataset.type} without a pipeline of its '
            'own: features can be cached for single data sets only.')
    return dataset


def cached_pipeline(cfg: Config, split: str, augmented: bool) -> list:
    """The transforms before the tower: those of the split; for training
    without augmentation, those of validation (without one, of the test).

    Raises:
        ValueError: If they cut out boxes; see also
            :func:`resolve_dataset_config`.
    """
    if split == 'train' and not augmented:
        split = 'val' if cfg.get('val_dataloader') else 'test'
    steps = plain_types(resolve_dataset_config(cfg, split).pipeline)
    if any(step['type'].endswith('CropBox') for step in steps):
        raise ValueError(
            f'The {split} set has boxes of images (CropBox), and a feature '
            'cache knows whole images, one by the path of each: train without '
            'feature_cache.')
    return steps


def build_tower(cfg: Config) -> CLIPPromptBackbone:
    """The config's frozen tower, without its text side.

    Raises:
        ValueError: If the backbone is learned, so that its features change.
    """
    options = dict(cfg.model.backbone, classes=None, prompt=None,
                   prompt_names=None, text_residual=0.)
    options.pop('feature_grid', None)
    tower = MODELS.build(options) if options['type'].endswith(
        CLIPPromptBackbone.__name__) else None
    if tower is None or not tower.frozen:
        raise ValueError('Features can be cached for a frozen '
                         'CLIPPromptBackbone only: any other backbone is '
                         'learned, and its features change.')
    return tower.eval()


def normalisation(cfg: Config, tower: CLIPPromptBackbone) -> dict:
    """How images are normalised: the config's options, else the tower's."""
    options = (cfg.model.get('data_preprocessor')
               or cfg.get('data_preprocessor') or {})
    return plain_types(dict(
        dict(mean=tower.mean, std=tower.std, to_rgb=True), **options,
        type='ClsDataPreprocessor'))


def tower_name(tower: CLIPPromptBackbone) -> str:
    """What features depend on: the weights, the precision, and the kind of
    dense map, unless that is the family's default."""
    return ' '.join(filter(None, (tower.fingerprint, str(tower.tower_dtype),
                                  tower.image_tower.variant)))


class Views(Dataset):
    """Views of a data set's images, as inputs of the tower.

    A view depends on (seed, content of the image, view) only: not on its
    position in the data set, on rank, worker or interruptions.

    Args:
        dataset: The data set.
        todo: ``(T, 2)`` numbers of an image and of a view.
        seed: Draws the augmentation.
        digests: Of the content of each image of the data set.
    """

    def __init__(self, dataset, todo: np.ndarray, seed: int,
                 digests: Sequence[str]):
        self.dataset, self.todo, self.seed = dataset, todo, seed
        self.digests = digests

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, index: int):
        image, view = self.todo[index].tolist()
        seed_everything(mix_seed(self.seed, int(self.digests[image][:8], 16),
                                 view))
        info = self.dataset.get_data_info(image)
        try:
            sample = apply_pipeline(self.dataset.pipeline, info)
        except (UnreadableImage, MissingImage):
            if getattr(self.dataset, 'on_error', 'raise') == 'raise':
                raise
            return image, view, None
        return image, view, sample['inputs']


class CacheFiller:
    """Fills the cache of one split.

    Args:
        cfg: The run's config.
        split: 'train', 'val' or 'test'.
        out: Folder of the caches of all splits.
        views: Augmented views per training image. 0: one view without
            augmentation, as validation sees it. Other splits always have one
            view without augmentation.
        dtype: 'float16' or 'float32'.
        seed: Draws the augmentation.
        tower: Result of :func:`build_tower`, to share it between splits; None:
            build it.
        part_gb: Most gigabytes of a part of the cache: what one machine fills
            at a time.

    Raises:
        ValueError: If ``out`` has features of other settings, or the size of
            a part is not positive.
        OSError: If the disk has too little room, or no image can be read.
    """

    def __init__(self, cfg: Config, split: str, out: Union[str, Path],
                 views: int = 0, dtype: str = 'float16', seed: int = 0,
                 tower: Optional[CLIPPromptBackbone] = None,
                 part_gb: float = PART_GB):
        check_positive(part_gb=part_gb)
        self.part_gb = part_gb
        self.tower = build_tower(cfg) if tower is None else tower
        self.device = torch.device(
            'cuda' if torch.cuda.is_available() else 'cpu')
        self.preprocess = MODELS.build(normalisation(cfg, self.tower))
        for module in (self.tower, self.preprocess):
            module.to(self.device)
        augmented = split == 'train' and views > 0
        pipeline = cached_pipeline(cfg, split, augmented)
        options = dict(resolve_dataset_config(cfg, split), pipeline=pipeline)
        self.dataset = DATASETS.build(options)
        self.seed = seed
        self.root = getattr(self.dataset, 'data_root', '') or ''
        self.files = files_of(self.dataset)
        dense, _ = self.encode([self.first_readable()])
        self.folder = Path(out, split)
        self.meta = CacheMeta(
            tower=tower_name(self.tower),
            normalisation=normalisation(cfg, self.tower),
            pipeline=with_backend(pipeline, None),
            views=max(views, 1) if split == 'train' else 1,
            grid=tuple(dense.shape[-2:]),
            dim=dense.shape[1],
            dtype=dtype)
        self.bytes = self.meta.bytes(len(self.dataset))

    def first_readable(self) -> torch.Tensor:
        """The first readable image, as an input of the tower."""
        count = len(self.dataset)
        first_views = np.stack([np.arange(count), np.zeros(count, int)], 1)
        for _, _, inputs in Views(self.dataset, first_views, self.seed,
                                  ['0'] * count):
            if inputs is not None:
                return inputs
        raise OSError('No image of this split can be read, so there is '
                      'nothing to compute features from.')

    def open(self) -> Update:
        """Create the cache, or continue one with the same settings; make room
        for all images that it does not have yet. On all ranks together.

        Returns:
            On the main rank, what changed.
        """
        changed = Update(0, 0)
        if get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / '.lock'):  # of another machine
                if (self.folder / 'meta.json').is_file():
                    cache = FeatureCache(self.folder, write=True)
                    cache.check(self.meta)
                else:
                    cache = FeatureCache.create(self.folder, self.meta)
            changed = cache.update(self.files, self.root,
                                   backend_of(self.dataset.pipeline).exists,
                                   self.part_gb)
        barrier()
        return changed

    @torch.no_grad()
    def encode(self, inputs: list) -> Tuple[torch.Tensor, torch.Tensor]:
        """Dense map and image embedding of a list of images."""
        data = self.preprocess(dict(inputs=inputs))
        return self.tower.encode_image(data['inputs'], pooled=True)

    def fill(self, batch_size: int = 32, workers: int = 2,
             progress: Optional[Callable[[int, int], None]] = None) -> int:
        """Compute the missing views, one part of the cache after the other.

        The ranks of this run share the views of a part. Parts that other runs
        fill at the moment, as on other machines, are left to them.

        Args:
            batch_size: Of the loader.
            workers: Of the loader.
            progress: Called with (views done, views to do) after a batch: of
                this rank.

        Returns:
            How many parts other runs are filling.
        """
        self.open()
        cache = FeatureCache(self.folder, write=True)
        entries = [cache.entries[file.name] for file in self.files]
        parts = np.array([entry.part for entry in entries])
        todo = np.argwhere(cache.states(entries) == TODO)
        unfilled = np.unique(parts[todo[:, 0]])
        done, elsewhere = 0, 0
        total = sum(len(_own(todo[parts[todo[:, 0]] == part]))
                    for part in unfilled)
        for part in unfilled:
            lock = cache.claim(part) if get_rank() == 0 else None
            claimed = [lock is not None]
            broadcast_object_list(claimed)
            if not claimed[0]:
                elsewhere += 1
                continue
            try:
                cache.reopen(part)  # another run may have filled it by now
                rows = np.flatnonzero(parts == part)
                todo = np.argwhere(cache.states(
                    [entries[row] for row in rows]) == TODO)
                todo[:, 0] = rows[todo[:, 0]]
                barrier()  # every rank has read the state before one writes
                for count in self._fill_part(cache, entries, _own(todo),
                                             batch_size, workers):
                    done += count
                    if progress is not None:
                        progress(done, total)
                cache.flush()
                barrier()
            finally:
                if lock is not None:
                    lock.release()
        return elsewhere

    def _fill_part(self, cache: FeatureCache, entries: Sequence[Entry],
                   todo: np.ndarray, batch_size: int, workers: int
                   ) -> Iterator[int]:
        """Compute views; yields the number of views of each batch."""
        loader = DataLoader(
            Views(self.dataset, todo, self.seed,
                  [entry.digest for entry in entries]),
            batch_size, num_workers=workers, collate_fn=list)
        for batch in loader:
            readable = [item for item in batch if item[2] is not None]
            if readable:
                rows = pack_rows(*self.encode([item[2] for item in readable]))
                rows = rows.float().cpu().numpy()
                for (image, view, _), row in zip(readable, rows):
                    entry = entries[image]
                    cache.features[entry.part][entry.row, view] = row
            for image, view, inputs in batch:
                entry = entries[image]
                cache.state[entry.part][entry.row, view] = (
                    UNREADABLE if inputs is None else DONE)
            yield len(batch)


def _own(todo: np.ndarray) -> np.ndarray:
    """This rank's rows."""
    return todo[get_rank()::get_world_size()]


def files_of(dataset) -> List[ImageFile]:
    """The images of a data set, wherever its folder is."""
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    return image_files(paths, getattr(dataset, 'data_root', '') or '',
                       backend_of(dataset.pipeline))


def splits_to_cache(cfg: Config) -> Iterator[str]:
    """The splits of a config; without 'test' if it equals 'val'."""
    for split in SPLITS:
        if cfg.get(f'{split}_dataloader') is None:
            continue
        if split != 'test' or cached_test_split(cfg) == 'test':
            yield split


def cached_test_split(cfg: Config) -> str:
    """Whose cache the test set uses: its own, or that of 'val' if both are the
    same data set."""
    return 'val' if tests_on_validation(cfg) else 'test'
