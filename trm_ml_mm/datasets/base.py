"""What all multi-label data sets of this package share."""
import os
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterable,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import cv2
import numpy as np
from mmengine.fileio import (
    BaseStorageBackend,
    LocalBackend,
    get_file_backend,
)
from mmpretrain.datasets import BaseDataset

from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    DenseLabels,
    LabelMatrix,
    SparseLabels,
    stacked,
)
from trm_ml_mm.utils.checks import check_choice
from trm_ml_mm.utils.io import existing
from trm_ml_mm.utils.mmengine_private import own_metainfo, wrapped_index

from .json_fields import files_of_folders


class MultiLabelDataset(BaseDataset):
    """An MMPretrain data set whose samples have ``gt_score``.

    ``gt_score`` is ``(C,)`` float32 in {PRESENT, ABSENT, UNKNOWN}. An entry of
    the data list gives one of these:

    * ``gt_score``.
    * ``gt_label``: the indices of the present classes. Every other class is
      absent. A repeated index counts once.
    * ``gt_positive`` and ``gt_negative``: the indices of the classes that are
      known to be present, and to be absent. Every other class is unknown.

    Args:
        on_error: What to do if an image is missing or cannot be decoded.
            'raise': stop with an error that names it. 'skip' (training only):
            the next readable image takes its place in the batch, and
            :class:`~trm_ml_mm.engine.SkippedImagesHook` counts and lists it.
        allow_outside: Take images outside of ``data_root`` and the image
            folder. A label file from a stranger could name any file.
        **kwargs: See :class:`mmengine.dataset.BaseDataset`.

    Raises:
        ValueError: If ``on_error`` is unknown, or 'skip' for test data, whose
            metrics would silently miss images; or if an image lies outside of
            its folders.
    """

    def __init__(self,
                 ann_file: str = '',
                 on_error: str = 'raise',
                 test_mode: bool = False,
                 allow_outside: bool = False,
                 **kwargs):
        check_choice(('raise', 'skip'), on_error=on_error)
        if on_error == 'skip' and test_mode:
            raise ValueError(
                "on_error='skip' is for training: metrics of a test set would "
                'miss images; take unreadable images out of its list.')
        self.on_error = on_error
        self.allow_outside = allow_outside
        super().__init__(ann_file=ann_file, test_mode=test_mode, **kwargs)

    @property
    def class_names(self) -> Sequence[str]:
        """``metainfo['classes']``, without copying it at every access."""
        return own_metainfo(self)['classes']

    def filter_data(self) -> List[dict]:
        """Called once, with what the label file says.

        Raises:
            ValueError: If there is no image, or one lies outside of its
                folders.
        """
        if not self.data_list:
            raise ValueError(f'{self.ann_file or self.data_root} lists no '
                             'image for this data set.')
        if not self.allow_outside:
            roots = tuple(os.path.join(os.path.abspath(root), '')
                          for root in (self.data_root, self.img_prefix))
            for entry in self.data_list:
                if not os.path.abspath(entry['img_path']).startswith(roots):
                    raise ValueError(
                        f'{self.ann_file} names the image '
                        f'{entry["img_path"]}, which lies outside of '
                        f'{roots[0]}: set data_root to a folder that holds '
                        'it, or allow_outside=True on the data set.')
        return super().filter_data()

    def get_data_info(self, idx: int) -> dict:
        info = super().get_data_info(idx)
        info['gt_score'] = score_of(info, self.class_names)
        for key in ('gt_label', 'gt_positive', 'gt_negative'):
            info.pop(key, None)
        return info

    @property
    def matrix(self) -> Optional[LabelMatrix]:
        """All labels, if the data set has them in one piece."""
        return None

    def listed_labels(self, idx: int) -> Optional[Tuple[list, list]]:
        """``gt_positive`` and ``gt_negative`` of an entry; None: it has its
        labels in another form."""
        info = super().get_data_info(idx)
        if 'gt_positive' not in info:
            return None
        return info['gt_positive'], info['gt_negative']

    def __getitem__(self, idx: int) -> dict:
        self.full_init()
        return read_sample(self.pipeline, self.get_data_info, idx, len(self),
                           self.on_error)

    def get_cat_ids(self, idx: int) -> List[int]:
        """Indices of the classes present in one sample."""
        score = self.get_data_info(idx)['gt_score']
        return np.flatnonzero(score == PRESENT).tolist()

    def boxes(self, idx: int) -> Optional[Dict[int, np.ndarray]]:
        """Boxes of one image, for measures of where something is seen.

        They come from ``width``, ``height`` and ``instances`` of the entry,
        as in MMDetection: each instance has ``bbox`` (two corners, in pixels)
        and ``bbox_label``.

        Returns:
            Class -> ``(n, 4)``: left, top, right, bottom, as ratios of the
            image's width and height. None: the data set knows no boxes.
        """
        info = super().get_data_info(idx)
        if not {'instances', 'width', 'height'} <= info.keys():
            return None
        return boxes_by_class(
            [(one['bbox_label'], one['bbox']) for one in info['instances']],
            info['width'], info['height'])

    @property
    def backend(self) -> BaseStorageBackend:
        """Where images are read from."""
        return backend_of(self.pipeline)

    def is_image(self, path: Union[str, Path]) -> bool:
        """Whether there is an image of this path, as a file or in shards."""
        return self.backend.isfile(path)

    def image_finder(self, folders: Iterable[str]
                     ) -> Callable[[str], Optional[Path]]:
        """A function that takes the file name of an image and gives its path
        in one of some folders of ``data_root``; None: it is in none of them.

        Raises:
            FileNotFoundError: If images are files, and there is none of the
                folders.
        """
        paths = [self.root_file(folder) for folder in folders]
        if isinstance(self.backend, LocalBackend):
            return files_of_folders(paths).get
        return lambda name: next((path / name for path in reversed(paths)
                                  if self.is_image(path / name)), None)

    def image_folder(self) -> Path:
        """The folder of the images; only files need it to exist."""
        if not isinstance(self.backend, LocalBackend):
            return Path(self.img_prefix)
        return existing(self.img_prefix, 'Image folder',
                        'set data_root and data_prefix to where the images '
                        'are')

    def root_file(self, name: str) -> Path:
        """A file given by its path relative to ``data_root``, or absolute."""
        return Path(self.data_root) / name


