"""Short names for what people change most, carried to every entry they affect.

A config may say ``epochs = 20`` at its top level, and a command
``--cfg-options epochs=20``. The functions below change all entries that depend
on it. An entry that an option names in full is applied later, so it wins.
"""
import os
from importlib.util import find_spec
from numbers import Integral, Real
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Union,
)

from mmengine.config import Config

from trm_ml_mm.models.towers import joint_width
from trm_ml_mm.utils.checks import check_positive
from trm_ml_mm.utils.configs import (
    SPLITS,
    backend_args_of,
    nested_dicts,
    with_backend,
    wrapped_datasets,
)

# Entries of schedulers that count epochs.
_EPOCH_KEYS = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'periods',
               'total_steps')
# Entries that hold the side of an image, in transforms, data sets, backbones.
_SIZE_KEYS = ('scale', 'crop_size', 'size', 'image_size', 'img_size')


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train for this many epochs. The learning rate schedule keeps its shape:
    warm-up and decay are stretched with it. In a longer training the rate falls
    by the same ratio: more passes over the same few labels would only fit them
    more closely (docs/method.md, "Longer training").

    Raises:
        ValueError: If it is no positive integer, or training is not counted
            in epochs.
    """
    if not isinstance(epochs, Integral) or epochs < 1:
        raise ValueError('epochs must be a positive integer, got '
                         f'{epochs!r}.')
    train = cfg.get('train_cfg') or {}
    if 'max_epochs' not in train:
        raise ValueError('epochs needs a training that is counted in epochs, '
                         'and train_cfg has no max_epochs: set '
                         'train_cfg.max_iters.')
    ratio = epochs / train.max_epochs
    train.max_epochs = epochs
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if ratio > 1 and optimizer.get('lr'):
        optimizer.lr /= ratio
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in ([schedulers] if isinstance(schedulers, dict) else
                      schedulers):
        if not scheduler.get('by_epoch', True):
            continue
        # Only schedulers counted in iterations take parts of an epoch.
        parts = scheduler.get('convert_to_iter_based')
        for key in _EPOCH_KEYS:
            value = scheduler.get(key)
            if isinstance(value, (list, tuple)):
                scheduler[key] = [_stretched(v, ratio, parts) for v in value]
            elif value:
                scheduler[key] = _stretched(value, ratio, parts)


def _stretched(value: float, ratio: float, parts: bool) -> float:
    """A number of epochs times the ratio; whole unless parts are allowed."""
    value = value * ratio
    return value if parts and value != int(value) else max(1, round(value))


def set_lr(cfg: Config, lr: float) -> None:
    """Set the learning rate at the end of the warm-up.

    Raises:
        ValueError: If it is no positive number, or there is no optimiser.
    """
    if not isinstance(lr, Real) or isinstance(lr, bool) or not lr > 0:
        raise ValueError(f'lr must be a positive number, got {lr!r}.')
    if 'optimizer' not in (cfg.get('optim_wrapper') or {}):
        raise ValueError('lr needs optim_wrapper.optimizer, which this config '
                         'does not have.')
    cfg.optim_wrapper.optimizer.lr = lr


def set_image_size(cfg: Config, size: int) -> None:
    """Set the input side in pixels, in all pipelines and in the backbone.

    Raises:
        ValueError: If it is no positive integer, or the config does not tell
            its present size.
    """
    if not isinstance(size, Integral) or size < 1:
        raise ValueError('image_size must be a positive integer (pixels), got '
                         f'{size!r}.')
    backbone = cfg.model.backbone
    parts = [cfg.model, *(cfg.get(f'{split}_dataloader') or {}
                           for split in SPLITS)]
    old = pipeline_size(cfg) or backbone.get('image_size') or backbone.get(
        'img_size')
    if has_prompts(backbone):
        old = old or size  # without a pipeline, the tower alone changes
        backbone.pop('image_size', None)  # set below, and not scaled
    if old is None:
        raise ValueError('image_size does not know the present size of this '
                         'config: set the sizes in its pipelines instead.')
    for part in parts:
        for options in nested_dicts(part):
            for key in _SIZE_KEYS:
                value = options.get(key)
                if isinstance(value, Integral) and value >= old:
                    # Larger ones, such as before a crop, keep their ratio.
                    options[key] = round(value * size / old)
                elif isinstance(value, (tuple, list)) and list(value) == [
                        old, old]:
                    options[key] = (size, size)
    if has_prompts(backbone):
        backbone.image_size = size


def pipeline_size(cfg: Config) -> Optional[int]:
    """Side in pixels of the images that a test pipeline gives: what its last
    step with a size says, or, without one, the data set that draws them. None:
    neither says."""
    for split in reversed(SPLITS):
        loader = cfg.get(f'{split}_dataloader') or {}
        sizes = [options[key] for options in nested_dicts(loader.get('dataset'))
                 for key in _SIZE_KEYS if options.get(key)]
        sides = [value[0] if isinstance(value, (list, tuple)) else value
                 for value in sizes]
        whole = [side for side in sides if isinstance(side, Integral)]
        if whole:
            return whole[-1]
    return None


def has_prompts(backbone: dict) -> bool:
    """Whether it is the backbone of both towers."""
    return str(backbone.get('type')).endswith('CLIPPromptBackbone')


def set_arch(cfg: Config, arch: str) -> None:
    """Set the CLIP architecture. The joint width follows; so do mean and std,
    which belong to the tower, and what is left to it: weights and image size
    (:func:`~trm_ml_mm.engine.config.fill_tower`).

    Raises:
        ValueError: If open_clip does not know it, or there is no CLIP.
    """
    width = joint_width(arch)
    backbone, head = cfg.model.backbone, cfg.model.head
    if has_prompts(backbone):
        backbone.arch = arch
        if head.get('dim'):
            head.dim = width
    elif head.get('text'):  # another backbone: the head has the text tower
        head.text.arch = arch
    else:
        raise ValueError('arch sets the architecture of CLIP, and this config '
                         'has none: set model.backbone.')


def set_data_root(cfg: Config, root: str) -> None:
    """Move every data set to another folder, with the folders inside it.

    Raises:
        ValueError: If the data sets share no folder.
    """
    found = _with_data_root(cfg)
    roots = [options['data_root'] for options in found]
    old = _shared_folder(cfg.get('data_root'), roots)
    for options in found:
        if _is_inside(options['data_root'], old):
            inner = os.path.relpath(options['data_root'], old)
            options['data_root'] = os.path.join(
                root, '' if inner == '.' else inner)
    cfg.data_root = root


def _with_data_root(cfg: Config) -> List[dict]:
    """Configs of all data sets that have a ``data_root``."""
    return [options for split in SPLITS for options in nested_dicts(
        cfg.get(f'{split}_dataloader') or {}) if options.get('data_root')]


def _is_inside(path: str, folder: str) -> bool:
    return not os.path.relpath(path, folder).startswith('..')


def _shared_folder(named: Optional[str], roots: List[str]) -> str:
    """The folder that ``data_root`` stands for: the one that the config names,
    if a data set lies in it; else the one that all data sets share."""
    if named and any(_is_inside(root, named) for root in roots):
        return named
    if roots and len({os.path.isabs(root) for root in roots}) == 1:
        shared = os.path.commonpath(roots)
        if shared:
            return shared
    raise ValueError(
        'data_root moves the folder that all data sets share, and there is '
        f'none ({", ".join(sorted(set(roots))) or "no data set has one"}): '
        'set data_root of each data set.')


def set_scene_set(cfg: Config, scene_set: int) -> None:
    """Use another scene set of the built-in scenes, classes included.

    Raises:
        ValueError: If it is no integer of at least 0, or a split is not a
            built-in set.
    """
    if not isinstance(scene_set, Integral) or scene_set < 0:
        raise ValueError('scene_set must be an integer of at least 0, got '
                         f'{scene_set!r}.')
    for split in SPLITS:
        if not cfg.get(f'{split}_dataloader'):
            continue
        *_, dataset = wrapped_datasets(cfg, split)
        if not dataset.type.endswith('Scenes'):
            raise ValueError('scene_set chooses a set of the built-in scenes, '
                             f'and the {split} set is a {dataset.type}.')
        dataset.scene_set = scene_set
    for options in nested_dicts(cfg.model):
        if str(options.get('classes', '')).startswith('scenes'):
            options['classes'] = f'scenes:{scene_set}'


def set_workers(cfg: Config, workers: Union[int, str]) -> None:
    """Set the number of processes that load images, in all loaders.

    Args:
        cfg: Changed in place.
        workers: A number; or 'fit': half of the CPU cores that this process
            may use, at least 1 and at most 4.

    Raises:
        ValueError: If it is neither.
    """
    if workers == 'fit':
        cores = len(os.sched_getaffinity(0)) if hasattr(
            os, 'sched_getaffinity') else os.cpu_count() or 1
        workers = min(max(cores // 2, 1), 4)
    if not isinstance(workers, Integral) or isinstance(workers, bool) or (
            workers < 0):
        raise ValueError("workers must be an integer of at least 0, or 'fit', "
                         f'got {workers!r}.')
    for split in SPLITS:
        if cfg.get(f'{split}_dataloader'):
            cfg[f'{split}_dataloader'].num_workers = workers


def set_image_folder(cfg: Config, folder: str) -> None:
    """Take the images of all CSV files from this folder, relative to the
    current one; the files themselves stay in ``data_root``.

    Raises:
        ValueError: If no data set is a CSV file.
    """
    for options in _csv_sets(cfg, 'image_folder'):
        options['data_prefix'] = os.path.abspath(folder)


def set_image_column(cfg: Config, column: str) -> None:
    """Set the column of image paths of all CSV files.

    Raises:
        ValueError: If no data set is a CSV file.
    """
    for options in _csv_sets(cfg, 'image_column'):
        options['image_column'] = column


def set_ignore_columns(cfg: Config, columns: Union[str, Sequence[str]]
                       ) -> None:
    """Set the columns of all CSV files that are no labels: one or several.

    Raises:
        ValueError: If no data set is a CSV file.
    """
    columns = [columns] if isinstance(columns, str) else list(columns)
    for options in _csv_sets(cfg, 'ignore_columns'):
        options['ignore_columns'] = columns


def _csv_sets(cfg: Config, option: str) -> List[dict]:
    found = [options for split in SPLITS for options in nested_dicts(
        cfg.get(f'{split}_dataloader') or {})
        if str(options.get('type')).endswith('CSVMultiLabel')]
    if not found:
        raise ValueError(f'{option} is an option of CSV files, and this '
                         'config has no CSVMultiLabel.')
    return found


def set_early_stopping(cfg: Config, patience: int) -> None:
    """Stop the training after so many validations in a row without a better
    mAP.

    Raises:
        ValueError: If it is no positive integer, or nothing is validated.
    """
    if not isinstance(patience, Integral) or isinstance(patience, bool) or (
            patience < 1):
        raise ValueError('early_stopping is a positive number of validations '
                         f'without a better mAP, got {patience!r}.')
    if not cfg.get('val_dataloader'):
        raise ValueError('early_stopping needs validations, and this config '
                         'has no val_dataloader.')
    cfg.setdefault('default_hooks', {})['early_stopping'] = dict(
        type='EarlyStoppingHook', monitor='multi-label/mAP', rule='greater',
        min_delta=.01, patience=patience)  # percent


def set_tensorboard(cfg: Config, wanted: bool) -> None:
    """Write what is logged for TensorBoard too.

    Raises:
        ValueError: If it is neither True nor False.
        ImportError: If TensorBoard is not installed.
    """
    if not isinstance(wanted, bool):
        raise ValueError(f'tensorboard is True or False, got {wanted!r}.')
    backend = dict(type='TensorboardVisBackend')
    visualizer = cfg.setdefault('visualizer', dict(
        type='UniversalVisualizer', vis_backends=[]))
    others = [entry for entry in visualizer.get('vis_backends') or []
              if entry != backend]
    visualizer['vis_backends'] = [*others, *([backend] if wanted else [])]
    if wanted and find_spec('tensorboard') is None:
        raise ImportError('tensorboard=True needs the package tensorboard: '
                          'pip install tensorboard.')


def set_watch(cfg: Config, images: int) -> None:
    """Draw a few training images after each epoch (``WatchHook``).

    Raises:
        ValueError: If it is no positive integer.
    """
    if not isinstance(images, Integral) or isinstance(images, bool) or (
            images < 1):
        raise ValueError('watch is a positive number of training images, got '
                         f'{images!r}.')
    hook = dict(type='trm_ml_mm.WatchHook', images=images)
    cfg.custom_hooks = [*(entry for entry in cfg.get('custom_hooks') or ()
                          if entry['type'] != hook['type']), hook]


def set_balance_classes(cfg: Config, threshold: float) -> None:
    """Repeat training images of rare classes (MMEngine's
    ``ClassBalancedDataset``, around the masked set).

    Args:
        cfg: Changed in place.
        threshold: A class that is known to be present in a smaller ratio f of
            the images is rare: an image of it comes ``sqrt(threshold / f)``
            times per epoch, rounded up.

    Raises:
        ValueError: If it is not in (0, 1], or there is no training set.
    """
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or (
            not 0 < threshold <= 1):
        raise ValueError('balance_classes is a ratio of images in (0, 1], got '
                         f'{threshold!r}.')
    loader = cfg.get('train_dataloader')
    if not loader:
        raise ValueError('balance_classes needs a training set, and this '
                         'config has no train_dataloader.')
    dataset = loader.dataset
    if str(dataset.type).endswith('ClassBalancedDataset'):
        dataset.oversample_thr = threshold
    else:
        loader.dataset = dict(type='ClassBalancedDataset', dataset=dataset,
                              oversample_thr=threshold)


def set_shards(cfg: Config, shards: Union[str, dict, None]) -> None:
    """Read the images of all data sets from shards instead of image files.

    Args:
        cfg: Changed in place.
        shards: Their folder; or a dict of ``folder`` and, for local copies,
            ``cache`` and ``cache_gb``, as
            :class:`~trm_ml_mm.datasets.shards.ShardBackend` takes them. None:
            read from image files again.

    Raises:
        ValueError: If it is none of these, or no data set loads image files.
    """
    options = dict(folder=shards) if isinstance(shards, str) else shards
    if options is not None and not (
            isinstance(options, dict) and 'folder' in options
            and options.keys() <= {'folder', 'cache', 'cache_gb'}):
        raise ValueError('shards is a folder, or dict(folder=..., cache=..., '
                         f'cache_gb=...), got {shards!r}.')
    if options and options.get('cache_gb') is not None:
        check_positive(cache_gb=options['cache_gb'])
    loads = False
    for owner, key, data in _image_pipelines(cfg):
        backend = options and dict(
            backend='trm_ml_mm.shards', root=data.get('data_root') or '',
            **dict(options, folder=os.path.abspath(options['folder'])))
        owner[key] = with_backend(owner[key], backend)
        loads = loads or backend_args_of(owner[key]) == backend
    if options and not loads:
        raise ValueError('shards hold image files, and no data set of this '
                         'config loads any: leave it out.')


def _image_pipelines(cfg: Config) -> Iterator[tuple]:
    """(Where it stands, its key there, the data set it belongs to) of all
    pipelines."""
    for split in SPLITS:
        for options in nested_dicts(cfg.get(f'{split}_dataloader') or {}):
            if options.get('pipeline'):
                data = next((inner for inner in nested_dicts(options)
                             if inner.get('data_root')), options)
                yield options, 'pipeline', data
                if split == 'test' and cfg.get('tta_pipeline'):
                    yield cfg, 'tta_pipeline', data


SHORTHANDS: Dict[str, Callable] = dict(
    arch=set_arch,
    data_root=set_data_root,
    early_stopping=set_early_stopping,
    epochs=set_epochs,
    ignore_columns=set_ignore_columns,
    image_column=set_image_column,
    image_folder=set_image_folder,
    image_size=set_image_size,
    lr=set_lr,
    scene_set=set_scene_set,
    shards=set_shards,
    tensorboard=set_tensorboard,
    watch=set_watch,
    workers=set_workers,
    balance_classes=set_balance_classes)
# They move entries that other options may name, so they come after these.
LATE = ('balance_classes', 'shards')


def apply_shorthands(cfg: Config, options: dict) -> None:
    """Apply the shorthands at the top level of a config, then those among
    ``options``, but for :data:`LATE`; change ``cfg`` in place."""
    named = {key: cfg[key] for key in SHORTHANDS
             if key in cfg and key not in options}
    root = named.pop('data_root', None)
    if root is not None and not any(
            _is_inside(d['data_root'], root) for d in _with_data_root(cfg)):
        set_data_root(cfg, root)  # a config that only overrides data_root
    values = {**named, **options}
    for key in SHORTHANDS:  # lr after epochs, so that it says what it is
        if key in values and key not in LATE:
            SHORTHANDS[key](cfg, values[key])


def apply_late_shorthands(cfg: Config, options: dict) -> None:
    """Apply those of :data:`LATE`, when all options are in the config."""
    for key in LATE:
        value = options.get(key, cfg.get(key))
        if value is not None:
            SHORTHANDS[key](cfg, value)
