"""Entries of a data list that are made when they are asked for."""
import os
from collections.abc import Sequence as SequenceABC
from typing import Sequence

import numpy as np

from trm_ml_mm.labels import PRESENT, SparseLabels


def image_id(number: int) -> str:
    """The ID of an image as Open Images writes it."""
    return f'{int(number):016x}'


class Entries(SequenceABC):
    """A data list of nine million images in two arrays, which processes share.

    Args:
        images: ``(N,)`` uint64, numbers of the images.
        labels: Of these images.
        folder: Where they are.
    """

    def __init__(self, images: np.ndarray, labels: SparseLabels, folder: str):
        self.images, self.labels, self.folder = images, labels, folder
        if len(images) != len(labels):
            raise ValueError(f'{labels.folder} is damaged (it has '
                             f'{len(images)} images and labels of '
                             f'{len(labels)}): remove it.')

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        classes, values = self.labels.known(index)
        name = f'{image_id(self.images[index])}.jpg'
        return dict(img_path=os.path.join(self.folder, name),
                    gt_positive=classes[values == PRESENT],
                    gt_negative=classes[values != PRESENT])

    def select(self, indices: Sequence[int]) -> 'Entries':
        indices = np.asarray(indices, np.int64)
        return Entries(self.images[indices], self.labels.select(indices),
                       self.folder)

    def __deepcopy__(self, memo: dict) -> 'Entries':
        return self  # nothing writes to it
