"""From a config and a few flags to a runner."""
import gc
import os
import subprocess
import time
from datetime import timedelta
from typing import Dict, Optional, Sequence, Type, Union

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, init_dist

from trm_ml_mm.features import use_cache
from trm_ml_mm.registry import RUNNERS
from trm_ml_mm.utils.configs import SPLITS, nested_dicts
from trm_ml_mm.utils.screen import Screen

from .calibration import read_calibration
from .checkpoint import read_checkpoint, trained_classes
from .config import fill_classes, load_config, work_dir_of
from .description import describe
from .hooks import ScreenHook
from .hooks.partial_label import check_wrapper
from .runner import SafeRunner
from .tta import use_tta


def build_runner(config: Union[str, Config],
                 work_dir: Optional[str] = None,
                 options: Optional[dict] = None,
                 launcher: str = 'none',
                 amp: bool = False,
                 resume: Optional[str] = None,
                 checkpoint: Optional[str] = None,
                 train: bool = True,
                 tta: Optional[Sequence[float]] = None,
                 validate: bool = True,
                 scale_lr: bool = False,
                 out: Optional[str] = None,
                 show_dir: Optional[str] = None) -> SafeRunner:
    """A runner for training or testing, on GPUs or on CPUs.

    Args:
        config: Config file, or a config, which is not changed.
        work_dir: Default: that of the config, or ``work_dirs/<name>``.
        options: See :func:`~trm_ml_mm.engine.load_config`.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'. Without a GPU, the
            ranks of 'pytorch' and 'slurm' talk through gloo.
        amp: Automatic mixed precision; needs a GPU.
        resume: 'auto' for the latest checkpoint in the work dir, a file, or
            None.
        checkpoint: Load these weights, and do not resume.
        train: Whether the run is going to train. A test needs no training set.
        tta: Test with several views of each image: the scales, see
            :func:`~trm_ml_mm.engine.tta.use_tta`. None: with one view.
        validate: False: train without validating.
        scale_lr: Scale the learning rate with the batch size of all ranks,
            from that of ``auto_scale_lr.base_batch_size``.
        out: Test: write the predictions to this .pkl file, which MMPretrain's
            analysis tools read.
        show_dir: Test: draw the predictions into this folder.

    Raises:
        ValueError: If an option is refused (see ``load_config``), ``amp`` is
            asked for without a GPU, the machine has more ranks than GPUs,
            the run is longer than its learning rate schedule, or
            ``runner_type`` is no ``SafeRunner``.
        FileNotFoundError: If a file is missing.
    """
    _check_gpu(launcher)
    for path in (checkpoint, None if resume == 'auto' else resume):
        if path is not None and not os.path.isfile(path):
            raise FileNotFoundError(f'The checkpoint {path} does not exist: '
                                    'give the path of a .pth file.')
    cfg = load_config(config, options)
    train = train and checkpoint is None
    fill_classes(cfg, 'train' if train else 'test',
                 None if train else open_classes(cfg, checkpoint))
    if not validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    description = describe(cfg)  # a cache replaces pipeline and preprocessor
    if cfg.get('feature_cache'):
        use_cache(cfg, cfg.feature_cache, SPLITS if train else ('test', ))
    if tta is not None:
        use_tta(cfg, tta)
    if scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise ValueError('--auto-scale-lr needs the batch size that the '
                             'rate was chosen for: set '
                             'auto_scale_lr.base_batch_size in the config.')
        cfg.auto_scale_lr.enable = True
    if tta is not None and show_dir is not None:
        raise ValueError('--show-dir draws one view of each image, and --tta '
                         'makes several: test twice.')
    if checkpoint is not None:
        test_thresholds(cfg, checkpoint)
    if out is not None or show_dir is not None:
        save_predictions(cfg, out, show_dir)
    cfg.launcher = launcher
    cfg.work_dir = work_dir or work_dir_of(cfg)
    if amp:
        if not torch.cuda.is_available():
            raise ValueError('--amp needs a GPU, and PyTorch finds none here: '
                             'train without it.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if not torch.cuda.is_available():
        for split in SPLITS:
            if cfg.get(f'{split}_dataloader'):
                cfg[f'{split}_dataloader'].pin_memory = False
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    elif checkpoint is not None:
        cfg.resume, cfg.load_from = False, checkpoint
    _check_schedule(cfg)
    wrapper = cfg.get('model_wrapper_cfg') or {}
    check_wrapper(wrapper.get('type', ''))
    if _on_gloo(launcher):
        init_distributed(launcher, cfg)
        cfg.model_wrapper_cfg = dict(dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False)),
            **wrapper)
    runner = runner_class(cfg).from_cfg(cfg)
    if Screen.current is not None:
        runner.register_hook(ScreenHook())
    runner.description = description
    return runner


def open_classes(cfg: Config, checkpoint: Optional[str]
                 ) -> Optional[Sequence[str]]:
    """The class names that a checkpoint was trained with, if the config leaves
    them open; None if the checkpoint does not say, or there is none."""
    if checkpoint is None or not any(
            options.get('classes') == 'dataset'
            for options in nested_dicts(cfg.model)):
        return None
    return trained_classes(read_checkpoint(checkpoint))


def test_thresholds(cfg: Config, checkpoint: str) -> None:
    """Let a test of a calibrated checkpoint use its thresholds too.

    Raises:
        ValueError: If the calibration is damaged.
    """
    found = read_calibration(read_checkpoint(checkpoint)['meta'], checkpoint)
    if found is not None and cfg.get('test_evaluator'):
        add_test_metric(cfg, dict(
            type='trm_ml_mm.CalibratedMetrics', calibration=found.to_dict(),
            where=f'The calibration in {checkpoint}'))


