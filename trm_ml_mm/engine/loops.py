"""The training loop: a run that stopped anywhere resumes there."""
import random
from typing import List, Optional

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.runner import EpochBasedTrainLoop

from trm_ml_mm.registry import LOOPS

# In the message hub: the last validated epoch. (MMEngine logs with every
# validation what begins with "val".)
VALIDATED = 'epoch_validated'


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, but a resumed run loses nothing.

    * A run that was stopped in the middle of an epoch goes on with the next
      batch (:class:`~trm_ml_mm.engine.StopSignalHook` saves it). The batches
      before it are loaded and thrown away, so that workers draw the same
      random numbers.
    * A run that was killed between a checkpoint and its validation validates
      first: otherwise that epoch could not become the best one.
    """

    batches_done = 0  # of the current epoch, by the run that was stopped
    state: Optional[dict] = None  # of this rank, after them

    def run(self) -> torch.nn.Module:
        """Train, as MMEngine's loop."""
        self.runner.call_hook('before_train')
        if self._epoch and not self.batches_done:
            self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """One epoch, or the rest of it."""
        self.runner.call_hook('before_train_epoch')
        if self.batches_done:
            for hook in self._counting_hooks():
                hook.set_epoch_state(self.state[type(hook).__name__])
        self.runner.model.train()
        for number, batch in enumerate(self.dataloader, 1):
            if number > self.batches_done:
                self.run_iter(number - 1, batch)
            elif number == self.batches_done:
                set_random_state(self.state['random'])
        self.batches_done = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _validate(self) -> None:
        """Validate if it is time to, and not done yet."""
        self._decide_current_val_interval()
        hub = self.runner.message_hub
        if (self.runner.val_loop is None or self._epoch < self.val_begin
                or hub.get_info(VALIDATED) == self._epoch
                or (self._epoch % self.val_interval
                    and self._epoch != self._max_epochs)):
            return
        # Before CheckpointHook saves the checkpoint again, with the best score.
        hub.update_info(VALIDATED, self._epoch)
        self.runner.val_loop.run()

    def position(self, batches_done: int) -> dict:
        """What a checkpoint in the middle of an epoch needs; on all ranks
        together."""
        state = {type(hook).__name__: hook.epoch_state()
                 for hook in self._counting_hooks()}
        state['random'] = random_state()
        return dict(batches_done=batches_done, states=all_gather_object(state))

    def _counting_hooks(self) -> list:
        """Hooks that count something over an epoch."""
        return [hook for hook in self.runner.hooks
                if hasattr(hook, 'epoch_state')]

    def go_to(self, position: dict) -> None:
        """Go on where a run was stopped.

        Args:
            position: Of :meth:`position`.

        Raises:
            ValueError: If it ran on another number of ranks.
        """
        states: List[dict] = position['states']
        if len(states) != get_world_size():
            raise ValueError(
                f'The run was stopped within an epoch on {len(states)} ranks, '
                f'and this one has {get_world_size()}: resume on as many, or '
                'remove that checkpoint and resume from the last epoch.')
        self.batches_done = position['batches_done']
        self.state = states[get_rank()]


def random_state() -> dict:
    """The state of the random numbers of Python, NumPy and PyTorch, as tensors
    and plain types."""
    kind, keys, *rest = np.random.get_state()
    state = dict(python=list(random.getstate()[1]),
                 numpy=[keys.tolist(), *rest],
                 torch=torch.get_rng_state())
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Set what :func:`random_state` returned."""
    random.setstate((3, tuple(state['python']), None))
    np.random.set_state(('MT19937', *state['numpy']))
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
