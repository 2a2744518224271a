"""VAW: attributes of single objects, of which each has a few labels."""
import math
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Union

from trm_ml_mm.registry import DATASETS
from trm_ml_mm.utils.io import read_json

from .base import MultiLabelDataset
from .json_fields import check_signs, class_numbers, field

ADVICE = 'set data_root to the folder of VAW'
SIZES = 'head', 'medium', 'tail'  # groups of attributes by frequency


@DATASETS.register_module()
class VAW(MultiLabelDataset):
    """Visual Attributes in the Wild: 260,895 objects, 620 attributes.

    Folder, with the files of the official repository, and images as Visual
    Genome provides them::

        data_root/
          train_part1.json, train_part2.json, val.json, test.json
          attribute_index.json
          head_tail.json, attribute_types.json, attribute_parent_types.json
          VG_100K/*.jpg, VG_100K_2/*.jpg

    A sample is an object: a box of an image, which
    :class:`~trm_ml_mm.datasets.CropBox` cuts out. An attribute in neither of
    its two lists is unknown. ``metainfo['groups']`` has the attributes that
    are 'head', 'medium' and 'tail', and those of each type, by the rules of
    the official evaluation: the first type that lists an attribute counts,
    and an attribute without one is of type 'other'.

    Args:
        ann_file: A label file, or several. Objects keep their order.
        data_root: The folder.
        image_folders: Folders to look for images in.
        **kwargs: See :class:`MultiLabelDataset`.

    Raises:
        ValueError: With file and entry, if a file is cut off or not VAW's, an
            attribute is unknown, an object is listed twice or has no box, or
            an attribute is present and absent in one object.
        FileNotFoundError: If a file is missing, or an image.
    """

    def __init__(self,
                 ann_file: Union[str, Sequence[str]],
                 data_root: str = '',
                 image_folders: Sequence[str] = ('VG_100K', 'VG_100K_2'),
                 **kwargs):
        self.data_root = data_root
        self.image_folders = image_folders
        self.label_files = [self.root_file(name) for name in (
            [ann_file] if isinstance(ann_file, str) else ann_file)]
        classes = read_attributes(self.root_file('attribute_index.json'))
        super().__init__(
            data_root=data_root,
            metainfo=dict(classes=classes,
                          groups=read_groups(Path(data_root), classes)),
            **kwargs)

    def load_data_list(self) -> List[dict]:
        find = self.image_finder(self.image_folders)
        numbers = {name: c for c, name in enumerate(self.class_names)}
        first: Dict[int, str] = {}
        data = []
        for path in self.label_files:
            content = read_json(path, 'VAW label file', advice=ADVICE,
                                drop=('instance_polygon', ))
            if not isinstance(content, list):
                raise ValueError(f'{path} is not a VAW label file: it must be '
                                 'a list of objects.')
            for number, entry in enumerate(content):
                where = f'{path} entry {number}'
                info = self._entry(entry, where, find, numbers)
                instance = info['instance_id']
                if instance in first:
                    raise ValueError(f'{where}: the instance {instance} is '
                                     f'already in {first[instance]}; keep one '
                                     'of them.')
                first[instance] = where
                data.append(info)
        return data

    def _entry(self, entry: dict, where: str,
               find: Callable[[str], Optional[Path]],
               numbers: Dict[str, int]) -> dict:
        instance = identifier(entry, 'instance_id', where)
        where = f'{where} (instance {instance})'
        name = f'{identifier(entry, "image_id", where)}.jpg'
        path = find(name)
        if path is None:
            raise FileNotFoundError(
                f'{where}: the image {name} is in none of '
                f'{", ".join(self.image_folders)} of {self.data_root}; set '
                'data_root or image_folders.')
        box = field(entry, 'instance_bbox', list, where)
        if len(box) != 4 or not all(
                type(v) in (int, float) and math.isfinite(v) for v in box
                ) or min(box[2:]) <= 0:
            raise ValueError(f'{where}: "instance_bbox" is {str(box)[:60]}, '
                             'expected x, y, width and height of a box that '
                             'is not empty.')
        positive, negative = (
            class_numbers(field(entry, name, list, where), numbers,
                          'attribute', f'{where}, {name}')
            for name in ('positive_attributes', 'negative_attributes'))
        check_signs(positive, negative, self.class_names, where)
        return dict(img_path=str(path), instance_id=instance,
                    crop_box=box, gt_positive=sorted(positive),
                    gt_negative=sorted(negative))


def identifier(entry: dict, name: str, where: str) -> int:
    """A number, which the files write as a number or as text.

    Raises:
        ValueError: If it is neither.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return field(entry, name, int, where)


def read_attributes(path: Path) -> List[str]:
    """Names of the attributes, in the order of ``attribute_index.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its numbers are not 0, 1, 2, ...
    """
    index = read_json(path, 'VAW attribute index', advice=ADVICE)
    numbers = index.values() if isinstance(index, dict) else ()
    if not all(type(n) is int for n in numbers) or not index or (
            sorted(numbers) != list(range(len(index)))):
        raise ValueError(f'{path} is not the attribute index of VAW: it must '
                         'be an object {attribute: number}, numbered from 0.')
    return sorted(index, key=index.get)


def read_groups(root: Path, classes: Sequence[str]) -> Dict[str, List[str]]:
    """The groups of attributes that the official evaluation reports.

    Args:
        root: Folder of ``head_tail.json``, ``attribute_types.json`` and
            ``attribute_parent_types.json``.
        classes: All attributes.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is not an object of lists, or an attribute is
            neither 'head' nor 'medium' nor 'tail'.
    """
    sizes, types, parents = (
        read_lists(root / name) for name in (
            'head_tail.json', 'attribute_types.json',
            'attribute_parent_types.json'))
    groups: Dict[str, List[str]] = {name: [] for name in (*SIZES, *parents)}
    for name in classes:
        size = first_with(sizes, name)
        if size not in SIZES:
            raise ValueError(f'{root / "head_tail.json"} has the attribute '
                             f'"{name}" in none of {", ".join(SIZES)}.')
        groups[size].append(name)
        parent = first_with(parents, first_with(types, name) or 'other')
        groups.setdefault(parent or 'other', []).append(name)
    return groups


def read_lists(path: Path) -> Dict[str, List[str]]:
    """A JSON object of lists.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is something else.
    """
    content = read_json(path, 'file of VAW attributes', advice=ADVICE)
    if not isinstance(content, dict) or not all(
            isinstance(names, list) for names in content.values()):
        raise ValueError(f'{path} is not a file of VAW attributes: it must be '
                         'an object of lists.')
    return content


def first_with(lists: Dict[str, List[str]], name: str) -> Union[str, None]:
    """Key of the first list that has a name."""
    return next((key for key, names in lists.items() if name in names), None)
