"""What the multi-label data sets of this package have in common."""
from typing import List, Sequence

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
        info['gt_score'] = score_of(info, self.metainfo['classes'])
        info.pop('gt_label', None)
        return info

    def prepare_data(self, idx: int) -> dict:
        return apply_pipeline(self.pipeline, self.get_data_info(idx))

    def get_cat_ids(self, idx: int) -> List[int]:
        """Indices of the classes present in one sample."""
        return np.flatnonzero(self.get_data_info(idx)['gt_score'] == 1).tolist()


def score_of(info: dict, classes: Sequence[str]) -> np.ndarray:
    """Labels of one entry, ``(C,)`` float32 in {1, 0, -1}.

    Args:
        info: With ``gt_score``, or ``gt_label``, indices of present classes.
        classes: C names.

    Raises:
        ValueError: If there is not one value for each class, an index is not
            among 0..C-1, or a value is not 1, 0 or -1; naming the image.
    """
    path = info.get('img_path', 'an image')
    if 'gt_score' in info:
        score = np.asarray(info['gt_score'], np.float32)
        if score.shape != (len(classes), ):
            raise ValueError(
                f'{path}: gt_score has shape {score.shape}, expected one '
                f'value for each of {len(classes)} classes.')
        wrong = np.flatnonzero(~np.isin(score, (-1, 0, 1)))
        if wrong.size:
            raise ValueError(
                f'{path}: the label of "{classes[wrong[0]]}" is '
                f'{score[wrong[0]]:g}; labels are 1 (present), 0 (absent) or '
                '-1 (unknown).')
        return score
    labels = np.asarray(info['gt_label'], np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(
            f'{path}: gt_label {labels.tolist()} has an index outside '
            f'0..{len(classes) - 1}; there are {len(classes)} classes.')
    score = np.zeros(len(classes), np.float32)
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
        ValueError: See :func:`score_of`; or if there is no image.
    """
    classes = dataset.metainfo['classes']
    if len(dataset) == 0:
        raise ValueError('The data set has no image: check its annotation '
                         'file.')
    return np.stack([
        score_of(dataset.get_data_info(i), classes)
        for i in range(len(dataset))
    ])
