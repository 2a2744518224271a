"""PASCAL VOC as a multi-label set; difficult objects by named policies."""
from typing import List
from xml.etree import ElementTree

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, VOC_CLASSES
from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import existing, read_lines
from trm_ml_mm.utils.xml_files import parse_xml

from .base import MultiLabelDataset

DIFFICULT = {'negative': ABSENT, 'unknown': UNKNOWN, 'positive': PRESENT}
# PASCAL's own coding, as in ImageSets/Main/<class>_<split>.txt.
PASCAL_PRESENT, PASCAL_DIFFICULT, PASCAL_ABSENT = 1, 0, -1


def scores_from_pascal(labels: np.ndarray,
                       difficult: str = 'negative') -> np.ndarray:
    """Labels in PASCAL's coding -> labels in this package's coding.

    Args:
        labels: Any shape; 1 present, 0 difficult objects only, -1 absent, as
            in ``ImageSets/Main/<class>_<split>.txt``.
        difficult: How to count a class with only difficult objects:
            'negative', 'unknown' or 'positive'.

    Returns:
        The same shape, int8: 1 present, 0 absent, -1 unknown.

    Raises:
        ValueError: If ``difficult`` is none of these.
    """
    if difficult not in DIFFICULT:
        raise ValueError(f'difficult is one of {", ".join(DIFFICULT)}, got '
                         f'{difficult!r}.')
    return np.select(
        [labels == PASCAL_PRESENT, labels == PASCAL_DIFFICULT],
        [PRESENT, DIFFICULT[difficult]], ABSENT).astype(np.int8)


@DATASETS.register_module()
class VOCMultiLabel(MultiLabelDataset):
    """PASCAL VOC 2007 or 2012, 20 classes.

    Folder, as the official download creates it::

        data_root/                      VOCdevkit/VOC2007
          ImageSets/Main/trainval.txt, test.txt, ...
          Annotations/*.xml
          JPEGImages/*.jpg

    A class is present if the image has an object of it that is not marked as
    difficult. If all its objects are difficult, ``difficult`` decides. Papers
    differ: with known proportions of VOC 2007 such classes are negative, in
    training and test; with single positive labels of VOC 2012 they are
    positive; MMPretrain leaves them out.

    Args:
        ann_file: Image list, such as 'ImageSets/Main/trainval.txt'. Images
            keep its order: the masks of known labels rely on it.
        data_root: The year's folder.
        difficult: 'negative', 'unknown' or 'positive'.
        data_prefix: Image folder.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: If an annotation is damaged, or names no known class.
        FileNotFoundError: If the list, an annotation or the image folder is
            missing.
    """

    METAINFO = dict(classes=VOC_CLASSES)

    def __init__(self,
                 ann_file: str,
                 data_root: str = '',
                 difficult: str = 'negative',
                 data_prefix: str = 'JPEGImages',
                 **kwargs):
        scores_from_pascal(np.zeros(0), difficult)  # says what it may be
        self.difficult = difficult
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            **kwargs)

    def load_data_list(self) -> List[dict]:
        folder = self.image_folder()
        # A line may carry a second column, as in <class>_<split>.txt.
        names = [
            line.split()[0]
            for line in read_lines(self.ann_file, 'VOC image list',
                                   advice='set data_root to the folder that '
                                   'holds ImageSets/')
        ]
        return [
            dict(
                img_path=str(folder / f'{name}.jpg'),
                img_id=name,
                gt_score=scores_from_pascal(self._pascal_labels(name),
                                            self.difficult)) for name in names
        ]

    def _pascal_labels(self, name: str) -> np.ndarray:
        path = self.root_file(f'Annotations/{name}.xml')
        content = existing(path, 'VOC annotation', 'set data_root to its '
                           'folder').read_bytes()  # the XML says its encoding
        classes = self.class_names
        labels = np.full(len(classes), PASCAL_ABSENT, np.int8)
        try:
            objects = [(o.findtext('name').strip(),
                        int(o.findtext('difficult') or 0))
                       for o in parse_xml(content).iter('object')]
        except (ElementTree.ParseError, AttributeError, ValueError) as error:
            raise ValueError(f'{path} is not a whole VOC annotation '
                             f'({error}); unpack it again.') from error
        for kind, difficult in objects:
            if kind not in classes:
                raise ValueError(f'{path} has an object "{kind}", which is '
                                 f'not among the {len(classes)} classes.')
            c = classes.index(kind)
            labels[c] = max(labels[c], PASCAL_DIFFICULT if difficult
                            else PASCAL_PRESENT)
        return labels
