"""The wrapper that hides labels."""
import hashlib
import logging
from typing import Union

import numpy as np
from mmengine.dataset import BaseDataset as EngineDataset
from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from mmengine.logging import print_log

from trm_ml_mm.labels import (
    PRESENT,
    UNKNOWN,
    check_known,
    draw_mask,
    mask_hash,
)
from trm_ml_mm.labels.protocols import is_positive_list
from trm_ml_mm.registry import DATASETS

from .base import label_matrix, read_sample, resolve_dataset


@DATASETS.register_module()
class PartialLabelDataset:
    """Hide labels of a multi-label data set: hidden labels become UNKNOWN.

    The mask is drawn once over the whole set. It does not depend on worker,
    rank, epoch or image. Its hash is in ``metainfo['known_labels']`` and in
    every checkpoint, and a run does not resume on another mask.

    Args:
        dataset: The wrapped data set, or its config. A ``ConcatDataset`` of
            several, such as VOC 2007 and 2012, shares one mask. Labels that
            are unknown there stay unknown.
        known: Proportion of known labels in (0, 1]; 'single_positive'; 'all';
            or a file (a saved mask, or a list of known positives); see
            :func:`~trm_ml_mm.labels.draw_mask`.
        seed: Draws the mask. ``None``: the protocol's own (0 for a
            proportion, 1200 for single positive).

    Raises:
        ValueError: If ``known`` is none of these, a file does not fit, a
            label is not 1, 0 or -1, no label is known, or the wrapped set
            repeats images.
    """

    def __init__(self,
                 dataset: Union[dict, EngineDataset],
                 known: Union[float, str] = 0.1,
                 seed: int = None,
                 lazy_init: bool = False):
        check_known(known)
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        _check_unrepeated(dataset)
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
        images = []
        if is_positive_list(self.known):
            images = [
                self.dataset.get_data_info(i)['img_path']
                for i in range(len(self.dataset))
            ]
        mask = draw_mask(labels, self.known, self.seed, images,
                         list(self.dataset.metainfo['classes']))
        self._packed = np.packbits(mask)
        self._hash = mask_hash(mask)
        # One byte per label; workers share it, because nothing writes to it.
        self._scores = np.where(mask, labels, UNKNOWN).astype(np.int8)
        _check_supervision(self._scores)

    @property
    def metainfo(self) -> dict:
        """The wrapped set's, with the mask's description."""
        self.full_init()
        return dict(
            self.dataset.metainfo,
            known_labels=dict(
                known=self.known,
                seed=self.seed,
                hash=self._hash,
                labels=hashlib.sha256(self._scores.tobytes()).hexdigest()[:16]
            ))

    @property
    def labels(self) -> np.ndarray:
        """What training sees: ``(N, C)`` int8 in {PRESENT, ABSENT, UNKNOWN}."""
        self.full_init()
        return self._scores

    @property
    def mask(self) -> np.ndarray:
        """Which labels the protocol leaves known: ``(N, C)`` bool."""
        self.full_init()
        size = self._scores.size
        return np.unpackbits(self._packed)[:size].reshape(
            self._scores.shape).astype(bool)

    def get_data_info(self, idx: int) -> dict:
        """The wrapped set's entry, with hidden labels replaced by UNKNOWN."""
        self.full_init()
        info = self.dataset.get_data_info(idx)
        info.pop('gt_label', None)
        info['gt_score'] = self._scores[idx].astype(np.float32)
        return info

    def get_cat_ids(self, idx: int):
        """Indices of the classes known to be present in one sample."""
        return np.flatnonzero(self.labels[idx] == PRESENT).tolist()

    def __getitem__(self, idx: int) -> dict:
        inner = resolve_dataset(self.dataset, idx)
        return read_sample(inner.pipeline, self.get_data_info, idx, len(self),
                           getattr(inner, 'on_error', 'raise'))

    def __len__(self) -> int:
        return len(self.dataset)


def _check_unrepeated(dataset) -> None:
    """Refuse wrappers that repeat images: each copy would have a mask of its
    own, and together they would know more labels than was asked for.

    Raises:
        ValueError: Names the right order.
    """
    if isinstance(dataset, (ClassBalancedDataset, RepeatDataset)):
        name = type(dataset).__name__
        raise ValueError(
            f'PartialLabelDataset around {name} would hide other labels in '
            f'each copy of an image: put {name} around PartialLabelDataset.')
    for inner in (getattr(dataset, 'dataset', None),
                  *getattr(dataset, 'datasets', ())):
        if inner is not None:
            _check_unrepeated(inner)


def _check_supervision(labels: np.ndarray) -> None:
    """Refuse labels that nothing can be learned from; warn of thin ones.

    Raises:
        ValueError: If no label at all is known.
    """
    if not (labels != UNKNOWN).any():
        raise ValueError(
            'No label is known, so there is nothing to learn from: check the '
            'labels and the mask, or raise known.')
    empty = int((labels != PRESENT).all(0).sum())
    if empty:
        print_log(f'{empty} of {labels.shape[1]} classes have no image that '
                  'is known to have them.', 'current', logging.WARNING)
    if len(labels) == 1:
        print_log('There is only one image.', 'current', logging.WARNING)
