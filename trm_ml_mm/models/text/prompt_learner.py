"""Learnable context in front of class names (CoOp, arXiv 2109.01134)."""
from functools import lru_cache
from typing import Sequence, Tuple, Union

import open_clip
import torch
from torch import Tensor, nn

from ..towers import text_part


@lru_cache(maxsize=1)
def tokenizer() -> open_clip.SimpleTokenizer:
    """CLIP's tokenizer; reading its vocabulary takes half a second."""
    return open_clip.SimpleTokenizer()


def tokenize_prompts(clip: nn.Module, names: Sequence[str],
                     context: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Token ids of ``[start] [context] name . [end]``, padded to the longest.

    The text tower is causal: what follows the end token cannot change its
    feature. So prompts are padded to the longest one, not to 77 positions.

    Args:
        clip: Tells the number of positions and, for the mini CLIP, which
            words it knows.
        names: N class names, as words.
        context: Token ids in front of every name.

    Returns:
        ids: ``(N, L)``.
        end: ``(N,)`` position of each prompt's end token.

    Raises:
        ValueError: If a prompt is longer than the text tower allows, or the
            mini CLIP doesn't know a word.
    """
    encoder, places = tokenizer(), text_part(clip).context_length
    known = getattr(clip, 'known_tokens', None)
    rows = []
    for name in names:
        row = [
            encoder.sot_token_id, *context,
            *encoder.encode(f'{name}.'), encoder.eot_token_id
        ]
        if len(row) > places:
            raise ValueError(
                f'The prompt of "{name}" takes {len(row)} tokens '
                f'({len(context)} of them context), and the text tower has '
                f'{places} positions: shorten the name with prompt_names, or '
                'the context.')
        if known is not None and not known.issuperset(row):
            word = next(t for t in row if t not in known)
            raise ValueError(
                'The mini CLIP never learned the word '
                f'"{encoder.decode([word]).strip()}" in the prompt of '
                f'"{name}": it knows the names of the built-in scenes only; '
                'use a real CLIP for other classes.')
        rows.append(torch.tensor(row))
    end = torch.tensor([len(row) - 1 for row in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), end


def kept_positions(end: Tensor, shared: int, own: int) -> Tensor:
    """Which suffix positions are not beyond an end token: indices
    ``c * R + r`` of position r of class c's suffix, ``(T,)``.

    Args:
        end: ``(C,)`` positions of the end tokens, in the whole prompt.
        shared: S, number of positions that all prompts share as a prefix.
        own: R, number of positions of the padded suffixes.
    """
    positions = torch.arange(own, device=end.device)
    return (positions <= (end - shared)[:, None]).flatten().nonzero()[:, 0]


class PromptLearner(nn.Module):
    """Prompts whose context tokens are learned.

    Calling it returns the prefix that all prompts share ``(P, S, width)``, the
    suffixes ``(P, C, R, width)``, the position of each class's end token
    ``(C,)``, and :func:`kept_positions` ``(T,)``. P is 2 for a pair, else 1.

    Args:
        clip: Gives the token embedding; it is read, not stored.
        names: C class names, as words.
        context: Words to start from ("a photo of a"), or the number of context
            tokens to draw at random (standard deviation 0.02, as CoOp).
        pair: Learn a positive and a negative prompt per class (DualCoOp),
            which start equal. False: one prompt.
        class_specific: One context per class. False: all classes share it.
        learnable: Whether the context is a parameter.

    Raises:
        ValueError: If a prompt is longer than the text tower allows.
    """

    def __init__(self,
                 clip: nn.Module,
                 names: Sequence[str],
                 context: Union[str, int] = 'a photo of a',
                 pair: bool = False,
                 class_specific: bool = False,
                 learnable: bool = True):
        super().__init__()
        self.num_prompts = 2 if pair else 1
        self.num_classes = len(names)
        self.class_axes = dict(context=(1, )) if class_specific else {}
        table = text_part(clip).token_embedding.weight
        groups = self.num_prompts, len(names) if class_specific else 1
        if isinstance(context, str):
            ids = tokenizer().encode(context)
            start = table[torch.tensor(ids, dtype=torch.long)].detach()
            start = start.expand(*groups, -1, -1).clone()
        else:
            # Placeholder tokens: a random context is no word.
            ids = [tokenizer().sot_token_id] * context
            start = torch.empty(*groups, context, table.shape[1])
            start.normal_(std=0.02)
        if learnable:
            self.context = nn.Parameter(start)
        else:
            # Words can be looked up again; random values must be saved.
            self.register_buffer(
                'context', start, persistent=not isinstance(context, str))
        tokens, end = tokenize_prompts(clip, names, ids)
        embedded = table[tokens].detach()
        self.register_buffer('end', end, persistent=False)
        self.register_buffer('tokens', tokens, persistent=False)
        self.register_buffer('start', embedded[:, :1], persistent=False)
        self.register_buffer(
            'rest', embedded[:, 1 + len(ids):].clone(), persistent=False)
        shared = 1 + (0 if class_specific and len(names) > 1 else len(ids))
        # Computed once, not in every step: nonzero synchronises the device.
        self.register_buffer(
            'kept', kept_positions(end, shared, tokens.shape[1] - shared),
            persistent=False)

    def forward(self):
        start = self.start.expand(self.num_prompts, -1, -1, -1)
        rest = self.rest.expand(self.num_prompts, -1, -1, -1)
        if self.context.shape[1] == 1:  # shared by all classes
            prefix = torch.cat([start[:, 0], self.context[:, 0]], 1)
            return prefix, rest, self.end, self.kept
        suffix = torch.cat([self.context, rest], 2)
        return start[:, 0], suffix, self.end, self.kept
