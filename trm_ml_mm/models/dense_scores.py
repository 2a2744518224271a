"""How much a dense map says about labels, without any training.

Shapes: B images, C categories, D joint width, L = H W locations, K labels that
are present and have a box.
"""
from typing import Dict, NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_ml_mm.labels import PRESENT

from .region import as_locations

Boxes = Dict[int, Sequence[Sequence[float]]]


class DenseScores(NamedTuple):
    """What one dense map says about some images."""

    best: Tensor  # (B, C) cosine of the best location
    hits: Tensor  # (K,) bool: that location lies in a box of the category
    chance: Tensor  # (K,) ratio of locations that do


def score_dense_map(dense: Tensor, text: Tensor, targets: Tensor,
                    boxes: Sequence[Optional[Boxes]]) -> DenseScores:
    """Zero-shot scores of a dense map, and its pointing game.

    The pointing game (Zhang et al., arXiv 1608.00507) counts how often the
    best location of a present category lies in a box of that category. A
    location stands for its centre, and nothing is tolerated beside a box.

    Args:
        dense: ``(B, D, H, W)``.
        text: ``(C, D)``, normalised.
        targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        boxes: Of each image: class -> left, top, right, bottom, as ratios of
            the image; None: not known.
    """
    cosines = F.normalize(as_locations(dense).float(), dim=-1) @ text.T
    best, where = cosines.max(1)  # B C
    centres = grid_centres(*dense.shape[-2:])
    hits, chance = [], []
    for row, labels, found in zip(where.cpu(), targets.cpu(), boxes):
        for number in (labels == PRESENT).nonzero()[:, 0].tolist():
            if found and number in found:
                inside = inside_boxes(centres, found[number])
                hits.append(inside[row[number]])
                chance.append(inside.float().mean())
    return DenseScores(
        best.cpu(), torch.tensor(hits, dtype=torch.bool), torch.tensor(chance))


def grid_centres(height: int, width: int) -> Tensor:
    """Centres of all locations, line by line: ``(L, 2)``, x and y as ratios
    of the image."""
    y, x = ((torch.arange(side) + .5) / side for side in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), -1).flatten(0, 1)


def inside_boxes(points: Tensor, boxes: Sequence[Sequence[float]]) -> Tensor:
    """Whether points ``(L, 2)`` lie in any of some boxes: ``(L,)`` bool."""
    corners = torch.as_tensor(boxes).to(points)[:, None]  # n 1 4
    return ((points >= corners[..., :2]) & (points < corners[..., 2:])
            ).all(-1).any(0)


def joined_scores(parts: Sequence[DenseScores]) -> DenseScores:
    """The scores of all batches."""
    return DenseScores(*map(torch.cat, zip(*parts)))
