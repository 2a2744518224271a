"""NUS-WIDE with its 81 concepts as a multi-label set."""
from typing import List

import numpy as np

from trm_ml_mm.labels import NUS_CLASSES
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.checks import check_choice
from trm_ml_mm.utils.io import existing, numbered_lines, read_lines

from .base import MultiLabelDataset


@DATASETS.register_module()
class NUSWide(MultiLabelDataset):
    """NUS-WIDE, 269,648 images of 81 concepts.

    Folder, as the official download creates it::

        data_root/
          Flickr/<folder>/<image>.jpg
          ImageList/Imagelist.txt, TrainImagelist.txt, TestImagelist.txt
          Groundtruth/AllLabels/Labels_<concept>.txt

    Papers use different splits (161,789 / 107,859 is the official one;
    154,646 / 103,136, 119,103 / 50,719 and others leave images out). So the
    split is a list file of image paths, official or your own. Every path is
    looked up in the full list, which the labels belong to. Report which split
    your numbers belong to.

    Args:
        ann_file: Image paths, one a line, as in 'ImageList/Imagelist.txt'
            ('/' or '\\\\' between folders).
        data_root: The folder.
        data_prefix: Image folder.
        images: 'all', or 'annotated' for images with at least one concept.
        full_list: The list that the labels belong to.
        label_dir: Folder of ``Labels_<concept>.txt``, with a 0 or 1 for each
            image of ``full_list``.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: If the lists and labels do not match.
        FileNotFoundError: If a file is missing.
    """

    METAINFO = dict(classes=NUS_CLASSES)

    def __init__(self,
                 ann_file: str = 'ImageList/TrainImagelist.txt',
                 data_root: str = '',
                 data_prefix: str = 'Flickr',
                 images: str = 'all',
                 full_list: str = 'ImageList/Imagelist.txt',
                 label_dir: str = 'Groundtruth/AllLabels',
                 **kwargs):
        check_choice(('all', 'annotated'), images=images)
        self.images = images
        self.full_list = full_list
        self.label_dir = label_dir
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            **kwargs)

    def load_data_list(self) -> List[dict]:
        advice = 'set data_root to the folder of NUS-WIDE'
        folder = self.image_folder()
        full_path = self.root_file(self.full_list)
        rows = {
            _normal(line): row for row, line in enumerate(
                read_lines(full_path, 'NUS-WIDE image list', advice=advice))
        }
        labels = self._labels(len(rows), full_path)
        data = []
        for number, line in numbered_lines(
                self.ann_file, 'NUS-WIDE image list', advice=advice):
            name = _normal(line)
            if name not in rows:
                raise ValueError(
                    f'{self.ann_file} line {number}: image {name} is not in '
                    f'{full_path}: the lists do not match.')
            present = np.flatnonzero(labels[rows[name]]).tolist()
            if present or self.images == 'all':
                data.append(
                    dict(img_path=str(folder / name), gt_label=present))
        return data

    def _labels(self, count: int, full_path) -> np.ndarray:
        columns = []
        for name in self.class_names:
            path = existing(
                self.root_file(self.label_dir) / f'Labels_{name}.txt',
                'NUS-WIDE label file', 'set data_root or label_dir')
            values = path.read_bytes().split()
            if len(values) != count:
                raise ValueError(
                    f'{path} has {len(values)} labels and {full_path} {count} '
                    'images: they do not match.')
            odd = set(values) - {b'0', b'1'}
            if odd:
                raise ValueError(f'{path} has the label '
                                 f'"{odd.pop().decode(errors="replace")}"; '
                                 'labels are 0 or 1.')
            columns.append(np.array([v == b'1' for v in values]))
        return np.stack(columns, 1)


def _normal(line: str) -> str:
    return line.replace('\\', '/')