def add_test_metric(cfg: Config, metric: dict) -> None:
    """Add the config of a metric to those of a test."""
    found = cfg.test_evaluator
    cfg.test_evaluator = [
        *(found if isinstance(found, (list, tuple)) else [found]), metric]


def save_predictions(cfg: Config, out: Optional[str],
                     show_dir: Optional[str]) -> None:
    """Let a test write its predictions, and draw them.

    Raises:
        ValueError: If ``out`` is no .pkl file, or there are no images to draw
            on.
    """
    if out is not None:
        if not out.endswith(('.pkl', '.pickle')):
            raise ValueError(f'--out {out}: give a file that ends in .pkl.')
        add_test_metric(cfg, dict(type='DumpResults', out_file_path=out))
    if show_dir is not None:
        if cfg.get('feature_cache'):
            raise ValueError('--show-dir needs images, and feature_cache has '
                             'features: test without it.')
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(
            type='trm_ml_mm.PredictionPicturesHook', out_dir=show_dir)]


def runner_class(cfg: Config) -> Type[SafeRunner]:
    """``runner_type`` of a config; without one, ``SafeRunner``.

    Raises:
        ValueError: If it is unknown, or no ``SafeRunner``: MMEngine's own
            runners execute the config text of a checkpoint.
    """
    name = cfg.get('runner_type')
    if name is None:
        return SafeRunner
    found = RUNNERS.get(name)
    if found is None or not issubclass(found, SafeRunner):
        what = 'is not registered' if found is None else (
            'is no subclass of trm_ml_mm.engine.SafeRunner')
        raise ValueError(
            f'runner_type={name} {what}: leave it out, or derive your runner '
            'from SafeRunner, which reads checkpoints without running code. '
            'FlexibleRunner, for FSDP and DeepSpeed, does not: use '
            'tools/dist_train.sh.')
    return found


def init_distributed(launcher: str, cfg: Config) -> int:
    """Join the process group, if there is a launcher; return this rank. Who
    is in one already stays there.

    Without a GPU the ranks talk through gloo: MMEngine's own launcher would
    ask for a GPU. ``env_cfg.dist_cfg.timeout`` says after how many seconds a
    rank that does not answer ends the run.
    """
    options = dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    if torch.distributed.is_initialized():
        return get_rank()
    if _on_gloo(launcher):
        seconds = options.get('timeout')
        if launcher == 'slurm':
            os.environ.update(_slurm_ranks(options))
        torch.distributed.init_process_group(
            'gloo', timeout=seconds and timedelta(seconds=seconds))
    elif launcher != 'none':
        _check_gpu(launcher)
        init_dist(launcher, **options)
    return get_rank()


def _on_gloo(launcher: str) -> bool:
    return launcher in ('pytorch', 'slurm') and not torch.cuda.is_available()


def _check_gpu(launcher: str) -> None:
    """Where there are GPUs, each rank takes its own."""
    rank, gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
    if launcher == 'pytorch' and torch.cuda.is_available() and rank >= gpus:
        raise ValueError(f'Rank {rank} of this machine has no GPU, because '
                         f'there are {gpus}: start one rank per GPU, or hide '
                         'the GPUs with CUDA_VISIBLE_DEVICES= to run on CPUs.')


def _slurm_ranks(options: dict) -> Dict[str, str]:
    """What PyTorch wants to know, from what Slurm tells each task; by the
    rules of MMEngine, whose own function asks for a GPU.

    Raises:
        ValueError: If no Slurm started this process.
    """
    try:
        ranks = dict(RANK=os.environ['SLURM_PROCID'],
                     WORLD_SIZE=os.environ['SLURM_NTASKS'],
                     LOCAL_RANK=os.environ['SLURM_LOCALID'])
        nodes = os.environ['SLURM_NODELIST']
    except KeyError as error:
        raise ValueError(f'--launcher slurm: {error.args[0]} is not set, so '
                         'Slurm did not start this process: use srun, or '
                         'tools/dist_train.sh without Slurm.') from None
    ranks['MASTER_PORT'] = str(options.get('port') or os.environ.get(
        'MASTER_PORT', 29500))
    ranks['MASTER_ADDR'] = os.environ.get('MASTER_ADDR') or subprocess.run(
        ['scontrol', 'show', 'hostname', nodes], check=True, text=True,
        capture_output=True).stdout.split()[0]
    return ranks


def _check_schedule(cfg: Config) -> None:
    """A run longer than its schedule would continue at a rate of zero."""
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    ends = [s['end'] for s in schedulers if s.get('by_epoch') and 'end' in s]
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if ends and epochs and epochs > max(ends):
        raise ValueError(
            f'train_cfg.max_epochs={epochs} goes beyond the learning rate '
            f'schedule, which ends at epoch {max(ends)}: set epochs={epochs}, '
            'which stretches the schedule too.')


def close() -> None:
    """Leave the process group, if there is one, and end its threads.

    Call it when the runner is no longer needed. A wrapped model is part of
    reference cycles, which keep the group's threads alive after the group is
    destroyed. A thread that releases a tensor while the interpreter exits
    turns a finished run into an abort.
    """
    if torch.distributed.is_initialized():
        # A thread that still releases a tensor needs the interpreter, and the
        # destructor of the group keeps that while it waits for the thread:
        # with PyTorch 2.6, finished runs did not end. So let it finish first.
        time.sleep(.5)
        torch.distributed.destroy_process_group()
        gc.collect()
