"""A start that does not depend on the tower's scale.

In a real CLIP, images and texts lie in two narrow cones: every cosine carries a
large constant, and what tells right from wrong is small. How narrow the cones
are differs from tower to tower. After alignment, no setting depends on it:

* Centring: subtract the mean location (the mean image embedding, the mean
  text) from each normalised feature, and normalise again. Cones disappear.
* Unit: scales of the head are divided by the spread of the cosines between
  texts and locations, relative to that of the built-in towers, for which the
  scales in the configs were tuned.

Ours. Shapes: B images, C categories, L locations, D joint width, P prompts.
"""
from typing import Tuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from trm_ml_mm.utils.checks import check_positive
from trm_ml_mm.utils.precision import as_double

from .class_blocks import similarity_blocks

# Random features of 1,024 dimensions have a spread of 0.03. A smaller one means
# that images are all alike, such as a batch of one colour.
MIN_SPREAD = 0.02
# Of both built-in towers after alignment:
# `python tools/inspect_tower.py configs/trm_ml_scenes.py` prints it.
REFERENCE_SPREAD = 0.25


def centred(features: Tensor, mean: Tensor) -> Tensor:
    """Normalise, subtract the mean, normalise again: ``(..., D)`` fp32."""
    features = F.normalize(features.float(), dim=-1)
    return F.normalize(features - mean, dim=-1)


def cosine_spread(locations: Tensor, text: Tensor) -> Tensor:
    """Standard deviation of the cosine with a text, over the locations of all
    images of all ranks; mean over texts: scalar.

    Args:
        locations: ``(B, L, D)``, normalised.
        text: ``(C, D)``, normalised.
    """
    locations = as_double(locations.flatten(0, 1))  # BL D
    moments = []
    # Three moments in double precision: six times as much as similarities.
    for block in similarity_blocks(len(text), 6 * len(locations)):
        cosines = locations @ as_double(text[block]).T  # BL k
        moments.append(torch.stack(
            [torch.ones_like(cosines), cosines, cosines**2]).sum(1))
    moments = torch.cat(moments, 1)  # 3 C
    all_reduce(moments)
    count, total, squares = moments
    variance = squares / count - (total / count)**2
    return variance.clamp(min=0).sqrt().mean().float()


class JointSpaceAlignment(nn.Module):
    """Centres the joint space and measures its unit on the first images.

    The means of images are running means over the first ``images`` training
    images of all ranks; then they stay. The mean text comes with the text
    features, so it does not depend on the classes alone. All of it is part of
    the checkpoint.

    Args:
        dim: D.
        images: How many images the means and the unit are measured on.

    Raises:
        ValueError: If ``images`` is not positive.
    """

    def __init__(self, dim: int, images: int = 256):
        super().__init__()
        check_positive(images=images)
        self.images = images
        for name in ('location_mean', 'pooled_mean'):
            self.register_buffer(name, torch.zeros(dim))
        self.register_buffer('unit', torch.ones(()))
        self.register_buffer('seen', torch.zeros((), dtype=torch.long))
        self._seen = 0  # the buffer's value, without a device sync

    @property
    def is_measured(self) -> bool:
        """Whether any training image was measured."""
        return self._seen > 0

    @property
    def is_measuring(self) -> bool:
        """Whether more training images are needed."""
        return self._seen < self.images

    @torch.no_grad()
    def measure(self, locations: Tensor, pooled: Tensor,
                text: Tensor) -> None:
        """Learn from one training batch; call it while ``is_measuring``.

        Args:
            locations: ``(B, L, D)``.
            pooled: ``(B, D)``, or None.
            text: ``(C, D)`` centred text features.
        """
        count = torch.tensor(float(len(locations)), device=locations.device)
        sums = [F.normalize(locations.float(), dim=-1).mean(1).sum(0)]
        if pooled is not None:
            sums.append(F.normalize(pooled.float(), dim=-1).sum(0))
        total = torch.cat([*sums, count[None]])
        all_reduce(total)
        *means, count = total.split([*map(len, sums), 1])
        weight = count / (self.seen + count)
        for buffer, value in zip((self.location_mean, self.pooled_mean),
                                 means):
            buffer.lerp_(value / count, weight.item())
        spread = cosine_spread(centred(locations, self.location_mean), text)
        unit = spread.clamp(min=MIN_SPREAD) / REFERENCE_SPREAD
        if self._seen == 0:
            self.unit.copy_(unit)
        else:
            self.unit.lerp_(unit, weight.item())
        self.seen += count.long().squeeze()
        self._seen = int(self.seen)

    def forward(self, locations: Tensor, pooled: Tensor
                ) -> Tuple[Tensor, Tensor]:
        """Centred locations ``(B, L, D)`` and embedding ``(B, D)`` or None."""
        if pooled is not None:
            pooled = centred(pooled, self.pooled_mean)
        return centred(locations, self.location_mean), pooled

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        saved = state_dict.get(prefix + 'seen')
        if saved is not None:
            self._seen = int(saved)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
