"""One interface to the text towers of open_clip.

A text tower turns words, or learned token embeddings in front of words, into
features. A tower here is a view of open_clip's module, which it does not own.

Shapes: P prompts, C classes, S positions of a shared prefix, R of each suffix,
D joint width.
"""
from contextlib import contextmanager
from typing import Iterator, Sequence, Union

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from .shared_prefix import encode_prompts
from .tokens import TokenizedPrompts, load_tokenizer, tokenize_prompts


class TextTower:
    """A view of what of a CLIP reads text.

    Args:
        model: The CLIP.
        arch: Its name, which tells the tokenizer.
        compile: Run prompts that can be cut through ``torch.compile``.
    """

    def __init__(self, model: nn.Module, arch: str, compile: bool = False):
        self.model, self.arch = model, arch
        self.tokenizer = load_tokenizer(arch)
        self.context_length = self.tokenizer.context_length
        # Of the mini CLIPs: the only words that they have seen.
        self.known_tokens = getattr(model, 'known_tokens', None)
        self.can_be_cut = can_be_cut(model)
        self._encode = torch.compile(encode_prompts) if compile else (
            encode_prompts)

    @property
    def embedding(self) -> nn.Module:
        """From token ids to what the first layer reads."""
        text = text_part(self.model)
        if hasattr(text, 'token_embedding'):
            return text.token_embedding
        return text.transformer.get_input_embeddings()

    def tokenize(self, names: Sequence[str], context: Union[str, int]
                 ) -> TokenizedPrompts:
        """See :func:`~.tokens.tokenize_prompts`."""
        return tokenize_prompts(self.tokenizer, self.context_length, names,
                                context, self.known_tokens)

    @torch.no_grad()
    def embed(self, ids: Tensor) -> Tensor:
        """``(N, L)`` ids -> ``(N, L, width)``."""
        return self.embedding(ids)

    def __call__(self, prefix: Tensor, suffix: Tensor, end: Tensor,
                 kept: Tensor, ids: Tensor) -> Tensor:
        """Text features of embedded prompts.

        Args:
            prefix: ``(P, S, width)`` embeddings that all C prompts share.
            suffix: ``(P, C, R, width)`` the rest of each, up to the end of the
                longest.
            end: ``(C,)`` position of each prompt's end token.
            kept: ``(T,)``, of :func:`~.shared_prefix.kept_positions`.
            ids: ``(C, context_length)``. Those of learned context stand for
                any word; the tower reads from the others where a prompt ends.

        Returns:
            ``(P, C, D)``, not normalised.
        """
        if self.can_be_cut:
            return self._encode(text_part(self.model), prefix, suffix, end,
                                kept)
        return self.encode_whole(prefix, suffix, ids)

    def encode_whole(self, prefix: Tensor, suffix: Tensor, ids: Tensor
                     ) -> Tensor:
        """The same by the tower's own program, at its full length: for towers
        that see what is behind the end token."""
        groups, classes, own = suffix.shape[:3]
        padding = self.embed(ids[:, prefix.shape[1] + own:])
        embedded = torch.cat([
            prefix[:, None].expand(-1, classes, -1, -1), suffix,
            padding.expand(groups, -1, -1, -1)], 2)
        with replaced_output(self.embedding, embedded.flatten(0, 1)):
            found = self.model.encode_text(ids.repeat(groups, 1))
        return found.unflatten(0, (groups, classes))


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
            and pool in ('argmax', 'eos')
            and isinstance(text.text_projection, Tensor)
            and all(type(block) is ResidualAttentionBlock
                    for block in text.transformer.resblocks))


@contextmanager
def replaced_output(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Let a module give this output, whatever its input is."""
    hook = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        hook.remove()
