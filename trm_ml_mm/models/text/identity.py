"""What text features belong to: a frozen CLIP, and class names with their
words."""
import hashlib
from typing import Optional, Sequence

import torch
from torch import Tensor


def text_identity(fingerprint: Optional[str], names: Sequence[str],
                  words: Sequence[str]) -> Tensor:
    """64 bytes ``(64,)`` that a checkpoint stores: 32 of the CLIP, 32 of the
    names and words.

    Args:
        fingerprint: See :class:`~trm_ml_mm.models.towers.LoadedCLIP`. None:
            zeros.
        names: Of the classes.
        words: Of each class, in the prompts.
    """
    digest = hashlib.sha256('\n'.join([*names, *words]).encode()).digest()
    return torch.tensor(list(bytes.fromhex(fingerprint or '00' * 32))
                        + list(digest), dtype=torch.uint8)


def check_identity(saved: Tensor, own: Tensor, names: Sequence[str],
                   arch: Optional[str]) -> None:
    """Compare what a checkpoint belongs to with what it is loaded into.

    Args:
        saved: ``(64,)`` of the checkpoint.
        own: ``(64,)`` of the model.
        names: Of the model's classes.
        arch: Of the model's CLIP; None: it has none, so only names count.

    Raises:
        ValueError: If they differ; says in what.
    """
    saved = saved.cpu()
    if arch is not None and not torch.equal(saved[:32], own[:32]):
        raise ValueError(
            'The checkpoint was learned on another frozen CLIP than this one '
            f'({arch}): set arch, weights and image_size to those it was '
            'trained with.')
    if not torch.equal(saved[32:], own[32:]):
        raise ValueError(
            'The checkpoint was learned for other class names, or other words '
            f'for them, than these {len(names)} ({", ".join(names[:3])}, '
            '...): set classes to those it was trained with, in the same '
            'order.')
