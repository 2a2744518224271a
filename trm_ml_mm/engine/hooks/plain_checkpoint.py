"""Checkpoints of tensors and plain types."""
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from trm_ml_mm.registry import HOOKS

# Of each logged figure; more than any smoothing window looks back, and a long
# run's checkpoints stay as small as its first.
KEPT_VALUES = 1000


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Make checkpoints that PyTorch's safe loader reads.

    MMEngine's checkpoints hold objects (logged histories, a scheduler's bound
    method), which ``torch.load(..., weights_only=True)``, the default since
    PyTorch 2.6, does not read. They are taken apart on saving and put
    together again on loading.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {
            key: [torch.as_tensor(part[-KEPT_VALUES:]) for part in buffer.data]
            for key, buffer in hub['log_scalars'].items()
        }
        hub['runtime_info'] = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in hub['runtime_info'].items()
        }
        schedulers = checkpoint.get('param_schedulers', [])
        for state in schedulers if isinstance(schedulers, list) else sum(
                schedulers.values(), []):
            # OneCycle keeps its bound method; a new scheduler has its own.
            state.pop('anneal_func', None)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            if not isinstance(value, HistoryBuffer):
                log, count = value
                scalars[key] = HistoryBuffer(log.cpu().numpy(),
                                             count.cpu().numpy())
