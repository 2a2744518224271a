"""From a config and a few flags to a Runner."""
import gc
import os
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from . import atomic_backend  # noqa: F401  registers 'atomic' for configs


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
    for path in (config, checkpoint, None if resume == 'auto' else resume):
        if path is not None and not os.path.isfile(path):
            raise FileNotFoundError(f'{path} does not exist.')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        name = os.path.splitext(os.path.basename(config))[0]
        cfg.work_dir = os.path.join('work_dirs', name)
    if amp:
        if not torch.cuda.is_available():
            raise ValueError('--amp needs a GPU, and PyTorch finds none here: '
                             'train without it.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if not torch.cuda.is_available():
        for part in ('train', 'val', 'test'):
            if cfg.get(f'{part}_dataloader'):
                cfg[f'{part}_dataloader'].pin_memory = False
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    elif checkpoint is not None:
        cfg.resume, cfg.load_from = False, checkpoint
    _check_schedule(cfg)
    if launcher == 'pytorch' and not torch.cuda.is_available():
        # MMEngine's own launcher asks for a GPU even with gloo.
        torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False))
    return Runner.from_cfg(cfg)


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
