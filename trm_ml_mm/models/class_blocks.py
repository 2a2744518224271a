"""Work on some of the classes at a time, where there are many.

No array of the model grows with all pairs of classes, C x C, or with the
features of all classes at once, B x C x D, beyond the limits below. Up to them
one block holds all classes, and nothing is cut. Ours.

Shapes: B images, C categories, K of them.
"""
from typing import List, Optional, Union

import torch
from torch import Tensor

# Entries of one array of similarities: 128 MB in fp32. With 32 images, a
# category's features are compared with 1,024 prototypes of as many categories.
MAX_SIMILARITIES = 2**25
# Classes whose regions are found, or whose prompts are encoded, at once.
CLASSES_AT_ONCE = 1024

# Indices (K,), a slice, or None: all of them.
Classes = Optional[Union[Tensor, slice]]


def class_blocks(classes: int, size: Optional[int] = None) -> List[slice]:
    """All classes, in blocks of at most ``size``; None:
    ``CLASSES_AT_ONCE``."""
    size = size or CLASSES_AT_ONCE
    return [slice(start, min(start + size, classes))
            for start in range(0, classes, size)]


def similarity_blocks(classes: int, rows: int) -> List[slice]:
    """Blocks of classes, each compared with this many rows at once, so that
    no array of similarities exceeds ``MAX_SIMILARITIES``."""
    return class_blocks(classes, max(MAX_SIMILARITIES // rows, 1))


def take(values: Tensor, classes: Classes, axis: int = 0) -> Tensor:
    """The entries of some classes along an axis."""
    if classes is None:
        return values
    if isinstance(classes, slice):
        return values[(slice(None), ) * axis + (classes, )]
    classes = classes.to(values.device, non_blocking=True)
    return values.index_select(axis, classes)


def spread(values: Tensor, classes: Optional[Tensor], total: int,
           fill: float = 0.) -> Tensor:
    """``(B, K)`` of some classes -> ``(B, C)`` of all.

    Args:
        values: ``(B, K)``.
        classes: ``(K,)`` their indices; None: all, in order.
        total: C.
        fill: Value of all other classes.
    """
    if classes is None:
        return values
    whole = torch.full((len(values), total), fill, dtype=values.dtype,
                       device=values.device)
    return whole.index_copy(1, classes, values)
