"""Learnable context in front of class names (CoOp, arXiv 2109.01134)."""
from typing import Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..class_blocks import take
from ..towers import TextTower, kept_positions


class PromptLearner(nn.Module):
    """Prompts whose context tokens are learned.

    Calling it returns what a :class:`~trm_ml_mm.models.towers.TextTower` reads:
    the prefix that all prompts share ``(P, S, width)``, the suffixes
    ``(P, C, R, width)``, the position of each class's end token ``(C,)``,
    ``kept_positions`` ``(T,)`` and all ids ``(C, context_length)``. P is 2 for
    a pair, else 1. All of it is of some classes only, if it is called with
    their indices ``(K,)`` on the CPU.

    Args:
        tower: Gives tokens and their embeddings; it is read, not stored.
        names: C class names, as words.
        context: Words to start from ("a photo of a"), or the number of context
            tokens to draw at random (standard deviation 0.02, as CoOp).
        pair: Learn a positive and a negative prompt per class (DualCoOp),
            which start equal. False: one prompt.
        class_specific: One context per class. False: all classes share it.
        learnable: Whether the context is a parameter.

    Raises:
        ValueError: See
            :func:`~trm_ml_mm.models.towers.tokens.tokenize_prompts`.
    """

    def __init__(self,
                 tower: TextTower,
                 names: Sequence[str],
                 context: Union[str, int] = 'a photo of a',
                 pair: bool = False,
                 class_specific: bool = False,
                 learnable: bool = True):
        super().__init__()
        self.num_prompts = 2 if pair else 1
        self.num_classes = len(names)
        self.class_axes = dict(context=(1, )) if class_specific else {}
        ids, begin, count, end = tower.tokenize(names, context)
        # Behind the end of the longest prompt there is only padding.
        embedded = tower.embed(ids[:, :end.max() + 1])
        groups = self.num_prompts, len(names) if class_specific else 1
        if isinstance(context, str):
            start = embedded[0, begin:begin + count]
            start = start.expand(*groups, -1, -1).clone()
        else:
            start = torch.empty(*groups, count, embedded.shape[2])
            start.normal_(std=0.02)
        if learnable:
            self.context = nn.Parameter(start)
        else:
            # Words can be looked up again; random values must be saved.
            self.register_buffer(
                'context', start, persistent=not isinstance(context, str))
        self.register_buffer('end', end, persistent=False)
        self.register_buffer('ids', ids, persistent=False)
        self.register_buffer('start', embedded[:, :begin].clone(),
                             persistent=False)
        self.register_buffer(
            'rest', embedded[:, begin + count:].clone(), persistent=False)
        shared = begin + (
            0 if class_specific and len(names) > 1 else count)
        # Computed once, not in every step: nonzero synchronises the device.
        self.register_buffer(
            'kept', kept_positions(end, shared, embedded.shape[1] - shared),
            persistent=False)
        self.lengths = end, shared, embedded.shape[1] - shared  # on the CPU

    def forward(self, classes: Optional[Tensor] = None) -> Tuple[Tensor, ...]:
        context, start, rest, end, kept, ids = (
            self.context, self.start, self.rest, self.end, self.kept, self.ids)
        if classes is not None:
            kept = kept_positions(self.lengths[0][classes], *self.lengths[1:])
            kept = kept.to(end.device, non_blocking=True)
            classes = classes.to(end.device, non_blocking=True)
            start, rest, end, ids = (take(x, classes)
                                     for x in (start, rest, end, ids))
        start = start.expand(self.num_prompts, -1, -1, -1)
        rest = rest.expand(self.num_prompts, -1, -1, -1)
        if context.shape[1] == 1:  # shared by all classes
            prefix = torch.cat([start[:, 0], context[:, 0]], 1)
            return prefix, rest, end, kept, ids
        suffix = torch.cat([take(context, classes, 1), rest], 2)
        return start[:, 0], suffix, end, kept, ids
