"""Carry what was learned about classes over to a model of other classes.

A module says which entries of its state belong to single classes:

* ``class_axes``: name of an entry -> the axes that count classes. The entry of
  a class that both models know moves to its new place.
* ``restarts``: names of entries that begin anew if there is a new class, such
  as the number of images that count for the warm-up of pseudo-labels.

All other entries are shared by all classes, and stay as they are. Ours.
"""
from typing import Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor, nn


class ClassChange(NamedTuple):
    """What happens to the classes of two models, by name."""

    kept: List[str]  # in both
    new: List[str]  # in the new model only
    dropped: List[str]  # in the old model only

    @classmethod
    def between(cls, old: Sequence[str], new: Sequence[str]) -> 'ClassChange':
        """From the classes of a checkpoint to those of a model."""
        return cls([name for name in new if name in set(old)],
                   [name for name in new if name not in set(old)],
                   [name for name in old if name not in set(new)])


def carried(saved: Tensor, fresh: Tensor, there: Tensor, here: Tensor,
            axes: Sequence[int]) -> Tensor:
    """The fresh entry, with the values of the classes that are kept.

    Args:
        saved: Entry of the old model.
        fresh: The same of the new model, untrained.
        there: ``(K,)`` indices of the kept classes in the old entry.
        here: ``(K,)`` their indices in the new one.
        axes: That count classes; of both entries.
    """
    result = fresh.clone()
    target, source = [slice(None)] * fresh.dim(), [slice(None)] * fresh.dim()
    for number, axis in enumerate(axes):
        shape = [1] * len(axes)
        shape[number] = -1
        target[axis], source[axis] = here.view(shape), there.view(shape)
    result[tuple(target)] = saved[tuple(source)].to(result)
    return result


def carry_classes(model: nn.Module, state: Dict[str, Tensor],
                  old: Sequence[str], new: Sequence[str]
                  ) -> Dict[str, Tensor]:
    """Change the state of a model of other classes, so that a model can load
    it.

    Args:
        model: Untrained, of the new classes.
        state: Of the old model; not changed.
        old: Class names of the checkpoint.
        new: Class names of the model.

    Returns:
        The state with the entries of single classes in their new places; those
        of new classes are the model's own.

    Raises:
        ValueError: If there are new classes, and the model has no text tower
            that could read them.
    """
    state, own = dict(state), model.state_dict()
    place = {name: c for c, name in enumerate(old)}
    pairs = [(place[name], c) for c, name in enumerate(new) if name in place]
    there, here = (torch.tensor(side, dtype=torch.long) for side in (
        zip(*pairs) if pairs else ((), ())))
    has_new = len(pairs) < len(new)
    for prefix, module in model.named_modules():
        entries = [(f'{prefix}.{name}'.lstrip('.'), axes) for name, axes in
                   getattr(module, 'class_axes', {}).items()]
        for key, axes in entries:
            if key in state and key in own and _fits(state[key], axes,
                                                     len(old)):
                state[key] = _moved(state[key].cpu(), own[key].cpu(), there,
                                    here, axes, has_new)
        if not has_new:
            continue
        if getattr(module, 'needs_all_classes', False):
            raise ValueError(
                f'{type(module).__name__} has no text tower, so it cannot '
                'read new classes: fine-tune a checkpoint of the training '
                'itself, not a published file without its tower.')
        for name in getattr(module, 'restarts', ()):
            key = f'{prefix}.{name}'.lstrip('.')
            if key in state and key in own:
                state[key] = own[key].cpu().clone()
    for prefix, module in model.named_modules():
        key = f'{prefix}.identity'.lstrip('.')
        if key in state and key in own and hasattr(module, 'class_names') and (
                isinstance(state[key], Tensor)
                and state[key].shape == own[key].shape):
            # The tower must be the same, and the names are the new ones.
            state[key] = torch.cat([state[key].cpu()[:32],
                                    own[key].cpu()[32:]])
    return state


def _fits(value, axes: Tuple[int, ...], classes: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > max(axes) and all(
        value.shape[axis] == classes for axis in axes)


def _moved(saved: Tensor, fresh: Tensor, there: Tensor, here: Tensor,
           axes: Tuple[int, ...], has_new: bool) -> Tensor:
    """:func:`carried`. Without new classes, another length than the number of
    classes may differ, as that of the history of scores."""
    if not has_new:
        for axis in axes:
            saved = saved.index_select(axis, there)
        return saved
    if saved.dim() != fresh.dim() or any(
            saved.shape[n] != fresh.shape[n] for n in range(saved.dim())
            if n not in axes):
        return fresh.clone()
    return carried(saved, fresh, there, here, axes)
