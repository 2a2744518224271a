"""Class names of the known data sets, and the words of each for a prompt."""
import re
from functools import cache
from pathlib import Path
from typing import Optional, Sequence, Tuple, Union

import numpy as np

from trm_ml_mm.utils.io import read_lines

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

NUS_CLASSES = (
    'airport', 'animal', 'beach', 'bear', 'birds', 'boats', 'book', 'bridge',
    'buildings', 'cars', 'castle', 'cat', 'cityscape', 'clouds', 'computer',
    'coral', 'cow', 'dancing', 'dog', 'earthquake', 'elk', 'fire', 'fish',
    'flags', 'flowers', 'food', 'fox', 'frost', 'garden', 'glacier', 'grass',
    'harbor', 'horses', 'house', 'lake', 'leaf', 'map', 'military', 'moon',
    'mountain', 'nighttime', 'ocean', 'person', 'plane', 'plants', 'police',
    'protest', 'railroad', 'rainbow', 'reflection', 'road', 'rocks',
    'running', 'sand', 'sign', 'sky', 'snow', 'soccer', 'sports', 'statue',
    'street', 'sun', 'sunset', 'surf', 'swimmers', 'tattoo', 'temple',
    'tiger', 'tower', 'town', 'toy', 'train', 'tree', 'valley', 'vehicle',
    'water', 'waterfall', 'wedding', 'whales', 'window', 'zebra')

_COLORS = ('blue brown iridescent purple rufous grey yellow olive green pink '
           'orange black white red buff')
_PATTERNS = 'solid spotted striped multi-colored'
# CUB-200-2011's attributes, part by part in the order of its attributes.txt.
_CUB_PARTS = (
    ('bill_shape', 'curved_(up_or_down) dagger hooked needle hooked_seabird '
     'spatulate all-purpose cone specialized'),
    ('wing_color', _COLORS),
    ('upperparts_color', _COLORS),
    ('underparts_color', _COLORS),
    ('breast_pattern', _PATTERNS),
    ('back_color', _COLORS),
    ('tail_shape', 'forked_tail rounded_tail notched_tail fan-shaped_tail '
     'pointed_tail squared_tail'),
    ('upper_tail_color', _COLORS),
    ('head_pattern', 'spotted malar crested masked unique_pattern eyebrow '
     'eyering plain eyeline striped capped'),
    ('breast_color', _COLORS),
    ('throat_color', _COLORS),
    ('eye_color', _COLORS.replace('iridescent ', '')),
    ('bill_length',
     'about_the_same_as_head longer_than_head shorter_than_head'),
    ('forehead_color', _COLORS),
    ('under_tail_color', _COLORS),
    ('nape_color', _COLORS),
    ('belly_color', _COLORS),
    ('wing_shape', 'rounded-wings pointed-wings broad-wings tapered-wings '
     'long-wings'),
    ('size', 'large_(16_-_32_in) small_(5_-_9_in) very_large_(32_-_72_in) '
     'medium_(9_-_16_in) very_small_(3_-_5_in)'),
    ('shape', 'upright-perching_water-like chicken-like-marsh '
     'long-legged-like duck-like owl-like gull-like hummingbird-like '
     'pigeon-like tree-clinging-like hawk-like sandpiper-like '
     'upland-ground-like swallow-like perching-like'),
    ('back_pattern', _PATTERNS),
    ('tail_pattern', _PATTERNS),
    ('belly_pattern', _PATTERNS),
    ('primary_color', _COLORS),
    ('leg_color', _COLORS),
    ('bill_color', _COLORS),
    ('crown_color', _COLORS),
    ('wing_pattern', _PATTERNS),
)
CUB_ATTRIBUTES = tuple(f'has_{part}::{value}' for part, values in _CUB_PARTS
                       for value in values.split())

# The built-in scenes. An object is named by one look and one shape.
LOOKS = ('red', 'orange', 'yellow', 'green', 'blue', 'purple', 'striped',
         'checkered')
SHAPES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring', 'heart',
          'crescent', 'arrow')
NUM_SCENE_CATEGORIES = 30
_WORLD_STREAM = 101

# Names as data sets spell them -> names as people write them.
PROMPT_NAMES = {
    'aeroplane': 'airplane',
    'diningtable': 'dining table',
    'motorbike': 'motorcycle',
    'pottedplant': 'potted plant',
    'tvmonitor': 'tv monitor',
    # Of LVIS, those that read alike without what is in parentheses.
    'bow_(decorative_ribbons)': 'ribbon bow',
    'bow_(weapon)': 'archery bow',
    'fish_(food)': 'fish meat',
    'octopus_(food)': 'octopus meat',
    'pan_(for_cooking)': 'cooking pan',
    'pan_(metal_container)': 'metal pan',
    'salmon_(food)': 'salmon meat',
}

