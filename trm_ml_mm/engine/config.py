"""From a config file and options to the config of a run."""
import inspect
import os
from typing import Optional, Sequence, Union

from mmengine.config import Config
from mmengine.registry import init_default_scope

from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.configs import SPLITS, nested_dicts, wrapped_datasets
from trm_ml_mm.utils.package import package_configs

from .options import check_options, check_values
from .shorthands import SHORTHANDS, apply_shorthands

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
            ``lr``, ``image_size``, ``arch``, ``data_root``, ``scene_set``).

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
    apply_shorthands(cfg, options)
    cfg.merge_from_dict({key: value for key, value in options.items()
                         if key not in SHORTHANDS})
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


def fill_classes(cfg: Config, split: str = 'train',
                 names: Optional[Sequence[str]] = None) -> None:
    """Put the class names of the data set where the model says
    ``classes='dataset'``, and their number where it says
    ``num_classes='dataset'``.

    Args:
        cfg: Changed in place.
        split: Whose data set: 'train', 'val' or 'test'. If the config does not
            have it, another one serves.
        names: Class names, if they are known already; no data set is read.

    Raises:
        ValueError: If the config has no data set.
    """
    open_entries = [
        (options, key) for options in nested_dicts(cfg.model)
        for key in ('classes', 'num_classes') if options.get(key) == 'dataset'
    ]
    if not open_entries:
        return
    if names is None:
        names = _names_of_dataset(cfg, split)
    for options, key in open_entries:
        options[key] = list(names) if key == 'classes' else len(names)


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
