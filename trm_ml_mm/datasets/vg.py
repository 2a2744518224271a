"""Visual Genome's 200 most frequent categories as a multi-label set."""
from pathlib import Path
from typing import Dict, Iterable, List

from mmengine.fileio import LocalBackend

from trm_ml_mm.labels import class_names
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import numbered_lines, read_json

from .base import MultiLabelDataset


@DATASETS.register_module()
class VG200(MultiLabelDataset):
    """VG-200: 82,904 training and 10,000 test images.

    Folder: images as Visual Genome provides them (one folder or two), three
    files that SSGRL and SARB published, and one of your own::

        data_root/
          VG_100K/*.jpg, VG_100K_2/*.jpg
          train_list_500.txt, test_list_500.txt
          vg_category_200_labels_index.json
          category_names.txt            one name a line

    The names of the 200 categories were never published with the labels. A
    text tower needs them, in the order of the indices.

    Args:
        ann_file: 'train_list_500.txt' or 'test_list_500.txt'. Images keep its
            order: the masks of known labels rely on it.
        data_root: The folder.
        label_file: Image name -> indices of its categories.
        classes: File with the names, relative to ``data_root``, or a list.
        image_folders: Folders to look for images in.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        FileNotFoundError: If a file is missing, or a listed image.
        ValueError: If the list and the labels do not match.
    """

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 label_file: str = 'vg_category_200_labels_index.json',
                 classes='category_names.txt',
                 image_folders=('VG_100K', 'VG_100K_2'),
                 **kwargs):
        self.label_file = label_file
        self.image_folders = image_folders
        if isinstance(classes, str):
            path = Path(data_root) / classes
            if not path.is_file():
                raise FileNotFoundError(
                    f'VG-200 needs the names of its categories in {path}, one '
                    'a line in the order of the label indices: they were '
                    'never published with the labels, so write that file.')
            classes = str(path)
        names = class_names(classes)
        if len(names) != 200:
            raise ValueError(f'{classes} has {len(names)} names, and VG-200 '
                             'has 200 categories: give one name for each.')
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            metainfo=dict(classes=names),
            **kwargs)

    def load_data_list(self) -> List[dict]:
        advice = 'set data_root to the folder of VG-200'
        lines = numbered_lines(self.ann_file, 'VG-200 image list',
                               advice=advice)
        label_path = self.root_file(self.label_file)
        labels = read_json(label_path, 'VG-200 label file', advice=advice)
        if not isinstance(labels, dict):
            raise ValueError(f'{label_path} is not the VG-200 label file: it '
                             'must be an object {image: [categories]}.')
        found = self._images(line.split()[0] for _, line in lines)
        if not found:
            raise FileNotFoundError(
                f'None of the image folders {", ".join(self.image_folders)} '
                f'in {self.data_root} holds an image; set data_root or '
                'image_folders.')
        count = len(self.class_names)
        data = []
        for number, line in lines:
            name = line.split()[0]
            where = f'{self.ann_file} line {number}: image {name}'
            if name not in labels:
                raise ValueError(f'{where} has no labels in '
                                 f'{label_path}: the two files do not match.')
            if name not in found:
                raise FileNotFoundError(
                    f'{where} is in none of '
                    f'{", ".join(self.image_folders)}.')
            given = labels[name]
            if not isinstance(given, list) or not all(
                    isinstance(c, int) and 0 <= c < count for c in given):
                raise ValueError(
                    f'{label_path} gives {name} the categories '
                    f'{str(given)[:40]}; they are a list of 0..{count - 1}.')
            data.append(
                dict(img_path=str(found[name]), gt_label=sorted(set(given))))
        return data

    def _images(self, names: Iterable[str]) -> Dict[str, Path]:
        """Name -> path, of those that are in one of the folders."""
        folders = [self.root_file(folder) for folder in self.image_folders]
        if isinstance(self.backend, LocalBackend):
            # One listing instead of a look for each of 90,000 images.
            return {path.name: path for folder in folders
                    for path in folder.glob('*')}
        return {name: folder / name for name in names for folder in folders
                if self.is_image(folder / name)}
