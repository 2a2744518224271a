"""Federated class sampling: the classes of one training step.

With thousands of classes, an image has a known label of few. A step then works
on those that its batches have a label of, and on a random sample of the others
as in the federated loss of detectron2 for LVIS (``get_fed_loss_classes``; Zhou
et al., arXiv 2103.07461), which samples by frequency; here it is uniform.
"""
from typing import Optional

import numpy as np
import torch
from torch import Tensor

from trm_ml_mm.utils.seeding import mix_seed

from .label_statistics import LabelCounts


@torch.no_grad()
def sample_classes(count: Optional[int], batch: LabelCounts,
                   seen: Tensor) -> Optional[Tensor]:
    """Choose the classes of a training step.

    The choice follows from the labels of all ranks and from ``seen``: all
    ranks make the same one, and a resumed run the one that it would have made.
    One transfer from the device, none if nothing is sampled.

    Args:
        count: How many classes. More, if more have a known label in the step.
            None: all.
        batch: Label counts of the step, over all ranks.
        seen: Scalar, images of all steps so far, this one included.

    Returns:
        ``(K,)`` class indices, ascending, on the CPU; None: all classes.
    """
    if count is None or count >= len(batch.positives):
        return None
    labels = torch.cat([batch.positives + batch.negatives, seen[None]])
    *labels, seen = labels.tolist()
    is_chosen = np.array(labels) > 0
    others = np.flatnonzero(~is_chosen)
    missing = min(max(count - int(is_chosen.sum()), 0), len(others))
    random = np.random.default_rng(mix_seed(seen))
    is_chosen[random.choice(others, missing, replace=False)] = True
    return torch.from_numpy(np.flatnonzero(is_chosen))
