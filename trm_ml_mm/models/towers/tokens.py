"""Prompts -> token ids, by the tokenizer of an architecture.

A tokenizer here is one of open_clip's: it takes texts and a length, and gives
ids of that length, padded.
"""
from functools import cache
from typing import (
    Callable,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Set,
    Union,
)

import open_clip
import torch
from torch import Tensor

from .mini import MINI_CONFIGS


class TokenizedPrompts(NamedTuple):
    """``[start] [context] name . [end] [padding]``, N prompts."""

    ids: Tensor  # (N, context_length)
    start: int  # number of tokens before the context: 1, or 0 if there is none
    context: int  # number of context tokens
    end: Tensor  # (N,) position of each prompt's last token before the padding


@cache
def load_tokenizer(arch: str) -> Callable:
    """The tokenizer that an architecture was trained with. Reading its
    vocabulary takes half a second, or a download.

    Raises:
        ImportError: If it needs ``transformers``, which is not installed.
        FileNotFoundError: If it cannot be downloaded.
    """
    if arch in MINI_CONFIGS:
        return open_clip.SimpleTokenizer(
            context_length=MINI_CONFIGS[arch]['text_cfg']['context_length'])
    text = open_clip.get_model_config(arch)['text_cfg']
    # The config of a folder could ask for a program in it.
    safe = dict(trust_remote_code=False) if (
        text.get('hf_tokenizer_name')) else {}
    try:
        return open_clip.get_tokenizer(arch, **safe)
    except ImportError:
        refuse_without_transformers(arch)
    except (OSError, ValueError) as error:  # no internet, or no such files
        raise FileNotFoundError(
            f'The tokenizer of {arch} cannot be loaded. {error} Without '
            'internet, give an open_clip folder that holds its files: '
            "arch='local-dir:FOLDER'.") from error


def refuse_without_transformers(arch: str) -> NoReturn:
    """Say what to do without Hugging Face's library.

    Raises:
        ImportError: Always.
    """
    raise ImportError(
        f"{arch} reads text by Hugging Face's transformers, which is not "
        'installed: pip install "trm_ml_mm[hf]", or take an architecture with '
        "CLIP's own tokenizer, such as ViT-B-16, convnext_base_w, EVA02-B-16 "
        'or MobileCLIP2-S2.')


def tokenize_prompts(tokenizer: Callable, context_length: int,
                     names: Sequence[str], context: Union[str, int],
                     known: Optional[Set[int]] = None) -> TokenizedPrompts:
    """Token ids of "{context} {name}." for each name.

    Args:
        tokenizer: See :func:`load_tokenizer`.
        context_length: Positions of the text tower.
        names: N class names, as words.
        context: Words in front of every name; or a number of tokens that
            stand for no word: their embeddings are learned.
        known: All tokens that the text tower has seen; None: any.

    Raises:
        ValueError: If a prompt is longer than the text tower allows, the
            tokenizer joins the context with a name, or the tower does not know
            a word.
    """
    count = context if isinstance(context, int) else None
    # Tokens that stand for no word need one that they stand for.
    words = context if count is None else 'a' * bool(count)
    texts = [f'{words} {name}.'.strip() for name in names]
    # Nothing is truncated at this length, unless it is far too long.
    ample = 4 * context_length
    empty, first, alone, *rows = tokenizer(['', 'a', words, *texts], ample)
    start = int((empty != first).nonzero()[0])
    length = _length(alone) - _length(empty)
    count = length if count is None else count
    more = count - length
    head = alone[start:start + length]
    fitting = tokenizer(texts, max(1, context_length - more))
    ids = []
    for name, row, short in zip(names, rows, fitting):
        if more >= context_length or not torch.equal(row[:len(short)], short):
            raise ValueError(
                f'The prompt of "{name}" takes {_length(row) + more} tokens '
                f'({count} of them context), and the text tower has '
                f'{context_length} positions: shorten the name with '
                'prompt_names, or the context.')
        if not torch.equal(row[start:start + length], head):
            raise ValueError(
                f'The tokenizer joins the context "{words}" with the name '
                f'"{name}": end the context with a whole word.')
        token = short[start:start + min(length, 1)].expand(max(more, 0))
        row = torch.cat([short[:start + min(length, count)], token,
                         short[start + length:]])
        _check_known(tokenizer, row, name, known)
        ids.append(row)
    ids = torch.stack(ids)
    return TokenizedPrompts(ids, start, count, torch.tensor(
        [_length(row) - 1 for row in ids]))


def _length(row: Tensor) -> int:
    """Number of tokens of a row that ends with padding, or is full."""
    other = (row != row[-1]).nonzero()
    return int(other[-1]) + 1 if len(other) else 0


def _check_known(tokenizer: Callable, row: Tensor, name: str,
                 known: Optional[Set[int]]) -> None:
    if known is None or known.issuperset(row.tolist()):
        return
    word = next(t for t in row.tolist() if t not in known)
    raise ValueError(
        'The mini CLIP never learned the word '
        f'"{tokenizer.decode([word]).strip()}" in the prompt of "{name}": it '
        'knows the names of the built-in scenes only; use a real CLIP for '
        'other classes.')