_KNOWN_SETS = {
    'coco': COCO_CLASSES,
    'cub': CUB_ATTRIBUTES,
    'nuswide': NUS_CLASSES,
    'voc': VOC_CLASSES,
}


@cache
def scene_names(scene_set: int) -> Tuple[Tuple[str, str], ...]:
    """All (look, shape) names in the order of one scene set: the first
    :data:`NUM_SCENE_CATEGORIES` are its categories, the rest distractors."""
    names = [(look, shape) for look in LOOKS for shape in SHAPES]
    order = scene_world_rng(scene_set).permutation(len(names))
    return tuple(names[i] for i in order)


def scene_world_rng(scene_set: int) -> np.random.RandomState:
    """The random state that draws one scene set: first its names."""
    return np.random.RandomState([_WORLD_STREAM, scene_set])


def scene_classes(scene_set: int = 0) -> Tuple[str, ...]:
    """Class names of one scene set of the built-in scenes."""
    return tuple(f'{look} {shape}' for look, shape in
                 scene_names(scene_set)[:NUM_SCENE_CATEGORIES])


def vocabulary(scenes: bool = False) -> Tuple[str, ...]:
    """A fixed list of words that stands for "any text": the names of COCO,
    VOC and NUS-WIDE.

    Args:
        scenes: All names of the built-in scenes instead, for a tower that
            knows no other words.
    """
    if scenes:
        return tuple(f'{look} {shape}' for look in LOOKS for shape in SHAPES)
    names = (prompt_name(n) for n in
             (*COCO_CLASSES, *VOC_CLASSES, *NUS_CLASSES))
    return tuple(dict.fromkeys(names))


def class_names(classes: Union[str, Sequence[str]]) -> Tuple[str, ...]:
    """Class names from a config entry.

    Args:
        classes: A list of names; the name of a known set ('coco', 'cub',
            'nuswide', 'voc', 'scenes', or 'scenes:N' for scene set N); or a
            text file with one name a line.

    Raises:
        ValueError: If there is no name, or a name occurs twice; or for
            'dataset', which stands for names that are not filled in yet.
        FileNotFoundError: If the string is neither a known set nor a file.
    """
    if isinstance(classes, str):
        source = classes
        if classes in _KNOWN_SETS:
            return _KNOWN_SETS[classes]
        if classes.split(':')[0] == 'scenes':
            number = classes.partition(':')[2] or '0'
            if not number.isdigit():
                raise ValueError(f'{classes!r} names no scene set: write '
                                 "'scenes:1' for number 1.")
            return scene_classes(int(number))
        if classes == 'dataset':
            raise ValueError(
                "classes='dataset' means the class names of the data set, and "
                'they are not filled in yet: load the config with '
                'trm_ml_mm.engine.load_config and call '
                'trm_ml_mm.engine.fill_classes on it (tools/train.py and '
                'tools/test.py do), or write the names.')
        if not Path(classes).is_file():
            raise FileNotFoundError(
                f'The class names {classes!r} are neither a known set '
                f"({', '.join(sorted(_KNOWN_SETS))}, scenes) nor a text file "
                'with one name a line.')
        names = tuple(read_lines(classes, 'file of class names'))
    else:
        source, names = 'the list of class names', tuple(classes)
    if not names:
        raise ValueError(f'{source} has no class names.')
    seen = set()
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f'{source} has {name!r} as a class name.')
        if name in seen:
            raise ValueError(f'{source} has the class name "{name}" twice.')
        seen.add(name)
    return names


def prompt_name(name: str, mapping: Optional[dict] = None) -> str:
    """The words of one class, for a prompt. What explains a name, as LVIS
    does in ``cap_(headwear)``, is left out.

    Args:
        name: As the data set spells it.
        mapping: Your own words, used before those of :data:`PROMPT_NAMES`.
    """
    if name in (mapping or {}):
        name = mapping[name]
    elif '::' in name:
        name = _attribute_name(name)
    else:
        name = PROMPT_NAMES.get(name, name)
        name = name.partition('_(')[0] or name
    return ' '.join(name.replace('_', ' ').split())


def _attribute_name(name: str) -> str:
    """has_bill_shape::curved_(up_or_down) -> curved bill shape."""
    part, value = name.removeprefix('has_').split('::', 1)
    value = re.sub(r'\(.*\)', '', value).strip('_')
    noun = part.split('_')[0]
    if value.endswith((noun, f'{noun}s')):  # forked_tail, rounded-wings
        return re.sub(f'-(?={noun})', ' ', value)
    if value.startswith('about') or value.endswith('than_head'):
        return f'{part} {value}'  # bill length longer than head
    return f'{value} {part}'
