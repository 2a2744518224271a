"""Checkpoints that hold only tensors and plain types, and say what they are."""
import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from trm_ml_mm.registry import HOOKS

from ..description import KEY, describe_run

# Of each logged value: more than any smoothing window needs, and the
# checkpoints of a long run do not grow.
KEPT_VALUES = 1000


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Make checkpoints that PyTorch's safe loader can read.

    MMEngine's checkpoints hold objects (logged histories, a scheduler's bound
    method). ``torch.load(..., weights_only=True)``, the default since PyTorch
    2.6, refuses them. This hook converts them to tensors when saving, and back
    when loading.

    It also stores a description of the model, so that
    :func:`trm_ml_mm.apis.load_model` needs no config.
    """

    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta'][KEY] = describe_run(runner)
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
            # OneCycle stores its bound method; a new scheduler has its own.
            state.pop('anneal_func', None)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            if not isinstance(value, HistoryBuffer):
                log, count = value
                scalars[key] = HistoryBuffer(log.cpu().numpy(),
                                             count.cpu().numpy())