def boxes_by_class(boxes: Sequence[tuple], width: float, height: float
                   ) -> Dict[int, np.ndarray]:
    """``(class, (left, top, right, bottom))`` in pixels -> class ->
    ``(n, 4)`` as ratios of the image."""
    found = {}
    for number, box in boxes:
        found.setdefault(number, []).append(
            np.asarray(box, float) / [width, height, width, height])
    return {number: np.stack(rows) for number, rows in found.items()}


def score_of(info: dict, classes: Sequence[str]) -> np.ndarray:
    """Labels of one entry, ``(C,)`` float32 in {PRESENT, ABSENT, UNKNOWN}.

    Args:
        info: Has ``gt_score``, ``gt_label``, or ``gt_positive`` and
            ``gt_negative``; see :class:`MultiLabelDataset`.
        classes: C names.

    Raises:
        ValueError: If there is not one value per class, an index is not in
            0..C-1, a value is not a label, or a class is both positive and
            negative; the message names the image.
    """
    path = info.get('img_path', 'an image')
    if 'gt_score' in info:
        score = np.asarray(info['gt_score'], np.float32)
        if score.shape != (len(classes), ):
            raise ValueError(
                f'{path}: gt_score has shape {score.shape}, expected one '
                f'value for each of {len(classes)} classes.')
        wrong = np.flatnonzero(  # np.isin takes ten times as long
            (score != UNKNOWN) & (score != ABSENT) & (score != PRESENT))
        if wrong.size:
            raise ValueError(
                f'{path}: the label of "{classes[wrong[0]]}" is '
                f'{score[wrong[0]]:g}; labels are {PRESENT} (present), '
                f'{ABSENT} (absent) or {UNKNOWN} (unknown).')
        return score
    if 'gt_positive' in info:
        score = np.full(len(classes), UNKNOWN, np.float32)
        positive, negative = (_indices(info, key, len(classes), path)
                              for key in ('gt_positive', 'gt_negative'))
        score[positive] = PRESENT
        both = negative[score[negative] == PRESENT]
        if both.size:
            raise ValueError(f'{path}: "{classes[both[0]]}" is present and '
                             'absent: correct one of the labels.')
        score[negative] = ABSENT
        return score
    score = np.full(len(classes), ABSENT, np.float32)
    score[_indices(info, 'gt_label', len(classes), path)] = PRESENT
    return score


