"""LVIS: 1,203 categories, of which each image has a few labels."""
from functools import cached_property
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set, Tuple

import numpy as np

from trm_ml_mm.labels import class_names
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import read_json
from trm_ml_mm.utils.mmengine_private import own_metainfo

from .base import MultiLabelDataset
from .coco import read_boxes
from .json_fields import check_signs, class_numbers, field

# What the frequency of a category is called in ``metainfo['groups']``.
GROUPS = {'f': 'frequent', 'c': 'common', 'r': 'rare'}


@DATASETS.register_module()
class LVIS(MultiLabelDataset):
    """LVIS v1, 100,170 training and 19,809 validation images.

    Folder, with the names of the official downloads::

        data_root/
          annotations/lvis_v1_train.json, lvis_v1_val.json
          train2017/*.jpg, val2017/*.jpg      the images of COCO 2017

    The set is federated: each category was looked for in some images only. A
    category with an annotation is present, whether or not all its instances
    are annotated (``not_exhaustive_category_ids``); one in
    ``neg_category_ids`` is absent; every other one is unknown. ``coco_url``
    says in which folder an image lies: images of the validation set are in
    ``train2017`` too.

    The classes have the names of the file, in the order of their ids.
    :func:`~trm_ml_mm.labels.prompt_name` makes words of them. Their groups by
    frequency are ``metainfo['groups']``.

    Args:
        ann_file: Such as 'annotations/lvis_v1_train.json'. Images keep its
            order.
        **kwargs: See :class:`MultiLabelDataset`. ``data_root`` is the folder.

    Raises:
        ValueError: With file and entry, if the file is cut off or not LVIS's,
            an image or a category is unknown, or a category is present and
            absent in one image.
        FileNotFoundError: If the file or an image is missing.
    """

    def load_data_list(self) -> List[dict]:
        path = self.ann_file
        content = self._read()
        categories = read_categories(content, path)
        classes = [name for _, name, _ in categories]
        self._set_classes(classes, categories)
        numbers = {one: c for c, (one, _, _) in enumerate(categories)}
        present = positives_of(content, numbers, path)
        images = list(numbered(content, 'images', path))
        places = [image_file(entry, where) for entry, where in images]
        # Of each folder; none if images may be missing.
        finders = {folder: self.image_finder([folder]) for folder in dict(
            places)} if self.on_error == 'raise' else {}
        data = []
        for (entry, where), (folder, file) in zip(images, places):
            if folder in finders and finders[folder](file) is None:
                raise FileNotFoundError(
                    f'{where}: the image {self.root_file(folder) / file} does '
                    'not exist; set data_root to the folder that holds '
                    f'{folder}.')
            lists = [class_numbers(
                field(entry, name, list, where), numbers, 'category',
                f'{where}, {name}') for name in (
                    'neg_category_ids', 'not_exhaustive_category_ids')]
            # A category that is not annotated exhaustively is there: its
            # annotations say so.
            positive, negative = present[entry['id']], lists[0]
            check_signs(positive, negative, classes, where)
            data.append(dict(
                img_path=str(self.root_file(folder) / file),
                img_id=entry['id'], gt_positive=sorted(positive),
                gt_negative=sorted(negative)))
        return data

    def _read(self) -> dict:
        # Outlines of objects are most of the file, and are not needed.
        return read_json(self.ann_file, 'LVIS annotation file',
                         advice='set data_root to the folder that holds '
                         'annotations/', drop=('segmentation', ))

    def _set_classes(self, classes: List[str], categories: list) -> None:
        info = own_metainfo(self)
        if list(info.setdefault('classes', classes)) != classes:
            raise ValueError(f'{self.ann_file} has other categories, or '
                             'another order of them, than metainfo of this '
                             'data set: leave metainfo out.')
        info['groups'] = {group: [name for _, name, key in categories
                                  if key == letter]
                          for letter, group in GROUPS.items()}

    def boxes(self, idx: int) -> Optional[Dict[int, np.ndarray]]:
        """See :meth:`MultiLabelDataset.boxes`. None if the file has none."""
        if self._boxes is None:
            return None
        return self._boxes.get(self.get_data_info(idx)['img_id'], {})

    @cached_property
    def _boxes(self) -> Optional[Dict[int, Dict[int, np.ndarray]]]:
        """Of each image, from the file, which is read again: a training needs
        no boxes. None if it has none."""
        content = self._read()
        categories = read_categories(content, self.ann_file)
        return read_boxes(content, {
            one: c for c, (one, _, _) in enumerate(categories)})


def numbered(content: dict, name: str, path: str
             ) -> Iterator[Tuple[dict, str]]:
    """The entries of a list of the file, and where each is, from 0 on.

    Raises:
        ValueError: If the file has no such list.
    """
    entries = content.get(name) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f'{path} is not a whole LVIS v1 file: it has no list '
                         f'"{name}"; download it again.')
    for number, entry in enumerate(entries):
        yield entry, f'{path} {name} entry {number}'


def read_categories(content: dict, path: str) -> List[Tuple[int, str, str]]:
    """Id, name and frequency ('f', 'c', 'r') of the categories, by their id.

    Raises:
        ValueError: If an entry is not one, or an id or a name is there twice.
    """
    found: Dict[int, Tuple[int, str, str]] = {}
    for entry, where in numbered(content, 'categories', path):
        one = field(entry, 'id', int, where)
        frequency = field(entry, 'frequency', str, where)
        if one in found:
            raise ValueError(f'{where}: the category {one} is listed twice.')
        if frequency not in GROUPS:
            raise ValueError(f'{where}: "frequency" is "{frequency}", and '
                             f'LVIS v1 has {", ".join(GROUPS)}.')
        found[one] = one, field(entry, 'name', str, where), frequency
    categories = [found[one] for one in sorted(found)]
    try:
        class_names([name for _, name, _ in categories])
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    return categories


def positives_of(content: dict, numbers: Dict[int, int], path: str
                 ) -> Dict[int, Set[int]]:
    """Image id -> numbers of the categories that it has annotations of.

    Raises:
        ValueError: If an annotation names an image or a category that the
            file does not have, or an image is listed twice.
    """
    found: Dict[int, Set[int]] = {}
    for entry, where in numbered(content, 'images', path):
        image = field(entry, 'id', int, where)
        if image in found:
            raise ValueError(f'{where}: the image {image} is listed twice.')
        found[image] = set()
    for entry, where in numbered(content, 'annotations', path):
        image = field(entry, 'image_id', int, where)
        if image not in found:
            raise ValueError(f'{where}: the image {image} is not in the list '
                             'of images: download the file again.')
        category = field(entry, 'category_id', int, where)
        if category not in numbers:  # class_numbers for 1.3 million of them
            class_numbers([category], numbers, 'category', where)
        found[image].add(numbers[category])
    return found


def image_file(entry: dict, where: str) -> Tuple[str, str]:
    """Folder and file of an image, from its ``coco_url``, such as
    ``http://images.cocodataset.org/train2017/000000391895.jpg``.

    Raises:
        ValueError: If it has no such address.
    """
    address = Path(field(entry, 'coco_url', str, where))
    folder, file = address.parent.name, address.name
    if not folder or not file:
        raise ValueError(f'{where}: "coco_url" is "{address}", expected one '
                         'that ends in FOLDER/FILE.')
    return folder, file
