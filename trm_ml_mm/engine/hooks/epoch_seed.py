"""Augmentation that a resumed run repeats."""
import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from trm_ml_mm.registry import FUNCTIONS, HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed Python, NumPy and PyTorch from (seed, epoch, rank) before every
    training epoch.

    So epoch 7 draws the same augmentation whether the run came from epoch 6
    or from a checkpoint. Workers follow through :func:`seed_worker`; a loader
    must not keep its workers over epochs.

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
        state = np.random.SeedSequence(
            [runner.seed or 0, runner.epoch, get_rank()]).generate_state(1)
        seed_everything(int(state[0]))


@FUNCTIONS.register_module()
def seed_worker(worker_id: int, **kwargs) -> None:
    """Worker init function: PyTorch's own seed of this worker, which follows
    the main process's state, for NumPy and Python too."""
    seed_everything(torch.initial_seed() % 2**32)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
