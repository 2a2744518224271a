"""From a config file and options to the config of a run."""
import inspect
import os
from contextlib import suppress
from typing import List, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope

from trm_ml_mm.labels import class_names
from trm_ml_mm.models.towers import built_size, default_weights
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.configs import SPLITS, nested_dicts, wrapped_datasets
from trm_ml_mm.utils.package import package_configs

from .options import check_options, check_values
from .shorthands import (
    SHORTHANDS,
    apply_late_shorthands,
    apply_shorthands,
    has_prompts,
    pipeline_size,
    set_image_size,
)

WORK_DIRS = 'work_dirs'


def load_config(config: Union[str, Config],
                options: Optional[dict] = None) -> Config:
    """A config with options.

    Args:
        config: Config file, of text or pure Python; the name of a config of
            the package, such as ``'trm_ml_scenes'``; or a config, which is
            not changed.
        options: As ``--cfg-options`` gives them: dotted entries, and the
            shorthands of :mod:`~trm_ml_mm.engine.shorthands` (``epochs``,
            ``lr``, ``image_size``, ``arch``, ``data_root``, ``workers``,
            ``early_stopping``, ``balance_classes``, ``tensorboard``, ``watch``,
            ``scene_set``, ``shards``; of CSV files: ``image_folder``,
            ``image_column``, ``ignore_columns``).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an option changes nothing, or a value makes no sense.
    """
    if not isinstance(config, Config):
        config = Config.fromfile(find_config(config))
    cfg = Config(named_types(config.to_dict()), filename=config.filename)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    options = options or {}
    check_options(cfg, options)
    apply_shorthands(cfg, _with_arch(cfg, options))
    cfg.merge_from_dict({key: value for key, value in options.items()
                         if key not in SHORTHANDS})
    apply_late_shorthands(cfg, options)
    fill_tower(cfg)
    check_values(cfg)
    return cfg


def find_config(config: str) -> str:
    """Path of a config file, or of the package's config of this name.

    Raises:
        FileNotFoundError: If there is neither.
    """
    if os.path.isfile(config):
        return config
    if os.path.basename(config) == config:
        found = [path for path in package_configs()
                 if config in (path.name, path.stem)]
        if found:
            return str(found[0])
    raise FileNotFoundError(
        f'The config {config} does not exist: give the path of a config file, '
        "or the name of one of the package's, such as trm_ml_scenes.")


def named_types(value):
    """A config value with the names of classes and functions in their place,
    which a pure Python config has: its types."""
    if isinstance(value, dict):
        return {key: named_types(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(named_types, value))
    if inspect.isclass(value) or inspect.isfunction(value):
        return f'{value.__module__}.{value.__name__}'
    return value


def build_dataset(cfg: Config, split: str = 'train'):
    """The data set of one split, as a run would build it.

    Raises:
        ValueError: If the config has no such split.
    """
    if not cfg.get(f'{split}_dataloader'):
        raise ValueError(f'The config has no {split}_dataloader.')
    if split != 'train' and _open_tables(cfg):
        cfg = Config(cfg.to_dict(), filename=cfg.filename)
        with suppress(FileNotFoundError):  # the training set may be elsewhere
            fill_classes(cfg)
    return DATASETS.build(cfg[f'{split}_dataloader'].dataset)


def work_dir_of(cfg: Config) -> str:
    """The config's own work dir; without one, ``work_dirs/<file name>``.

    Raises:
        ValueError: If it has none, and comes from no file.
    """
    own = cfg.get('work_dir')
    if own and own != WORK_DIRS:
        return own
    if not cfg.filename:
        raise ValueError('A config that comes from no file needs a work_dir: '
                         'set it in the config.')
    name = os.path.splitext(os.path.basename(cfg.filename))[0]
    return os.path.join(WORK_DIRS, name)


def _with_arch(cfg: Config, options: dict) -> dict:
    """Options in which the full name of the architecture is its shorthand,
    with all that follows."""
    arch = options.get('model.backbone.arch')
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    return {**options, 'arch': arch} if arch and has_prompts(
        backbone) else options


def fill_tower(cfg: Config) -> None:
    """Put in what follows from the architecture of a CLIP: the tag that
    ``weights='default'`` stands for, and the image size of a backbone that has
    ``image_size=None``.

    A tower that takes any size keeps the one of the pipelines. The others get
    the size that their weights were trained with, and the pipelines follow.
    They also follow a size that a config gives such a tower.

    Args:
        cfg: Changed in place; a second time changes nothing.

    Raises:
        ValueError: If open_clip does not know the architecture.
    """
    model = cfg.get('model') or {}
    for options in nested_dicts(model):
        if options.get('weights') == 'default' and options.get('arch'):
            with suppress(FileNotFoundError):  # the tower says it, if built
                options['weights'] = default_weights(options['arch'])
    backbone = model.get('backbone') or {}
    if not has_prompts(backbone) or not backbone.get('arch') or (
            backbone.get('windows')):  # these see images of any size
        return
    built, given = built_size(backbone['arch']), backbone.get('image_size')
    size = given or built or pipeline_size(cfg)
    if size and (not given or built and pipeline_size(cfg) != given):
        set_image_size(cfg, size)


def fill_classes(cfg: Config, split: str = 'train',
                 names: Optional[Sequence[str]] = None) -> None:
    """Put the class names of the data set where the model says
    ``classes='dataset'``, and their number where it says
    ``num_classes='dataset'``.

    CSV files that do not name their classes get the names of the model, so
    that their columns may stand in any order.

    Args:
        cfg: Changed in place.
        split: Whose data set: 'train', 'val' or 'test'. If the config does not
            have it, another one serves.
        names: Class names, if they are known already; no data set is read.

    Raises:
        ValueError: If the config has no data set.
    """
    model = list(nested_dicts(cfg.get('model') or {}))
    open_entries = [(options, key) for options in model
                    for key in ('classes', 'num_classes')
                    if options.get(key) == 'dataset']
    tables = _open_tables(cfg)
    if names is None and not open_entries:
        names = next((class_names(options['classes']) for options in model
                      if options.get('classes')), None)
    if names is None and (open_entries or tables):
        names = _names_of_dataset(cfg, split)
    for options, key in open_entries:
        options[key] = list(names) if key == 'classes' else len(names)
    for options in tables:
        options['classes'] = list(names)


def _open_tables(cfg: Config) -> List[dict]:
    """CSV files of all splits that do not name their classes."""
    return [options for split in SPLITS
            for options in nested_dicts(cfg.get(f'{split}_dataloader') or {})
            if str(options.get('type')).endswith('CSVMultiLabel')
            and options.get('classes') is None]


def _names_of_dataset(cfg: Config, split: str) -> Sequence[str]:
    found = [inner for s in (split, *SPLITS)
             for inner in wrapped_datasets(cfg, s)
             if 'dataset' not in inner and 'datasets' not in inner]
    if not found:
        raise ValueError("classes='dataset' needs a data set in the config, "
                         'and there is none: write the names.')
    dataset = DATASETS.build(dict(found[0], lazy_init=True))
    if 'classes' not in dataset.metainfo:  # they are in the label file
        dataset.full_init()
    return dataset.metainfo['classes']
