"""The wrapper that hides labels."""
import copy
import logging
from typing import List, Optional, Sequence, Union

import numpy as np
from mmengine.dataset import BaseDataset as EngineDataset
from mmengine.dataset import ClassBalancedDataset, Compose, RepeatDataset
from mmengine.logging import print_log

from trm_ml_mm.labels import (
    PRESENT,
    LabelMatrix,
    check_known,
    keep_known,
    mask_hash,
    stacked,
)
from trm_ml_mm.labels.protocols import is_positive_list
from trm_ml_mm.registry import DATASETS

from .base import (
    MultiLabelDataset,
    matrix_of,
    no_sample,
    read_sample,
    resolve_dataset,
)


@DATASETS.register_module()
class PartialLabelDataset:
    """Hide labels of a multi-label data set: hidden labels become UNKNOWN.

    The mask is drawn once over the whole set. It does not depend on worker,
    rank, epoch or image. With
    :class:`~trm_ml_mm.engine.PartialLabelHook` its hash is in every
    checkpoint, and a run does not resume on another mask.

    Wrappers that repeat images go around this one: ``RepeatDataset`` and
    ``ClassBalancedDataset``. ``ConcatDataset`` and ``KFoldDataset`` may be on
    either side.

    Args:
        dataset: The wrapped data set, or its config. A ``ConcatDataset`` of
            several, such as VOC 2007 and 2012, shares one mask. Labels that
            are unknown there stay unknown.
        known: Proportion of known labels in (0, 1]; 'single_positive'; 'all';
            or a file (a saved mask, or a list of known positives); see
            :func:`~trm_ml_mm.labels.draw_mask`.
        seed: Draws the mask. ``None``: the protocol's own (0 for a
            proportion, 1200 for single positive).
        pipeline: Transforms that replace those of the wrapped set, as
            MMPretrain's tool for cross-validation wants.

    Raises:
        ValueError: If ``known`` is none of these, a file does not fit, a
            label is not 1, 0 or -1, no label is known, or the wrapped set
            repeats images.
    """

    def __init__(self,
                 dataset: Union[dict, EngineDataset],
                 known: Union[float, str] = 0.1,
                 seed: Optional[int] = None,
                 pipeline: Optional[Sequence] = None,
                 lazy_init: bool = False):
        check_known(known)
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        _check_unrepeated(dataset)
        self._pipeline = None if pipeline is None else Compose(pipeline)
        self.dataset = dataset
        self.known = known
        self.seed = seed
        self._labels = None
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read the labels and draw the mask; later calls do nothing."""
        if self._labels is not None:
            return
        self.dataset.full_init()
        labels = matrix_of(self.dataset)
        images = []
        if is_positive_list(self.known):
            images = [
                self.dataset.get_data_info(i)['img_path']
                for i in range(len(self.dataset))
            ]
        kept, mask = keep_known(labels, self.known, self.seed, images,
                                list(self.dataset.metainfo['classes']))
        _check_supervision(kept)
        # Workers share the labels, because nothing writes to them.
        self._set(kept, mask, None)

    def _set(self, labels: LabelMatrix, mask: np.ndarray,
             rows: Optional[np.ndarray]) -> None:
        self._labels = labels
        self._packed, self._mask_shape = np.packbits(mask), mask.shape
        self._hash = mask_hash(mask)
        # Where each sample is in the wrapped set; None: in its place.
        self._rows = rows

    @property
    def metainfo(self) -> dict:
        """The wrapped set's."""
        self.full_init()
        return self.dataset.metainfo

    @property
    def CLASSES(self) -> Sequence[str]:
        """Class names, under MMPretrain's name."""
        return self.metainfo['classes']

    @property
    def class_to_idx(self) -> dict:
        """Index of each class name."""
        return {name: c for c, name in enumerate(self.CLASSES)}

    @property
    def pipeline(self):
        """Its own, or the wrapped set's. MMPretrain's tools read and replace
        it. Several wrapped sets have none in common."""
        if self._pipeline is not None:
            return self._pipeline
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline) -> None:
        self._pipeline = pipeline

    @property
    def matrix(self) -> LabelMatrix:
        """What training sees: sparse, if the wrapped set's labels are."""
        self.full_init()
        return self._labels

    @property
    def known_labels(self) -> dict:
        """What was hidden: ``known`` and ``seed`` as they were given, ``hash``
        of the mask, and a hash of the ``labels`` that training sees."""
        return dict(known=self.known, seed=self.seed, hash=self._hash,
                    labels=self.matrix.digest)

    @property
    def labels(self) -> np.ndarray:
        """What training sees: ``(N, C)`` int8 in {PRESENT, ABSENT, UNKNOWN}.
        See :meth:`~trm_ml_mm.labels.matrix.LabelMatrix.dense`."""
        return self.matrix.dense()

    @property
    def mask(self) -> np.ndarray:
        """Which labels the protocol leaves known: ``(N, C)`` bool; of sparse
        labels ``(K,)``, which of the K listed ones."""
        self.full_init()
        size = int(np.prod(self._mask_shape))
        return np.unpackbits(self._packed)[:size].reshape(
            self._mask_shape).astype(bool)

    def get_data_info(self, idx: int) -> dict:
        """The wrapped set's entry, with hidden labels replaced by UNKNOWN."""
        self.full_init()
        info = self.dataset.get_data_info(self.wrapped_index(idx))
        info.pop('gt_label', None)
        info['gt_score'] = self._labels.row(idx).astype(np.float32)
        return info

    def hidden_labels(self) -> np.ndarray:
        """:meth:`hidden_matrix` in one array, ``(N, C)`` int8."""
        return self.hidden_matrix().dense()

    def hidden_matrix(self) -> LabelMatrix:
        """What the mask hides: UNKNOWN where training sees the label or nobody
        knows it."""
        self.full_init()
        truth = matrix_of(self.dataset)
        if self._rows is not None:
            truth = truth.select(self._rows)
        return truth.without(self._labels)

    def get_subset(self, indices: Union[int, Sequence[int]]):
        """Some of the samples, with the labels they have here; see
        ``mmengine.dataset.BaseDataset``. ``KFoldDataset`` asks for it.

        Args:
            indices: Which samples; or how many of the first (positive) or
                last (negative).
        """
        subset = copy.copy(self)
        subset.get_subset_(indices)
        return subset

    def get_subset_(self, indices: Union[int, Sequence[int]]) -> None:
        """Keep only some of the samples; see :meth:`get_subset`."""
        if isinstance(indices, int):
            indices = range(len(self))[:indices] if indices >= 0 else (
                range(len(self))[indices:])
        chosen = np.asarray(indices, np.int64)
        labels, rows = self.matrix.select(chosen), chosen
        if self._rows is not None:
            rows = self._rows[chosen]
        if len(self._mask_shape) == 1:  # of listed labels: of those here, all
            mask = np.ones(int(labels.summary().known.sum()), bool)
        else:
            mask = self.mask[chosen]
        self._set(labels, mask, rows)

    def get_cat_ids(self, idx: int):
        """Indices of the classes known to be present in one sample."""
        classes, labels = self.matrix.known(idx)
        return classes[labels == PRESENT].tolist()

    def __getitem__(self, idx: int) -> dict:
        self.full_init()
        if not -len(self) <= idx < len(self):
            raise no_sample(idx, len(self))
        inner = resolve_dataset(self, idx)
        return read_sample(self._pipeline or inner.pipeline,
                           self.get_data_info, idx, len(self),
                           getattr(inner, 'on_error', 'raise'))

    def wrapped_index(self, idx: int) -> int:
        """Where a sample is in the wrapped set."""
        self.full_init()
        if self._rows is None:
            return int(idx)
        return int(self._rows[idx])

    def __len__(self) -> int:
        return len(self.matrix)


