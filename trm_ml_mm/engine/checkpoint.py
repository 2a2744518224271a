"""Checkpoint files: written whole or not at all, read without running code."""
import atexit
import io
import logging
import re
from pathlib import Path
from typing import List, Optional, Union

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from torch import nn

from trm_ml_mm.utils.io import atomic_write, existing

# Of a run that was asked to stop within an epoch.
INTERRUPTED = 'interrupted.pth'
# What a checkpoint of a training has, and of which type.
_PARTS = dict(state_dict=dict, meta=dict, message_hub=dict)
# What a scheduler counts while it runs. All else follows from its config.
_COUNTERS = {
    'last_step', '_global_step', '_last_value', 'verbose', 'best',
    'num_bad_epochs', 'cooldown_counter'
}


def read_checkpoint(path: Union[str, Path]) -> dict:
    """Load a checkpoint on the CPU with PyTorch's safe loader.

    Raises:
        FileNotFoundError: If there is no such file. An address on the internet
            is no file.
        ValueError: If it is damaged, or holds more than tensors and plain
            types, which could run code.
    """
    existing(path, 'Checkpoint', 'give the path of a .pth file')
    try:
        # Since PyTorch 2.6 the safe loader is safe for all file formats.
        checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f'{path} is not a checkpoint that PyTorch can read safely '
            f'({type(error).__name__}): it is damaged, or was saved without '
            'PlainCheckpointHook in custom_hooks.') from error
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f'{path} is not a checkpoint of a training run: it '
                         'has no "state_dict".')
    for part, kind in _PARTS.items():
        if not isinstance(checkpoint.setdefault(part, {}), kind):
            raise ValueError(f'{path} is not a checkpoint of a training run: '
                             f'its {part} is no {kind.__name__}.')
    return checkpoint


def update_meta(path: Union[str, Path], out: Union[str, Path],
                entries: dict) -> None:
    """Write a checkpoint with other entries in its ``meta``; all else stays.

    Args:
        path: The checkpoint.
        out: Where it goes; may be the same file.
        entries: Plain data.

    Raises:
        FileNotFoundError, ValueError: See :func:`read_checkpoint`.
        OSError: If it cannot be written; what ``out`` was before stays.
    """
    checkpoint = read_checkpoint(path)
    checkpoint['meta'].update(entries)
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    with atomic_write(out, size=len(content)) as fresh:
        fresh.write_bytes(content)


def trained_classes(checkpoint: dict) -> Optional[List[str]]:
    """The class names that a checkpoint was trained with, in order; None if it
    does not say."""
    meta = checkpoint['meta'].get('dataset_meta')
    names = meta.get('classes') if isinstance(meta, dict) else None
    return list(names) if isinstance(names, (list, tuple)) and all(
        isinstance(name, str) for name in names) else None


def checkpoints_in(work_dir: Union[str, Path]) -> List[Path]:
    """The checkpoints to resume from: one within an epoch, then those of
    epochs or iterations, the latest first."""
    numbered = []
    for path in Path(work_dir).glob('*.pth'):
        found = re.fullmatch(r'(epoch|iter)_(\d+)\.pth', path.name)
        if found:
            numbered.append((found[1], int(found[2]), path))
    interrupted = Path(work_dir, INTERRUPTED)
    return [*([interrupted] if interrupted.is_file() else ()),
            *(path for *_, path in sorted(numbered, reverse=True))]


def latest_checkpoint(work_dir: Union[str, Path]) -> Optional[Path]:
    """The latest checkpoint in a work dir that is whole; None if there is no
    checkpoint at all.

    Files decide, not ``last_checkpoint``: that file names an absolute path,
    and a work dir may have moved.

    Raises:
        ValueError: If there are checkpoints and none is whole.
    """
    whole, damaged = [], []
    for path in checkpoints_in(work_dir):
        try:
            checkpoint = read_checkpoint(path)
            if 'optimizer' not in checkpoint:
                raise ValueError(f'{path} has no state of the optimiser.')
            whole.append((checkpoint['meta'].get('iter', 0), path))
        except ValueError as error:
            damaged.append(str(error))
            print_log(f'Not resumed from: {error}', 'current',
                      logging.WARNING)
        if whole and whole[-1][1].name != INTERRUPTED:
            break
    if damaged and not whole:
        raise ValueError(f'{work_dir} has no checkpoint to resume from. '
                         f'{damaged[0]} To start anew, remove the folder.')
    return max(whole)[1] if whole else None


