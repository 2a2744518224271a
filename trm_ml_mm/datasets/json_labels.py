"""Own images, with labels in MMPretrain's JSON format."""
from typing import List

from trm_ml_mm.registry import DATASETS

from .base import MultiLabelDataset, score_of
from .files import read_json


@DATASETS.register_module()
class JSONMultiLabel(MultiLabelDataset):
    """The JSON file of MMPretrain's ``MultiLabelDataset``, with unknowns::

        {"metainfo": {"classes": ["dog", "cat", "car"]},
         "data_list": [{"img_path": "a.jpg", "gt_label": [0, 2]},
                       {"img_path": "b.jpg", "gt_score": [1, -1, 0]}]}

    ``gt_label`` lists present classes, all others being absent; ``gt_score``
    has 1 present, 0 absent, -1 unknown for every class.

    Args:
        ann_file: The file.
        data_root, data_prefix: Images are ``data_root/data_prefix/img_path``.
        **kwargs: Of :class:`MultiLabelDataset`.

    Raises:
        ValueError: If the file is cut off, lacks a part, or has a label that
            is none; with file and entry.
        FileNotFoundError: If the file or the image folder is missing.
    """

    def load_data_list(self) -> List[dict]:
        path = self.ann_file
        content = read_json(path, 'label file',
                            advice='set data_root and ann_file')
        try:
            entries = content['data_list']
            self._metainfo.setdefault('classes', content['metainfo']['classes'])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f'{path} needs "metainfo" with "classes", and "data_list"; '
                f'{error} is missing.') from error
        folder = self._image_folder()
        data = []
        for number, entry in enumerate(entries):
            where = f'{path} entry {number}'
            if 'img_path' not in entry or not {'gt_label', 'gt_score'
                                               } & set(entry):
                raise ValueError(f'{where} needs "img_path", and "gt_label" '
                                 'or "gt_score".')
            score = score_of(
                dict(entry, img_path=f'{where}, {entry["img_path"]}'),
                self.class_names)
            data.append(dict(entry, img_path=str(folder / entry['img_path']),
                             gt_score=score))
        return data