def find_masks(dataset) -> List[PartialLabelDataset]:
    """Every PartialLabelDataset of a data set, in the order of the samples; of
    one within another, the outer one."""
    if isinstance(dataset, PartialLabelDataset):
        return [dataset]
    return [mask for part in _wrapped(dataset) for mask in find_masks(part)]


def known_labels_of(dataset) -> Optional[dict]:
    """See :attr:`PartialLabelDataset.known_labels`; None: nothing is hidden.
    Of several masks, ``known`` and ``seed`` are lists, and the hashes are
    joined by '+'."""
    found = [mask.known_labels for mask in find_masks(dataset)]
    if len(found) < 2:
        return found[0] if found else None
    joined = {name: [entry[name] for entry in found] for name in found[0]}
    return dict(joined, hash='+'.join(joined['hash']),
                labels='+'.join(joined['labels']))


def training_matrix(dataset) -> LabelMatrix:
    """What training sees of all images under a data set's wrappers. Images
    that are repeated count once."""
    if isinstance(dataset, PartialLabelDataset):
        return dataset.matrix
    parts = _wrapped(dataset)
    if not parts:
        return matrix_of(dataset)
    return stacked([training_matrix(part) for part in parts])


def labels_of(dataset) -> np.ndarray:
    """:func:`training_matrix` in one array, ``(N, C)`` int8 in {PRESENT,
    ABSENT, UNKNOWN}."""
    return training_matrix(dataset).dense()


def has_three_values(dataset) -> bool:
    """Whether all sets under a data set's wrappers may have unknown labels of
    their own."""
    parts = _wrapped(dataset)
    return isinstance(dataset, MultiLabelDataset) if not parts else (
        all(map(has_three_values, parts)))


def _wrapped(dataset) -> list:
    """The data sets that a wrapper holds; none if it is no wrapper."""
    if hasattr(dataset, 'datasets'):
        return list(dataset.datasets)
    return [dataset.dataset] if hasattr(dataset, 'dataset') else []


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
    for inner in _wrapped(dataset):
        _check_unrepeated(inner)


def _check_supervision(labels: LabelMatrix) -> None:
    """Refuse labels that nothing can be learned from; warn of thin ones.

    Raises:
        ValueError: If no label at all is known.
    """
    found = labels.summary()
    if not found.known.any():
        raise ValueError(
            'No label is known, so there is nothing to learn from: check the '
            'labels and the mask, or raise known.')
    empty = int((found.positive == 0).sum())
    if empty:
        print_log(f'{empty} of {labels.shape[1]} classes have no image that '
                  'is known to have them.', 'current', logging.WARNING)
    if len(labels) == 1:
        print_log('There is only one image.', 'current', logging.WARNING)
