"""Your own images, with labels in MMPretrain's JSON format."""
from typing import List

from trm_ml_mm.labels import ImageNames, class_names
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import read_json
from trm_ml_mm.utils.mmengine_private import own_metainfo

from .base import MultiLabelDataset, score_of


@DATASETS.register_module()
class JSONMultiLabel(MultiLabelDataset):
    """The JSON file of MMPretrain's ``MultiLabelDataset``, with unknowns::

        {"metainfo": {"classes": ["dog", "cat", "car"]},
         "data_list": [{"img_path": "a.jpg", "gt_label": [0, 2]},
                       {"img_path": "b.jpg", "gt_score": [1, -1, 0]}]}

    ``gt_label`` lists the present classes; all others are absent.
    ``gt_score`` has one value per class: 1 present, 0 absent, -1 unknown.

    Args:
        ann_file: The file.
        **kwargs: See :class:`MultiLabelDataset`. Images are
            ``data_root/data_prefix/img_path``.

    Raises:
        ValueError: If the file is cut off or incomplete, or has a value that
            is not a label. The message has file and entry.
        FileNotFoundError: If the file or the image folder is missing.
    """

    def load_data_list(self) -> List[dict]:
        path = self.ann_file
        content = read_json(path, 'label file',
                            advice='set data_root and ann_file')
        try:
            entries = list(content['data_list'])
            classes = content['metainfo']['classes']
            if not isinstance(classes, list):
                raise TypeError('classes')
            classes = list(class_names(classes))
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f'{path} must be an object with "metainfo", in it a list '
                '"classes", and a list "data_list".') from error
        own = own_metainfo(self).setdefault('classes', classes)
        if list(own) != classes:
            raise ValueError(f'{path} has other classes, or another order of '
                             'them, than metainfo of this data set: leave '
                             'metainfo out.')
        if not entries:
            raise ValueError(f'{path} has an empty "data_list".')
        names = ImageNames(self.image_folder(),
                           must_exist=self.on_error == 'raise',
                           is_image=self.is_image)
        return [
            self._entry(entry, f'{path} entry {number}', names)
            for number, entry in enumerate(entries)
        ]

    def _entry(self, entry: dict, where: str, names: ImageNames) -> dict:
        if not isinstance(entry, dict) or 'img_path' not in entry or not (
                {'gt_label', 'gt_score'} & set(entry)):
            raise ValueError(f'{where} needs "img_path", and "gt_label" or '
                             '"gt_score".')
        labels = entry.get('gt_score', entry.get('gt_label'))
        kind = (int, float) if 'gt_score' in entry else int
        if not isinstance(labels, list) or not all(
                isinstance(v, kind) and abs(v) < 1e9 for v in labels):
            raise ValueError(
                f'{where}: gt_label is a list of indices of classes, gt_score '
                f'a list of 1, 0 and -1, got {str(labels)[:40]}.')
        score = score_of(
            dict(entry, img_path=f'{where}, {entry["img_path"]}'),
            self.class_names)
        return dict(entry, img_path=names.path(entry['img_path'], where),
                    gt_score=score)
