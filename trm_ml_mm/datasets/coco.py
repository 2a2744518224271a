"""MS-COCO as a multi-label set, read with the standard library."""
from functools import cached_property
from typing import Dict, List, Optional

import numpy as np

from trm_ml_mm.labels import COCO_CLASSES
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.checks import check_choice
from trm_ml_mm.utils.io import read_json

from .base import MultiLabelDataset, boxes_by_class


@DATASETS.register_module()
class CocoMultiLabel(MultiLabelDataset):
    """COCO's detection annotations as labels of 80 classes.

    Folder, as the official download of 2014 or 2017 creates it::

        data_root/
          annotations/instances_train2014.json, instances_val2014.json
          train2014/*.jpg
          val2014/*.jpg

    Args:
        ann_file: Such as 'annotations/instances_train2014.json'.
        data_prefix: Image folder, such as 'train2014'.
        data_root: Folder of both.
        images: 'all' (82,783 / 40,504 images of 2014, as SST, SARB, HST and
            TaI-DPT use) or 'annotated' (82,081 / 40,137, as DualCoOp does).
            Images keep the order of ``images`` in the JSON: the masks of
            known labels rely on it.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: If ``images`` is unknown, the file is not COCO's, or it
            has a category that is not one of the 80.
        FileNotFoundError: If the annotation file or the image folder is
            missing.
    """

    METAINFO = dict(classes=COCO_CLASSES)

    def __init__(self,
                 ann_file: str,
                 data_prefix: str = '',
                 data_root: str = '',
                 images: str = 'all',
                 **kwargs):
        check_choice(('all', 'annotated'), images=images)
        self.images = images
        super().__init__(
            ann_file=ann_file,
            data_prefix=data_prefix,
            data_root=data_root,
            **kwargs)

    def load_data_list(self) -> List[dict]:
        path, folder = self.ann_file, self.image_folder()
        content = read_json(path, 'COCO annotation file',
                            advice='set data_root to the folder that holds '
                            'annotations/')
        try:
            files = [(e['id'], e['file_name']) for e in content['images']]
            names = {c['id']: c['name'] for c in content['categories']}
            boxes = [(b['image_id'], names[b['category_id']])
                     for b in content['annotations']]
            labels = {image: set() for image, _ in files}
            for image, _ in boxes:
                labels[image]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{path} is not a whole COCO instances file '
                f'({type(error).__name__}: {error}); download it again.'
            ) from error
        index = {name: i for i, name in enumerate(self.class_names)}
        unknown = sorted(set(names.values()) - set(index))
        if unknown:
            raise ValueError(
                f'{path} has the category "{unknown[0]}", which is not among '
                f'the {len(index)} classes of this data set.')
        for image, name in boxes:
            labels[image].add(index[name])
        return [
            dict(
                img_path=str(folder / file),
                img_id=image,
                gt_label=sorted(labels[image])) for image, file in files
            if self.images == 'all' or labels[image]
        ]

    def boxes(self, idx: int) -> Optional[Dict[int, np.ndarray]]:
        """See :meth:`MultiLabelDataset.boxes`. None if the file has none."""
        if self._boxes is None:
            return None
        return self._boxes.get(self.get_data_info(idx)['img_id'], {})

    @cached_property
    def _boxes(self) -> Optional[Dict[int, Dict[int, np.ndarray]]]:
        """Of each image, from the file, which is read again: a training needs
        no boxes. None if it has none."""
        content = read_json(self.ann_file, 'COCO annotation file')
        index = {name: i for i, name in enumerate(self.class_names)}
        return read_boxes(content, {c['id']: index[c['name']]
                                    for c in content['categories']})


def read_boxes(content: dict, numbers: Dict[int, int]
               ) -> Optional[Dict[int, Dict[int, np.ndarray]]]:
    """The boxes of each image of a file in COCO's format.

    Args:
        content: Of the file.
        numbers: Category id -> number of the class.

    Returns:
        Image id -> what :func:`boxes_by_class` returns, for images with boxes;
        None if a box or a size is missing.
    """
    found: Dict[int, list] = {}
    try:
        sizes = {e['id']: (e['width'], e['height'])
                 for e in content['images']}
        for one in content['annotations']:
            left, top, width, height = one['bbox']
            found.setdefault(one['image_id'], []).append(
                (numbers[one['category_id']],
                 (left, top, left + width, top + height)))
    except KeyError:
        return None
    return {image: boxes_by_class(boxes, *sizes[image])
            for image, boxes in found.items()}
