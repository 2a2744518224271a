"""Class names of the known data sets, and words a text tower can read."""
from pathlib import Path
from typing import Sequence, Tuple, Union

COCO_CLASSES = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train',
    'truck', 'boat', 'traffic light', 'fire hydrant', 'stop sign',
    'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow',
    'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella', 'handbag',
    'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard',
    'tennis racket', 'bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon',
    'bowl', 'banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot',
    'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
    'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote',
    'keyboard', 'cell phone', 'microwave', 'oven', 'toaster', 'sink',
    'refrigerator', 'book', 'clock', 'vase', 'scissors', 'teddy bear',
    'hair drier', 'toothbrush')

VOC_CLASSES = ('aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car',
               'cat', 'chair', 'cow', 'diningtable', 'dog', 'horse',
               'motorbike', 'person', 'pottedplant', 'sheep', 'sofa', 'train',
               'tvmonitor')

# Names as data sets spell them -> names as people write them.
PROMPT_NAMES = {
    'aeroplane': 'airplane',
    'diningtable': 'dining table',
    'motorbike': 'motorcycle',
    'pottedplant': 'potted plant',
    'tvmonitor': 'tv monitor',
}

_KNOWN_SETS = {'coco': COCO_CLASSES, 'voc': VOC_CLASSES}


def class_names(classes: Union[str, Sequence[str]]) -> Tuple[str, ...]:
    """Class names from a config entry.

    Args:
        classes: A list of names; the name of a known set ('coco', 'voc',
            'scenes' or 'scenes:N' for scene set N); or a text file with one
            name a line.

    Raises:
        ValueError: If a name occurs twice or there is none.
        FileNotFoundError: If the string is neither a known set nor a file.
    """
    if isinstance(classes, str):
        source = classes
        if classes in _KNOWN_SETS:
            return _KNOWN_SETS[classes]
        if classes.split(':')[0] == 'scenes':
            from .scenes import make_world
            number = classes.partition(':')[2] or '0'
            if not number.isdigit():
                raise ValueError(f'{classes!r} names no scene set: write '
                                 "'scenes:1' for number 1.")
            return make_world(int(number)).names
        path = Path(classes)
        if not path.is_file():
            raise FileNotFoundError(
                f'class names {classes!r} are neither a known set '
                f"({', '.join(sorted(_KNOWN_SETS))}, scenes) nor a text file "
                'with one name a line.')
        names = tuple(line.strip() for line in path.read_text().splitlines()
                      if line.strip())
    else:
        source, names = 'the list of class names', tuple(classes)
    if not names:
        raise ValueError(f'{source} has no class names.')
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'{source} has the class name "{name}" twice.')
    return names


def prompt_name(name: str, mapping: dict = None) -> str:
    """The words of one class, for a prompt.

    Args:
        name: As the data set spells it.
        mapping: Own names, before those of :data:`PROMPT_NAMES`.
    """
    name = (mapping or {}).get(name, PROMPT_NAMES.get(name, name))
    return ' '.join(name.replace('_', ' ').split())
