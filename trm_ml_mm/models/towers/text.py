"""One interface to the text towers of open_clip.

Shapes: P prompts, C classes, S places of a shared prefix, R of each suffix,
D joint width.
"""
from contextlib import contextmanager
from typing import Iterator

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn


def text_part(model: nn.Module) -> nn.Module:
    """What of a CLIP reads text: open_clip's ``CLIP`` itself, or a tower of
    its own in the others."""
    return getattr(model, 'text', model)


def can_be_cut(model: nn.Module) -> bool:
    """Whether a prompt's feature depends on nothing behind its end token: the
    tower is causal, and reads the feature at that token. Only then a prompt
    may be cut there, and a prefix be computed once for all prompts."""
    text = text_part(model)
    pool = getattr(text, 'pool_type', None) or getattr(
        text, 'text_pool_type', None)
    return (getattr(text, 'attn_mask', None) is not None
            and getattr(text, 'cls_emb', None) is None
            and pool == 'argmax'
            and isinstance(text.text_projection, Tensor)
            and all(type(block) is ResidualAttentionBlock
                    for block in text.transformer.resblocks))


def encode_whole(model: nn.Module, prefix: Tensor, suffix: Tensor,
                 tokens: Tensor) -> Tensor:
    """Text features of embedded prompts by the tower's own program, at its
    full length.

    For towers that see what is behind the end token: it is padded as in their
    training.

    Args:
        model: The CLIP.
        prefix: ``(P, S, width)`` embeddings that all C prompts share.
        suffix: ``(P, C, R, width)`` the rest of each.
        tokens: ``(C, S + R)`` ids. Those of learned context stand for any
            word; the tower reads from the others where a prompt ends.

    Returns:
        ``(P, C, D)``, not normalised.
    """
    groups, classes = suffix.shape[:2]
    text = text_part(model)
    rest = text.context_length - tokens.shape[1]
    tokens = nn.functional.pad(tokens, (0, rest))
    padding = text.token_embedding(tokens[:, tokens.shape[1] - rest:])
    embedded = torch.cat([
        prefix[:, None].expand(-1, classes, -1, -1), suffix,
        padding.expand(groups, -1, -1, -1)], 2)
    with replaced_output(text.token_embedding, embedded.flatten(0, 1)):
        ids = tokens.repeat(groups, 1)
        found = model.encode_text(ids) if text is model else text(ids)
    if isinstance(found, tuple):  # of CoCa: all tokens too
        found = found[0]
    return found.unflatten(0, (groups, classes))


@contextmanager
def replaced_output(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Let a module give this output, whatever its input is."""
    hook = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        hook.remove()
