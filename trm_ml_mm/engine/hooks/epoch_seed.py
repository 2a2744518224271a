"""Make a resumed run draw the same augmentation."""
import ctypes
import signal
import sys

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from trm_ml_mm.registry import FUNCTIONS, HOOKS
from trm_ml_mm.utils.seeding import mix_seed, seed_everything


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, NumPy and PyTorch from (seed, epoch, rank) before every
    training epoch.

    So epoch 7 draws the same augmentation whether the run comes from epoch 6
    or from a checkpoint. :func:`seed_worker` does the same in the workers; a
    loader must start new workers in every epoch.

    Raises:
        ValueError: If the training loader has ``persistent_workers``.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        if getattr(runner.train_dataloader, 'persistent_workers', False):
            raise ValueError(
                'persistent_workers=True in train_dataloader would make a '
                'resumed run differ from an uninterrupted one: set it to '
                'False, or take EpochSeedHook out of custom_hooks.')

    def before_train_epoch(self, runner) -> None:
        seed_everything(mix_seed(runner.seed or 0, runner.epoch, get_rank()))


@FUNCTIONS.register_module()
def seed_worker(worker_id: int, **kwargs) -> None:
    """Worker init function: seed NumPy and Python too with PyTorch's seed of
    this worker, which follows from the state of the main process. The worker
    ends with the main process, however that ends."""
    seed_everything(torch.initial_seed() % 2**32)
    end_with_parent()


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends; elsewhere PyTorch's
    workers notice within seconds, unless they are busy."""
    if sys.platform == 'linux':
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
