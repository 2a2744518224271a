"""Checkpoint files: written whole or not at all, read without running code."""
import atexit
from pathlib import Path
from typing import Union

import torch
from mmengine.fileio import LocalBackend, register_backend

from trm_ml_mm.utils.io import atomic_write, existing


def read_checkpoint(path: Union[str, Path]) -> dict:
    """Load a checkpoint on the CPU with PyTorch's safe loader.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds more than tensors and plain
            types, which could run code.
    """
    existing(path, 'Checkpoint', 'give the path of a .pth file')
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f'{path} is not a checkpoint that PyTorch can read safely '
            f'({type(error).__name__}): it is damaged, or was saved without '
            'PlainCheckpointHook in custom_hooks.') from error
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f'{path} is not a checkpoint of a training run: it '
                         'has no "state_dict".')
    return checkpoint


@register_backend(name='atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files that are replaced by :func:`~trm_ml_mm.utils.io
    .atomic_write`.

    MMEngine's CheckpointHook removes an outdated checkpoint before it writes
    the new one, and only then notes which one is the latest. Here, a removed
    file stays until the second write after its removal, or until the process
    ends: at every moment the noted checkpoint exists.

    A config asks for it with ``backend_args=dict(backend='atomic')`` in its
    CheckpointHook.
    """

    _outdated, _replaced = set(), set()  # of this process, of all instances

    def put(self, obj: bytes, filepath) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as fresh:
            fresh.write_bytes(obj)
        self._outdated.discard(path)
        self._replaced.discard(path)
        self.clear()
        self._replaced.update(self._outdated)
        self._outdated.clear()

    def remove(self, filepath) -> None:
        self._outdated.add(Path(filepath))

    @classmethod
    def clear(cls) -> None:
        """Delete files that were replaced two writes ago."""
        while cls._replaced:
            cls._replaced.pop().unlink(missing_ok=True)


atexit.register(AtomicLocalBackend.clear)
