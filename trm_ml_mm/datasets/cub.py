"""CUB-200-2011 with its 312 attributes as a multi-label set."""
from typing import List

import numpy as np

from trm_ml_mm.labels import CUB_ATTRIBUTES, UNKNOWN
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import existing, numbered_lines

from .base import MultiLabelDataset


@DATASETS.register_module()
class CUBAttributes(MultiLabelDataset):
    """CUB-200-2011, 5,994 training and 5,794 test images, 312 attributes.

    Folder, as the official download creates it::

        data_root/                      CUB_200_2011
          images/<species>/<image>.jpg
          images.txt, train_test_split.txt
          attributes/image_attribute_labels.txt

    An attribute is present if ``is_present`` is 1, at any certainty of the
    annotator, as in the literature on single positive labels.

    Args:
        split: 'train' or 'test'. Images keep the order of ``images.txt``.
        data_root: The folder.
        data_prefix: Image folder.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: If the split is unknown, or a file is damaged.
        FileNotFoundError: If a file is missing.
    """

    METAINFO = dict(classes=CUB_ATTRIBUTES)

    def __init__(self,
                 split: str = 'train',
                 data_root: str = '',
                 data_prefix: str = 'images',
                 **kwargs):
        if split not in ('train', 'test'):
            raise ValueError(f"split is 'train' or 'test', got {split!r}.")
        self.split = split
        super().__init__(
            data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> List[dict]:
        folder = self.image_folder()
        images = self._pairs('images.txt', 'list of CUB images')
        flags = self._pairs('train_test_split.txt', 'CUB split')
        wanted = '1' if self.split == 'train' else '0'
        rows = {}
        for number in images:
            if number not in flags:
                raise ValueError(
                    f'{self.root_file("train_test_split.txt")} lacks image '
                    f'{number} of images.txt: the files do not match.')
            if flags[number] == wanted:
                rows[number] = len(rows)
        labels = self._labels(rows)
        return [
            dict(
                img_path=str(folder / images[number]),
                img_id=number,
                gt_score=labels[row]) for number, row in rows.items()
        ]

    def _pairs(self, name: str, what: str) -> dict:
        path = self.root_file(name)
        pairs = {}
        for number, line in numbered_lines(
                path, what, advice='set data_root to CUB_200_2011'):
            cells = line.split(maxsplit=1)
            if len(cells) != 2:
                raise ValueError(f'{path} line {number} is "{line}", expected '
                                 'an image number and a value.')
            pairs[cells[0]] = cells[1]
        return pairs

    def _labels(self, rows: dict) -> np.ndarray:
        path = existing(
            self.root_file('attributes/image_attribute_labels.txt'),
            'CUB attribute file', 'set data_root to CUB_200_2011')
        count = len(self.class_names)
        labels = np.full((len(rows), count), UNKNOWN, np.int8)
        with path.open(encoding='utf-8', errors='replace') as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                # Some of the official lines have a cell too many at the end.
                cells = line.split(maxsplit=3)[:3]
                try:
                    image, attribute, present = cells
                    row = rows.get(image)
                    if row is None:
                        continue
                    c, value = int(attribute) - 1, ('0', '1').index(present)
                    if not 0 <= c < count:
                        raise ValueError
                except ValueError:
                    raise ValueError(
                        f'{path} line {number} is "{line.strip()}", expected '
                        f'image, attribute 1..{count}, 0 or 1.') from None
                labels[row, c] = value
        missing = np.argwhere(labels == UNKNOWN)
        if len(missing):
            image = list(rows)[missing[0, 0]]
            raise ValueError(
                f'{path} is cut off: image {image} has no label of attribute '
                f'{missing[0, 1] + 1}; unpack it again.')
        return labels
