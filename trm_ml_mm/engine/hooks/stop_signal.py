"""SIGTERM and Ctrl-C: save, and leave."""
import logging
import signal
import sys
import threading
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import Hook
from mmengine.logging import print_log

from trm_ml_mm.registry import HOOKS
from trm_ml_mm.utils.mmengine_private import is_resuming

from ..checkpoint import INTERRUPTED
from ..loops import ResumableTrainLoop


@HOOKS.register_module()
class StopSignalHook(Hook):
    """Save the state of a run that is asked to stop, so that ``--resume`` goes
    on with the next batch.

    SIGTERM (a pre-emptible machine, Slurm, ``kill``) and Ctrl-C stop the run
    after the current batch, on all ranks together. ``interrupted.pth`` in the
    work dir is the checkpoint; it goes when the next one is written. The exit
    status is 128 plus the number of the signal. Outside of training epochs
    the last checkpoint has all there is, and the run leaves at once. A second
    Ctrl-C leaves at once too. (Ctrl-C under torchrun sends both signals.)
    """

    priority = 'LOWEST'  # after the schedule has moved
    signals = (signal.SIGTERM, signal.SIGINT)

    def before_train(self, runner) -> None:
        self.asked = 0  # the signal, if there was one
        self.training = False  # a batch is under way, or will be
        self.device = next(runner.model.parameters()).device
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._ask)
                             for number in self.signals}

    def _ask(self, number: int, frame) -> None:
        insists = self.asked == number == signal.SIGINT
        if insists or not self.training:
            self._restore()
            sys.exit(128 + number)
        self.asked = self.asked or number

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.training = True

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        asked = self.asked
        if is_distributed():  # signals arrive at different moments
            flag = torch.tensor(asked, device=self.device)
            all_reduce(flag, op='max')
            asked = int(flag)
        if asked:
            self._save(runner, batch_idx + 1)
            self._leave(runner, asked)

    def before_val_epoch(self, runner) -> None:
        self._end_of_epoch(runner)

    def after_train(self, runner) -> None:
        self._end_of_epoch(runner)
        self._restore()

    def _end_of_epoch(self, runner) -> None:
        self.training = False
        if self.asked:
            self._leave(runner, self.asked)

    def _save(self, runner, batches_done: int) -> None:
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        if isinstance(runner.train_loop, ResumableTrainLoop):
            meta['position'] = runner.train_loop.position(batches_done)
        runner.save_checkpoint(
            runner.work_dir, INTERRUPTED, meta=meta, by_epoch=False,
            backend_args=dict(backend='atomic'))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        position = checkpoint['meta'].get('position')
        if position is not None and is_resuming(runner):
            runner.train_loop.go_to(position)

    def after_train_epoch(self, runner) -> None:
        if runner.rank == 0:
            Path(runner.work_dir, INTERRUPTED).unlink(missing_ok=True)

    def _leave(self, runner, number: int) -> None:
        self._restore()
        print_log(
            f'Stopped by {signal.Signals(number).name}. Everything so far is '
            f'saved in {runner.work_dir}: give the same command with --resume '
            'to go on.', logger='current', level=logging.WARNING)
        sys.exit(128 + number)

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
