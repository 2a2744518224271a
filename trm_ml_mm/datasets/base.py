"""What the multi-label data sets of this package have in common."""
from typing import List

import numpy as np
from mmpretrain.datasets import BaseDataset


class MultiLabelDataset(BaseDataset):
    """An MMPretrain data set whose samples carry ``gt_score``.

    ``gt_score`` is ``(C,)`` float32: 1 present, 0 absent, -1 unknown. A data
    list may give it, or ``gt_label``, the indices of the present classes
    (then every other class is absent; a repeated index counts once).
    """

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        info['gt_score'] = self._score(info)
        info.pop('gt_label', None)
        return info

    def prepare_data(self, idx: int) -> dict:
        return apply_pipeline(self.pipeline, self.get_data_info(idx))

    def get_cat_ids(self, idx: int) -> List[int]:
        """Indices of the classes present in one sample."""
        return np.flatnonzero(self.get_data_info(idx)['gt_score'] == 1).tolist()

    def _score(self, info: dict) -> np.ndarray:
        classes = self.metainfo['classes']
        if 'gt_score' in info:
            score = np.asarray(info['gt_score'], np.float32)
            if score.shape != (len(classes), ):
                raise ValueError(
                    f'{info["img_path"]}: gt_score has shape {score.shape}, '
                    f'expected one value for each of {len(classes)} classes.')
            return score
        score = np.zeros(len(classes), np.float32)
        labels = np.asarray(info['gt_label'], np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(
                classes):
            raise ValueError(
                f'{info["img_path"]}: gt_label {labels.tolist()} has an index '
                f'outside 0..{len(classes) - 1}; there are {len(classes)} '
                'classes.')
        score[labels] = 1
        return score


def apply_pipeline(pipeline, info: dict) -> dict:
    """Run a pipeline on one entry; what goes wrong names the image.

    Raises:
        FileNotFoundError: If the image is missing.
        ValueError: If the pipeline gives nothing for it.
    """
    path = info.get('img_path')
    try:
        sample = pipeline(info)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'Image {path} does not exist; set data_root and data_prefix to '
            'where the images are, or take it out of the list.') from error
    if sample is None:
        raise ValueError(f'{path}: the pipeline returned nothing for this '
                         'image; repair or remove it.')
    return sample


def label_matrix(dataset) -> np.ndarray:
    """All labels of a data set, ``(N, C)`` float32 in {1, 0, -1}.

    Args:
        dataset: Any data set whose samples have ``gt_score``, or ``gt_label``
            and ``metainfo['classes']`` (as MMPretrain's multi-label sets).

    Raises:
        ValueError: If a value is not 1, 0 or -1, naming image and class.
    """
    classes = dataset.metainfo['classes']
    rows = np.zeros((len(dataset), len(classes)), np.float32)
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if 'gt_score' in info:
            rows[i] = info['gt_score']
        else:
            rows[i, np.asarray(info['gt_label'], np.int64)] = 1
    wrong = ~np.isin(rows, (-1, 0, 1))
    if wrong.any():
        i, c = np.argwhere(wrong)[0]
        raise ValueError(
            f'{dataset.get_data_info(int(i)).get("img_path", i)}: the label '
            f'of "{classes[c]}" is {rows[i, c]:g}; labels are 1 (present), '
            '0 (absent) or -1 (unknown).')
    return rows
