"""Open Images: labels that are really missing, of nine million images."""
import hashlib
import json
from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
from filelock import FileLock

from trm_ml_mm.labels import LabelMatrix, SparseLabels
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.arrays import map_array
from trm_ml_mm.utils.checks import check_choice, check_ratio
from trm_ml_mm.utils.io import atomic_folder, existing, write_text
from trm_ml_mm.utils.screen import say

from ..base import MultiLabelDataset
from .classes import (
    display_names,
    read_class_list,
    read_descriptions,
    read_hierarchy,
)
from .entries import Entries

FORMAT = 1  # of imported labels


@DATASETS.register_module()
class OpenImages(MultiLabelDataset):
    """Open Images V4 to V7, labels of whole images.

    Folder, with the names of the official download::

        data_root/
          train/<ImageID>.jpg, validation/..., test/...
          oidv6-train-annotations-human-imagelabels.csv
          validation-annotations-human-imagelabels.csv
          test-annotations-human-imagelabels.csv
          oidv6-class-descriptions.csv, oidv6-classes-trainable.txt

    A class that is not listed for an image is unknown. The labels are read
    from the CSV files once, and imported into small files in
    ``data_root/imported``, which all processes of a machine share; a changed
    file or option imports anew.

    Args:
        ann_file: One label file, or several, of people and of machines.
        data_root: The folder.
        data_prefix: Image folder.
        classes: The classes to train on: a file with a MID at the start of
            each line (``oidv6-classes-trainable.txt``: 9,605;
            ``class-descriptions-boxable.csv``: 600), or a list of MIDs.
        descriptions: File of MIDs and names of all classes.
        images: A list of the images to use: a CSV file with a column
            ``ImageID``, or a text file with one ID a line. None: every image
            with a label of one of the classes.
        unlisted: What to do with labels of images that are not in ``images``:
            'raise', or 'ignore', if you have some of the images alone.
        machine: Lowest confidence at which a machine's label counts as
            present, where people said nothing. None: the files have none.
        hierarchy: ``bbox_labels_600_hierarchy.json`` expands the labels: what
            is present is present as every class above it, and what is absent
            is absent as every class below it, unless a label says otherwise.
            None: labels stay as they are.
        imported: Folder of imported labels, in ``data_root`` or absolute.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: With file and line, for another header, an unknown class,
            a value that is no label, labels of a pair that contradict each
            other, or a label of an image that is not listed.
        FileNotFoundError: If a file is missing.
    """

    def __init__(self,
                 ann_file: Union[str, Sequence[str]],
                 data_root: str = '',
                 data_prefix: str = 'train',
                 classes: Union[str, Sequence[str]]
                 = 'oidv6-classes-trainable.txt',
                 descriptions: str = 'oidv6-class-descriptions.csv',
                 images: Optional[str] = None,
                 unlisted: str = 'raise',
                 machine: Optional[float] = None,
                 hierarchy: Optional[str] = None,
                 imported: str = 'imported',
                 **kwargs):
        check_choice(('raise', 'ignore'), unlisted=unlisted)
        if machine is not None:
            check_ratio(machine=machine)
        self.data_root = data_root
        self.label_files = [self.root_file(name) for name in (
            [ann_file] if isinstance(ann_file, str) else ann_file)]
        if isinstance(classes, str):
            classes = self.root_file(classes)
        self.descriptions = read_descriptions(self.root_file(descriptions))
        self.mids = read_class_list(classes, self.descriptions)
        self.image_list = None if images is None else self.root_file(images)
        self.unlisted, self.machine = unlisted, machine
        self.hierarchy = hierarchy and self.root_file(hierarchy)
        self.imported = self.root_file(imported)
        names = display_names(self.mids, self.descriptions)
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            metainfo=dict(classes=names),
            serialize_data=False,  # entries are made when they are read
            **kwargs)

    @property
    def matrix(self) -> LabelMatrix:
        self.full_init()
        return self.data_list.labels

    def load_data_list(self) -> Entries:
        self.image_folder()
        folder = self.import_labels()
        return Entries(map_array(folder / 'images.npy'),
                       SparseLabels.open(folder), str(self.img_prefix))

    def filter_data(self) -> Entries:
        if not len(self.data_list):
            raise ValueError(f'{self.label_files[0]} has no label of these '
                             'classes and images.')
        return self.data_list  # IDs cannot lead to another folder

    def _get_unserialized_subset(self, indices: Union[int, Sequence[int]]
                                 ) -> Entries:
        rows = range(len(self.data_list))
        if isinstance(indices, int):
            indices = rows[:indices] if indices >= 0 else rows[indices:]
        return self.data_list.select(indices)

    def import_labels(self) -> Path:
        """Import the label files, unless that was done; returns the folder.
        What a killed import leaves is removed by the next one."""
        folder = self.imported / self._key()
        if not (folder / 'meta.json').exists():
            self.imported.mkdir(parents=True, exist_ok=True)
            with FileLock(self.imported / '.lock'):  # other ranks wait
                if not (folder / 'meta.json').exists():
                    self._import(folder)
        return folder

    def _key(self) -> str:
        """Of files and options: what was imported with another one does not
        serve."""
        sources = [*self.label_files, *filter(None, (self.image_list,
                                                     self.hierarchy))]
        files = []
        for path in sources:
            status = existing(path, 'File of Open Images', 'set data_root '
                              'and ann_file').stat()
            files.append([path.name, status.st_size, status.st_mtime_ns])
        content = json.dumps([FORMAT, files, self.mids, self.unlisted,
                              self.machine])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _import(self, folder: Path) -> None:
        # pyarrow takes its time, and is needed here alone.
        from .importing import import_labels
        from .label_files import read_image_list
        images, labels = import_labels(
            self.label_files, list(self.descriptions), self.mids,
            None if self.image_list is None else
            read_image_list(self.image_list), self.unlisted, self.machine,
            None if self.hierarchy is None else
            read_hierarchy(self.hierarchy, self.mids))
        with atomic_folder(folder) as fresh:
            with open(fresh / 'images.npy', 'wb') as file:
                np.save(file, images, allow_pickle=False)
            write_text(fresh / 'source.json', json.dumps(dict(
                files=list(map(str, self.label_files)), classes=self.mids)))
            labels.save(fresh)
        found = labels.summary()
        say(f'Imported {", ".join(path.name for path in self.label_files)}: '
            f'{labels.shape[0]:,} images, {labels.shape[1]:,} classes, '
            f'{int(found.positive.sum()):,} present and '
            f'{int(found.negative.sum()):,} absent, in {folder}.')
