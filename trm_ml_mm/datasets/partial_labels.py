"""Masks of known labels, and the wrapper that hides the other ones."""
import hashlib
from typing import Tuple, Union

import numpy as np
from mmengine.dataset import BaseDataset as EngineDataset

from trm_ml_mm.registry import DATASETS

from .base import apply_pipeline, label_matrix


def check_proportion(proportion) -> None:
    if not isinstance(proportion, (int, float)) or not 0 < proportion <= 1:
        raise ValueError(
            'The proportion of known labels must be a number in (0, 1] (or, '
            f"in a config, 'single_positive'), got {proportion!r}.")


def known_label_mask(shape: Tuple[int, int],
                     proportion: float,
                     seed: int = 0) -> np.ndarray:
    """Which labels are known when a proportion of them is.

    The rule of SST, SARB and HST: every (image, class) label is kept
    independently, positive or negative alike. For one seed the masks are
    nested: what is known at 10% is known at 20%. Row order matters: rows are
    the images in the order of the official list.

    Args:
        shape: (N, C), images and classes.
        proportion: Share of known labels, in (0, 1].
        seed: Draws the mask.

    Returns:
        ``(N, C)`` bool, True = known.

    Raises:
        ValueError: If the proportion is not in (0, 1].
    """
    check_proportion(proportion)
    return np.random.RandomState(seed).random_sample(shape) < proportion


def single_positive_mask(labels: np.ndarray, seed: int = 1200) -> np.ndarray:
    """One known positive per image; everything else unknown.

    The setting of Cole et al., CVPR 2021 (arXiv 2106.09708), with a seeded
    choice per image. An image without a positive keeps no label.

    Args:
        labels: ``(N, C)`` in {1, 0, -1}.
        seed: Draws the positives.

    Returns:
        ``(N, C)`` bool, True = known.
    """
    rng = np.random.RandomState(seed)
    mask = np.zeros(labels.shape, bool)
    for i, row in enumerate(labels):
        positives = np.flatnonzero(row == 1)
        rng.shuffle(positives)
        mask[i, positives[:1]] = True
    return mask


def mask_hash(mask: np.ndarray) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the packed mask."""
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]


@DATASETS.register_module()
class PartialLabelDataset:
    """Hide labels of a multi-label data set: hidden ones become -1, unknown.

    The mask is drawn once over the whole set, so that it does not depend on
    worker, rank, epoch or image. Its hash goes to
    ``metainfo['known_labels']``, is stored in checkpoints, and a run does not
    resume on another mask.

    Args:
        dataset: The wrapped data set, or its config. Labels that are unknown
            there stay unknown.
        known: Proportion of known labels in (0, 1], or 'single_positive'.
        seed: Draws the mask. ``None``: the protocol's own (0 for a
            proportion, 1200 for single positive).

    Raises:
        ValueError: If ``known`` is neither, or a label is not 1, 0 or -1.
    """

    def __init__(self,
                 dataset: Union[dict, EngineDataset],
                 known: Union[float, str] = 0.1,
                 seed: int = None,
                 lazy_init: bool = False):
        if known != 'single_positive':
            check_proportion(known)
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        self.known = known
        self.seed = seed
        self._scores = None
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read the labels and draw the mask; later calls do nothing."""
        if self._scores is not None:
            return
        self.dataset.full_init()
        labels = label_matrix(self.dataset)
        if self.known == 'single_positive':
            seed = 1200 if self.seed is None else self.seed
            mask = single_positive_mask(labels, seed)
        else:
            seed = 0 if self.seed is None else self.seed
            mask = known_label_mask(labels.shape, self.known, seed)
        self._hash = mask_hash(mask)
        # One byte a label; workers share it, as nothing ever writes to it.
        self._scores = np.where(mask, labels, -1).astype(np.int8)

    @property
    def metainfo(self) -> dict:
        """The wrapped set's, with the mask's description."""
        self.full_init()
        return dict(
            self.dataset.metainfo,
            known_labels=dict(
                known=self.known, seed=self.seed, hash=self._hash))

    @property
    def labels(self) -> np.ndarray:
        """What training sees: ``(N, C)`` int8 in {1, 0, -1}."""
        self.full_init()
        return self._scores

    def get_data_info(self, idx: int) -> dict:
        """The wrapped set's entry, its hidden labels replaced by -1."""
        self.full_init()
        info = self.dataset.get_data_info(idx)
        info.pop('gt_label', None)
        info['gt_score'] = self._scores[idx].astype(np.float32)
        return info

    def get_cat_ids(self, idx: int):
        """Indices of the classes known to be present in one sample."""
        return np.flatnonzero(self.labels[idx] == 1).tolist()

    def __getitem__(self, idx: int) -> dict:
        return apply_pipeline(self.dataset.pipeline, self.get_data_info(idx))

    def __len__(self) -> int:
        return len(self.dataset)
