"""Take values out of JSON entries; what is missing or wrong is named."""
import os
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Set

from trm_ml_mm.utils.io import existing

KINDS = {int: 'a whole number', str: 'text', list: 'a list',
         dict: 'an object'}


def field(entry: Any, name: str, kind: type, where: str) -> Any:
    """One value of an entry.

    Args:
        entry: What the file has there; an object, if the file is right.
        name: Of the value.
        kind: ``int``, ``str``, ``list`` or ``dict``.
        where: File and entry, for the message.

    Raises:
        ValueError: If the entry has no such value, or one of another kind.
    """
    if not isinstance(entry, dict) or name not in entry:
        raise ValueError(f'{where} has no "{name}", expected '
                         f'{KINDS[kind]}.')
    value = entry[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f'{where}: "{name}" is {str(value)[:40]!r}, expected '
                         f'{KINDS[kind]}.')
    return value


def class_numbers(names: Iterable, numbers: Mapping[Any, int], what: str,
                  where: str) -> Set[int]:
    """Numbers of the classes in a list of an entry. A repeated one counts
    once.

    Args:
        names: As the file lists them.
        numbers: Name, or id -> number of the class.
        what: Is listed: 'category'.
        where: File, entry and list, for the message.

    Raises:
        ValueError: If one is unknown.
    """
    found = set()
    for name in names:
        number = numbers.get(name) if isinstance(name, (int, str)) else None
        if number is None:
            raise ValueError(f'{where} has the {what} {str(name)[:40]!r}, '
                             f'which is not among the {len(numbers)} of this '
                             'data set.')
        found.add(number)
    return found


def check_signs(positive: Set[int], negative: Set[int],
                classes: Sequence[str], where: str) -> None:
    """Refuse labels that contradict each other.

    Raises:
        ValueError: With the first class that is present and absent.
    """
    both = positive & negative
    if both:
        raise ValueError(f'{where}: "{classes[min(both)]}" is present and '
                         'absent: correct one of the labels.')


def files_of_folders(folders: Iterable[Path]) -> Dict[str, Path]:
    """File name -> path, of all files in some folders. One listing, instead of
    a look for each of 100,000 images.

    Raises:
        FileNotFoundError: If there is none of the folders.
    """
    folders = list(folders)
    found: Dict[str, Path] = {}
    here: List[Path] = [folder for folder in folders if folder.is_dir()]
    if not here:
        existing(folders[0], 'Image folder', 'set data_root to the folder '
                 'that holds it')
    for folder in here:
        found.update((name, folder / name) for name in os.listdir(folder))
    return found
