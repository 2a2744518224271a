"""How wide a tower's joint space is, as far as the method depends on it.

Shapes: B images, C categories, L locations, D joint width.
"""
from typing import Dict, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_ml_mm.labels import ABSENT, PRESENT

from .alignment import REFERENCE_SPREAD, centred, cosine_spread
from .backbones import CLIPFeatures
from .region import as_locations


class Geometry(NamedTuple):
    """Cosines between texts and images of some batches."""

    text: Tensor  # (C, C) between texts
    image: Tensor  # (N, C) of the image embedding
    best: Tensor  # (N, C) of the best location
    spread: Tensor  # (N, C) standard deviation over the image's locations
    aligned_spread: Tensor  # (N, ) of the image's batch, after alignment
    attended: Tensor  # (N, C) effective number of locations looked at
    targets: Tensor  # (N, C)

    def summary(self) -> Dict[str, float]:
        """Means, over the labels they concern; NaN if there is none."""
        other = ~torch.eye(len(self.text), dtype=torch.bool)
        right, wrong = self.targets == PRESENT, self.targets == ABSENT
        return {
            'text, two classes': self.text[other].mean().item(),
            'text, lowest': self.text.min().item(),
            'image, right text': self.image[right].mean().item(),
            'image, wrong text': self.image[wrong].mean().item(),
            'best location, right text': self.best[right].mean().item(),
            'best location, wrong text': self.best[wrong].mean().item(),
            'spread over locations': self.spread.mean().item(),
            'spread after alignment': self.aligned_spread.mean().item(),
            'locations attended': self.attended.mean().item(),
        }


def separation(cosines: Tensor, targets: Tensor) -> float:
    """How far the images with a category are from those without, in standard
    deviations of that category's cosines; mean over categories with both
    labels. NaN if there is none.

    Args:
        cosines: ``(N, C)``.
        targets: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
    """
    found = []
    for values, labels in zip(cosines.T, targets.T):
        right, wrong = values[labels == PRESENT], values[labels == ABSENT]
        if len(right) and len(wrong):
            found.append((right.mean() - wrong.mean()) /
                         values.std(correction=0).clamp(min=1e-6))
    return torch.stack(found).mean().item() if found else float('nan')


def measure_geometry(feats: CLIPFeatures, targets: Tensor,
                     attention_scale: float, align: bool) -> Geometry:
    """Geometry of one batch.

    Args:
        feats: With the pooled embedding and the mean text.
        targets: ``(B, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        attention_scale: Of the first attention logits.
        align: Whether attention is over the aligned joint space. All cosines
            are those of the joint space as it is.
    """
    text = feats.zero_shot_text
    locations = F.normalize(as_locations(feats.dense).float(), dim=-1)
    cosines = locations @ text.T  # B L C
    aligned = centred(locations, locations.mean((0, 1)))
    queries = centred(text, feats.text_mean)
    spread = cosine_spread(aligned, queries)
    attention = attention_scale * cosines
    if align:
        attention = attention_scale * REFERENCE_SPREAD / spread * (
            aligned @ queries.T)
    weights = torch.softmax(attention, 1)
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(1)
    return Geometry(
        text @ text.T, F.normalize(feats.pooled.float(), dim=-1) @ text.T,
        cosines.amax(1), cosines.std(1, correction=0),
        spread.expand(len(targets)), entropy.exp(), targets)


def joined(parts) -> Geometry:
    """The geometry of all batches."""
    text = parts[0].text
    return Geometry(text, *(torch.cat(values) for values in
                            list(zip(*parts))[1:]))