def keep_to_folder(checkpoint: dict, work_dir: Union[str, Path]) -> List[str]:
    """Drop what a checkpoint says about other checkpoints, unless they lie in
    the work dir.

    MMEngine's CheckpointHook removes the previous best checkpoint, and those
    that are too many. Their paths and numbers come from the checkpoint.

    Returns:
        Sentences on what was dropped.
    """
    info = checkpoint['message_hub'].get('runtime_info')
    if not isinstance(info, dict):
        return []
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or not all(type(i) is int for i in kept):
        kept = []
    # The numbers are of files in the old work dir.
    info['keep_ckpt_ids'] = [
        number for number in kept
        if any(Path(work_dir, f'{unit}_{number}.pth').is_file()
               for unit in ('epoch', 'iter'))]
    dropped = []
    for key in [key for key in info
                if key == 'last_ckpt' or str(key).startswith('best_ckpt')]:
        name = re.split(r'[/\\]', str(info[key]))[-1]
        here = Path(work_dir, name)
        if name.endswith('.pth') and here.is_file():
            info[key] = str(here)
            continue
        if key != 'last_ckpt':
            info.pop(key.replace('ckpt', 'score'), None)
            dropped.append(
                f'The best checkpoint so far, {info[key]}, is not in '
                f'{work_dir}: it stays where it is, and the best epoch is '
                'picked from here on.')
        info.pop(key)
    return dropped


def load_learned(model: nn.Module, state: dict,
                 path: Union[str, Path]) -> None:
    """Load everything that was learned: no more and no less.

    Args:
        model: Without wrapper.
        state: Its ``state_dict``.
        path: Where it comes from, for error messages.

    Raises:
        ValueError: If an entry is missing, unknown or of another shape.
    """
    advice = 'give the config and options it was trained with'
    try:
        wrong = model.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        line = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f'{path} does not fit the model ({line}): '
                         f'{advice}.') from error
    for keys, what in ((wrong.missing_keys, 'lacks'),
                       (wrong.unexpected_keys, 'has the unknown entry')):
        if keys:
            raise ValueError(
                f'{path} does not fit the model: it {what} {keys[0]} '
                f'(and {len(keys) - 1} more); {advice}.')


def scheduler_change(checkpoint: dict, schedulers) -> Optional[str]:
    """How the schedules of the saved run and of this one differ; None if they
    do not.

    MMEngine would go on with the saved schedule, whatever the config says.

    Args:
        checkpoint: Of the saved run.
        schedulers: The runner's: a list, a dict of lists, or None.
    """
    saved = checkpoint.get('param_schedulers', [])
    if isinstance(schedulers, dict) != isinstance(saved, dict):
        return 'one is for each optimiser, one is not'
    pairs = [(schedulers or [], saved)]
    if isinstance(saved, dict):
        if saved.keys() != schedulers.keys():
            return f'optimisers: {list(saved)}, {list(schedulers)}'
        pairs = [(schedulers[name], saved[name]) for name in saved]
    for fresh, old in pairs:
        if len(fresh) != len(old):
            return f'{len(old)} schedulers there, {len(fresh)} here'
        for scheduler, state in zip(fresh, old):
            own = scheduler.state_dict()
            for key in sorted((own.keys() & state.keys()) - _COUNTERS):
                if isinstance(own[key], (int, float, str, list, tuple)) and (
                        own[key] != state[key]):
                    return (f'{type(scheduler).__name__}: {key} is '
                            f'{state[key]} there, {own[key]} here')
    return None


@register_backend(name='atomic')
class AtomicLocalBackend(LocalBackend):
    """Local files that are replaced as a whole, by
    :func:`~trm_ml_mm.utils.io.atomic_write`.

    MMEngine's CheckpointHook removes an outdated checkpoint before it writes
    the new one, and only then notes which one is the latest. Here, a removed
    file stays until the second write after its removal, or until the process
    ends: at every moment the noted checkpoint exists.

    Only files beside one that this process wrote are ever removed, and no
    folders: the names come from a checkpoint, which may be a stranger's.

    :class:`~trm_ml_mm.engine.AtomicCheckpointHook` uses it; another hook does
    so with ``backend_args=dict(backend='atomic')``.
    """

    # Of this process, of all instances.
    _outdated, _replaced, _folders = set(), set(), set()

    def put(self, obj: bytes, filepath) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._folders.add(path.parent.resolve())
        with atomic_write(path, size=len(obj)) as fresh:
            fresh.write_bytes(obj)
        self._outdated.discard(path)
        self._replaced.discard(path)
        self.clear()
        self._replaced.update(self._outdated)
        self._outdated.clear()

    def remove(self, filepath) -> None:
        self._outdated.add(Path(filepath))

    def rmtree(self, dir_path) -> None:
        print_log(f'{dir_path} is not removed: a checkpoint is a file.',
                  'current', logging.WARNING)

    @classmethod
    def clear(cls) -> None:
        """Delete files that were replaced two writes ago."""
        while cls._replaced:
            path = cls._replaced.pop()
            if path.parent.resolve() in cls._folders:
                path.unlink(missing_ok=True)
            else:
                print_log(f'{path} is not removed: this run saves elsewhere.',
                          'current', logging.WARNING)


atexit.register(AtomicLocalBackend.clear)
