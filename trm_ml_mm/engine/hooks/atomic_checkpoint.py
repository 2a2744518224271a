"""Checkpoints that are written whole or not at all."""
from typing import Optional

from mmengine.hooks import CheckpointHook

from trm_ml_mm.registry import HOOKS

from .. import checkpoint as _  # noqa: F401  registers the 'atomic' backend


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` on
    :class:`~trm_ml_mm.engine.checkpoint.AtomicLocalBackend`: a file is written
    whole or not at all, and the previous one is removed later.

    Args:
        backend_args: Another file backend.
        **kwargs: Of ``mmengine.hooks.CheckpointHook``.
    """

    def __init__(self, *args, backend_args: Optional[dict] = None, **kwargs):
        super().__init__(
            *args, backend_args=backend_args or dict(backend='atomic'),
            **kwargs)