def _indices(info: dict, key: str, count: int, path: str) -> np.ndarray:
    labels = np.asarray(info[key], np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < count:
        raise ValueError(
            f'{path}: {key} {labels.tolist()} has an index outside '
            f'0..{count - 1}; there are {count} classes.')
    return labels


def sample_key(sample) -> Tuple[str, Optional[int]]:
    """What tells the samples of a training apart. Objects of one image share
    its path.

    Args:
        sample: Entry of a data set, or the ``DataSample`` made of it.
    """
    return sample.get('img_path'), sample.get('sample_idx')


class UnreadableImage(ValueError):
    """An image file that cannot be decoded."""


class MissingImage(FileNotFoundError):
    """An image file that does not exist."""


LOCAL = LocalBackend()


def backend_of(pipeline: Callable) -> BaseStorageBackend:
    """Where a pipeline reads images from: what ``backend_args`` of one of its
    steps says, such as shards; without, the file system."""
    for step in getattr(pipeline, 'transforms', ()):
        options = getattr(step, 'backend_args', None)
        if options:
            return get_file_backend(backend_args=options,
                                    enable_singleton=True)
    return LOCAL


def is_readable(path: str, backend: BaseStorageBackend = LOCAL) -> bool:
    """Whether OpenCV, which loads images for training, can decode a file."""
    content = np.frombuffer(backend.get(path), np.uint8)
    return content.size > 0 and cv2.imdecode(content, 0) is not None


def apply_pipeline(pipeline: Callable, info: dict) -> dict:
    """Run a pipeline on one entry; errors name the image.

    Raises:
        MissingImage: If the image is missing.
        UnreadableImage: If it cannot be decoded.
        ValueError: If the pipeline returns nothing.
    """
    path = info.get('img_path')
    try:
        sample = pipeline(info)
    except (MissingImage, UnreadableImage):  # as of shards
        raise
    except Exception as error:
        backend = backend_of(pipeline)
        if isinstance(error, FileNotFoundError) and path is not None and (
                not backend.isfile(path)):
            raise MissingImage(
                f'Image {path} does not exist; set data_root and data_prefix '
                'to where the images are, or take it out of the list.'
            ) from error
        # An error of a transform itself is not about the image; nor is a
        # shard that is missing.
        if path is None or isinstance(error, FileNotFoundError) or (
                not backend.isfile(path)) or is_readable(path, backend):
            raise
        place = f' ({backend.where(path)})' if hasattr(
            backend, 'where') else ''
        raise UnreadableImage(
            f'Image {path}{place} cannot be decoded; repair it, take it out '
            "of the list, or train with on_error='skip' on its data set."
        ) from error
    if sample is None:
        raise ValueError(f'{path}: the pipeline returned nothing for this '
                         'image; repair or remove it.')
    return sample


def read_sample(pipeline: Callable, entry: Callable[[int], dict], index: int,
                count: int, on_error: str) -> dict:
    """Sample ``index`` of ``count``, or the next readable one.

    Args:
        pipeline: Of the data set.
        entry: Returns the data entry of an index.
        index: Which sample.
        count: Out of how many.
        on_error: 'raise' or 'skip'. A sample that takes the place of others
            lists them in ``skipped_images`` of its ``data_samples``.

    Raises:
        ValueError, FileNotFoundError: See :func:`apply_pipeline`; or if no
            image at all can be read.
        IndexError: If there is no such sample, which ends a ``for`` loop.
    """
    if not -count <= index < count:
        raise no_sample(index, count)
    skipped = []
    for step in range(count):
        info = entry((index + step) % count)
        path = info.get('img_path')
        try:
            sample = apply_pipeline(pipeline, info)
        except (UnreadableImage, MissingImage):
            if on_error == 'raise':
                raise
            skipped.append(path)
            continue
        if skipped and 'data_samples' in sample:
            sample['data_samples'].set_field(
                skipped, 'skipped_images', field_type='metainfo')
        return sample
    raise ValueError(f'None of the {count} images can be read, from '
                     f'{skipped[0]} on: set data_root and data_prefix to '
                     'where the images are.')


def no_sample(index: int, count: int) -> IndexError:
    return IndexError(f'There are {count} samples, and no sample {index}.')


def resolve_dataset(dataset, index: int):
    """The data set under all wrappers that sample ``index`` comes from."""
    while hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        index = wrapped_index(dataset, index)
        if isinstance(index, tuple):
            which, index = index
            dataset = dataset.datasets[which]
        else:
            dataset = dataset.dataset
    return dataset


def label_matrix(dataset) -> np.ndarray:
    """All labels of a data set, ``(N, C)`` float32 in {PRESENT, ABSENT,
    UNKNOWN}.

    Args:
        dataset: Any data set whose samples have ``gt_score``, or ``gt_label``
            and ``metainfo['classes']`` (as MMPretrain's multi-label sets).

    Raises:
        ValueError: See :func:`score_of`; or if there is no image.
    """
    return matrix_of(dataset).dense().astype(np.float32)


def matrix_of(dataset) -> LabelMatrix:
    """All labels of a data set. They are sparse if the data set has them in
    one sparse piece, or lists known positives and negatives.

    Args:
        dataset: See :func:`label_matrix`.

    Raises:
        ValueError: See :func:`score_of`; or if there is no image.
    """
    classes, count = dataset.metainfo['classes'], len(dataset)
    if count == 0:
        raise ValueError('The data set has no image: check its annotation '
                         'file.')
    own = getattr(dataset, 'matrix', None)
    if own is not None:
        return own
    if hasattr(dataset, 'datasets'):  # one after the other
        return stacked([matrix_of(part) for part in dataset.datasets])
    if getattr(dataset, 'listed_labels', None) is not None and (
            dataset.listed_labels(0) is not None):
        return _listed_matrix(dataset, (count, len(classes)))
    labels = np.empty((count, len(classes)), np.int8)
    for i in range(count):
        labels[i] = score_of(dataset.get_data_info(i), classes)
    return DenseLabels(labels)


def _listed_matrix(dataset, shape: Tuple[int, int]) -> SparseLabels:
    classes, labels, counts = [], [], []
    for i in range(shape[0]):
        score_of(dataset.get_data_info(i), dataset.class_names)  # checks them
        for value, numbers in zip((PRESENT, ABSENT), dataset.listed_labels(i)):
            classes.append(np.asarray(numbers, np.int64))
            labels.append(np.full(len(numbers), value, np.int64))
            counts.append(len(numbers))
    rows = np.repeat(np.arange(shape[0]).repeat(2), counts)
    return SparseLabels.of_pairs(rows, np.concatenate(classes),
                                 np.concatenate(labels), shape)
