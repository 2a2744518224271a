"""Names that every tool keeps as they are."""
import hashlib
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Callable, Dict, List, Sequence, Union

from trm_ml_mm.utils.io import existing
from trm_ml_mm.utils.text import printable

# A file of answers is read whole. This is more than a million answers.
MAX_MEGABYTES = 256


@cache
def safe_name(name: str) -> str:
    """A name of letters a-z, digits and _, at most 35 long, that belongs to
    one class only: a readable part and a hash of the whole name.

    It depends on nothing but the name. So it stays the same when classes are
    added to the table or change their places.
    """
    readable = re.sub('[^a-z0-9]+', '_', name.lower())[:24].strip('_')
    digest = hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()
    return f'{readable}_{digest[:10]}'.lstrip('_')


def columns_of(classes: Sequence[str],
               tool_name: Callable[[str], str]) -> Dict[str, int]:
    """Name in the tool -> column of the class.

    Raises:
        ValueError: If two classes have one name there.
    """
    columns = {}
    for column, name in enumerate(classes):
        other = columns.setdefault(tool_name(name), column)
        if other != column:
            raise ValueError(f'The classes "{classes[other]}" and "{name}" '
                             'have the same name in the tool: rename one.')
    return columns


class ImageFinder:
    """Rows of the images that a tool names.

    A tool may know an image by a part of its path only, or by a longer path:
    it is the one image whose path ends in the other's.

    Args:
        images: N names in the table.
    """

    def __init__(self, images: Sequence[str]):
        self.rows = {name: row for row, name in enumerate(images)}
        self.by_file_name: Dict[str, List[str]] = {}
        for name in images:
            self.by_file_name.setdefault(PurePosixPath(name).name,
                                         []).append(name)

    def row(self, name: str, where: str) -> int:
        """The row of an image.

        Args:
            name: In the tool.
            where: For messages.

        Raises:
            ValueError: If there is no such image, or more than one.
        """
        if name in self.rows:
            return self.rows[name]
        path = PurePosixPath(name)
        found = [image for image in self.by_file_name.get(path.name, ())
                 if _ends_alike(PurePosixPath(image).parts, path.parts)]
        if len(found) != 1:
            there = f'{len(found)} that end so' if found else 'none'
            raise ValueError(f'{where} is about the image '
                             f'"{printable(name)}", and the table has '
                             f'{there}: give the table that was exported.')
        return self.rows[found[0]]


def _ends_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    common = min(len(one), len(other))
    return one[-common:] == other[-common:]


def check_size(path: Union[str, Path]) -> Path:
    """The file of answers, unless it is missing or too large to read.

    Raises:
        FileNotFoundError, ValueError: If it is.
    """
    path = existing(path, 'File of answers', 'correct its path')
    size = path.stat().st_size / 1e6
    if size > MAX_MEGABYTES:
        raise ValueError(f'{path} has {size:.0f} MB, and at most '
                         f'{MAX_MEGABYTES} are read: export the answers in '
                         'several files.')
    return path


def check_ending(path: Union[str, Path], ending: str) -> Path:
    """A path that the tool takes.

    Raises:
        ValueError: If it ends otherwise.
    """
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f'{path} must end in {ending}: the tool takes no '
                         'other file.')
    return path


def listing(names: List[str]) -> str:
    """The first names, for a message."""
    shown = ', '.join(f'"{printable(name)}"' for name in names[:5])
    return shown + (f' and {len(names) - 5} more' if len(names) > 5 else '')
