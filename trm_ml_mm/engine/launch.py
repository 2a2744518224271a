"""From a config and a few flags to a Runner."""
import gc
import os
from typing import Iterator, Optional

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank, init_dist
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from trm_ml_mm.registry import DATASETS

from . import atomic_backend  # noqa: F401  registers 'atomic' for configs
from .caching import use_cache

PARTS = ('train', 'val', 'test')


def load_config(config: str, options: Optional[dict] = None) -> Config:
    """A config file with overrides.

    Args:
        config: Config file.
        options: Overrides, as ``--cfg-options`` gives them. ``data_root``
            moves every data set that stands in the config's ``data_root``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not os.path.isfile(config):
        raise FileNotFoundError(f'{config} does not exist.')
    cfg = Config.fromfile(config)
    root = cfg.get('data_root')
    cfg.merge_from_dict(options or {})
    if 'data_root' in (options or {}):
        _move_data(cfg, root)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    return cfg


def _move_data(cfg: Config, old: Optional[str]) -> None:
    """Let every data set that lay in the folder ``old`` lie in
    ``cfg.data_root``."""
    moved = 0
    for part in PARTS:
        for options in _dicts(cfg.get(f'{part}_dataloader') or {}):
            path = options.get('data_root')
            if old and path and not os.path.relpath(path,
                                                    old).startswith('..'):
                inner = os.path.relpath(path, old)
                options['data_root'] = os.path.join(
                    cfg.data_root, '' if inner == '.' else inner)
                moved += 1
    if not moved:
        raise ValueError(
            'data_root moves the data sets that lie in the config\'s '
            f'data_root, which is {old!r}, and there is none: set data_root of '
            'each data set.')


def _datasets(cfg: Config, part: str) -> Iterator[ConfigDict]:
    """A loader's data set and those that it wraps."""
    dataset = (cfg.get(f'{part}_dataloader') or {}).get('dataset')
    while dataset is not None:
        yield dataset
        dataset = dataset.get('dataset')


def build_dataset(cfg: Config, part: str = 'train'):
    """The data set of one part of a config, as a run would build it.

    Raises:
        ValueError: If the config has no such part.
    """
    if not cfg.get(f'{part}_dataloader'):
        raise ValueError(f'The config has no {part}_dataloader.')
    return DATASETS.build(cfg[f'{part}_dataloader'].dataset)


def work_dir_of(cfg: Config, config: str) -> str:
    """The config's own work dir, or ``work_dirs/<name of the file>``."""
    name = os.path.splitext(os.path.basename(config))[0]
    return cfg.get('work_dir') or os.path.join('work_dirs', name)


def fill_classes(cfg: Config, part: str = 'train') -> None:
    """Put the data set's names where the model says ``classes='dataset'``,
    and their number where it says ``num_classes='dataset'``.

    Args:
        cfg: Changed in place.
        part: Whose data set: 'train', 'val' or 'test'.
    """
    open_places = [
        (place, key) for place in _dicts(cfg.model)
        for key in ('classes', 'num_classes') if place.get(key) == 'dataset'
    ]
    if not open_places:
        return
    found = [inner for p in (part, *PARTS) for inner in _datasets(cfg, p)
             if 'dataset' not in inner and 'datasets' not in inner]
    if not found:
        raise ValueError("classes='dataset' needs a data set in the config, "
                         'and there is none: give the names.')
    inner = found[0]
    dataset = DATASETS.build(dict(inner, lazy_init=True))
    if 'classes' not in dataset.metainfo:  # they stand in the label file
        dataset.full_init()
    names = list(dataset.metainfo['classes'])
    for place, key in open_places:
        place[key] = names if key == 'classes' else len(names)


def _dicts(config) -> Iterator[dict]:
    """A nested config's dicts."""
    if isinstance(config, dict):
        yield config
        config = config.values()
    elif not isinstance(config, (list, tuple)):
        return
    for value in list(config):
        yield from _dicts(value)


def build_runner(config: str,
                 work_dir: Optional[str] = None,
                 options: Optional[dict] = None,
                 launcher: str = 'none',
                 amp: bool = False,
                 resume: Optional[str] = None,
                 checkpoint: Optional[str] = None) -> Runner:
    """A Runner for training or testing, on GPUs or on CPUs.

    Args:
        config: Config file.
        work_dir: Default: that of the config, or ``work_dirs/<name>``.
        options: Overrides, as ``--cfg-options`` gives them.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'. With 'pytorch' and
            without a GPU the ranks talk through gloo.
        amp: Automatic mixed precision; needs a GPU.
        resume: 'auto' for the latest checkpoint in the work dir, a file, or
            None.
        checkpoint: Load these weights and do not resume.

    Raises:
        ValueError: If ``amp`` is asked for without a GPU, or the run is
            longer than its learning rate schedule.
        FileNotFoundError: If a file is missing.
    """
    for path in (checkpoint, None if resume == 'auto' else resume):
        if path is not None and not os.path.isfile(path):
            raise FileNotFoundError(f'{path} does not exist.')
    cfg = load_config(config, options)
    fill_classes(cfg, 'train' if checkpoint is None else 'test')
    if cfg.get('feature_cache'):
        use_cache(cfg, cfg.feature_cache,
                  PARTS if checkpoint is None else ('test', ))
    cfg.launcher = launcher
    cfg.work_dir = work_dir or work_dir_of(cfg, config)
    if amp:
        if not torch.cuda.is_available():
            raise ValueError('--amp needs a GPU, and PyTorch finds none here: '
                             'train without it.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if not torch.cuda.is_available():
        for part in PARTS:
            if cfg.get(f'{part}_dataloader'):
                cfg[f'{part}_dataloader'].pin_memory = False
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    elif checkpoint is not None:
        cfg.resume, cfg.load_from = False, checkpoint
    _check_schedule(cfg)
    if launcher == 'pytorch' and not torch.cuda.is_available():
        init_distributed(launcher, cfg)
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
    return Runner.from_cfg(cfg)


def init_distributed(launcher: str, cfg: Config) -> int:
    """Join the process group, if there is a launcher; this rank's number.

    Without a GPU ranks talk through gloo: MMEngine's own launcher asks for a
    GPU even then.
    """
    if launcher == 'pytorch' and not torch.cuda.is_available():
        torch.distributed.init_process_group('gloo')
    elif launcher != 'none':
        init_dist(launcher, **(cfg.get('env_cfg') or {}).get('dist_cfg', {}))
    return get_rank()


def _check_schedule(cfg: Config) -> None:
    """A run longer than its schedule would go on at a rate of zero."""
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    ends = [s['end'] for s in schedulers if s.get('by_epoch') and 'end' in s]
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if ends and epochs and epochs > max(ends):
        raise ValueError(
            f'train_cfg.max_epochs={epochs} goes beyond the learning rate '
            f'schedule, which ends at epoch {max(ends)}: lengthen both '
            '(param_scheduler.1.T_max and param_scheduler.1.end).')


def close() -> None:
    """Leave the process group, if there is one, and end its threads.

    Call it when the runner is no longer needed. A wrapped model stands in
    reference cycles and keeps the group's threads alive after the group is
    destroyed; a thread that lets go of a tensor while the interpreter ends
    turns a finished run into an abort.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        gc.collect()
