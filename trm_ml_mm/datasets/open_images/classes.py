"""The classes of Open Images: their names, lists of them, their hierarchy."""
import csv
from collections import Counter
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Set, Union

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT
from trm_ml_mm.utils.io import numbered_lines, read_json

ADVICE = 'set data_root to the folder of Open Images'
DESCRIPTIONS = ['LabelName', 'DisplayName']  # a header, which some files lack


def read_descriptions(path: Path) -> Dict[str, str]:
    """MID -> name, of ``oidv6-class-descriptions.csv`` (with a header) or
    ``class-descriptions-boxable.csv`` (without one).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: With file and line, if one has no MID and name, or a MID is
            listed twice.
    """
    names = {}
    for number, line in numbered_lines(path, 'file of class descriptions',
                                       advice=ADVICE):
        cells = next(csv.reader([line]))
        if number == 1 and cells == DESCRIPTIONS:
            continue
        if len(cells) != 2 or not cells[0].startswith('/') or not (
                cells[1].strip()):
            raise ValueError(f'{path} line {number} is "{line[:80]}", '
                             'expected a MID and a name, as in '
                             '"/m/0bt9lr,Dog".')
        if cells[0] in names:
            raise ValueError(f'{path} line {number}: the class {cells[0]} is '
                             'listed twice.')
        names[cells[0]] = cells[1].strip()
    return names


def read_class_list(source: Union[Path, Sequence[str]],
                    names: Dict[str, str]) -> List[str]:
    """MIDs of the classes to train on.

    Args:
        source: A file with a MID at the start of each line, such as
            ``oidv6-classes-trainable.txt`` or
            ``class-descriptions-boxable.csv``; or a list of MIDs.
        names: MID -> name of all classes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: With file and line, if a MID is unknown or listed twice.
    """
    if isinstance(source, (list, tuple)):
        rows = [(f'classes, entry {i}', mid) for i, mid in enumerate(source)]
    else:
        rows = [(f'{source} line {number}', line.split(',')[0]) for
                number, line in numbered_lines(source, 'list of classes',
                                               advice=ADVICE)
                if line.split(',') != DESCRIPTIONS]
    found: Dict[str, str] = {}
    for where, mid in rows:
        if mid not in names:
            raise ValueError(f'{where}: the class "{mid}" is not in the file '
                             'of class descriptions.')
        if mid in found:
            raise ValueError(f'{where}: the class {mid} is listed twice.')
        found[mid] = where
    return list(found)


def display_names(mids: Sequence[str], names: Dict[str, str]) -> List[str]:
    """A name of each class. Classes that share one get their MID behind it."""
    counts = Counter(names[mid] for mid in mids)
    return [names[mid] if counts[names[mid]] == 1 else f'{names[mid]} ({mid})'
            for mid in mids]


class Hierarchy(NamedTuple):
    """Which of C classes are kinds of which others."""

    ancestors: List[List[int]]  # of each class
    descendants: List[List[int]]


def read_hierarchy(path: Path, mids: Sequence[str]) -> Hierarchy:
    """The kinds of things in ``bbox_labels_600_hierarchy.json``: a class is a
    kind of every class above it. Parts are no kinds.

    Args:
        path: The file.
        mids: Of the classes. Others pass on what is above them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no hierarchy.
    """
    tree = read_json(path, 'hierarchy of classes', advice=ADVICE)
    above: Dict[str, Set[str]] = {}
    stack = [(tree, ())]
    while stack:
        node, path_to = stack.pop()
        kinds = node.get('Subcategory', []) if isinstance(node, dict) else None
        mid = node.get('LabelName') if isinstance(node, dict) else None
        if not isinstance(kinds, list) or not isinstance(mid, str) or (
                mid in path_to):
            raise ValueError(f'{path} is not the hierarchy of Open Images: '
                             f'an entry is {str(node)[:60]}, expected '
                             'LabelName and Subcategory.')
        above.setdefault(mid, set()).update(path_to)
        stack += [(kind, (*path_to, mid)) for kind in kinds]
    number = {mid: c for c, mid in enumerate(mids)}
    ancestors = [sorted(number[name] for name in above.get(mid, ())
                        if name in number) for mid in mids]
    descendants: List[List[int]] = [[] for _ in mids]
    for c, found in enumerate(ancestors):
        for ancestor in found:
            descendants[ancestor].append(c)
    return Hierarchy(ancestors, descendants)


def implied_labels(pairs: np.ndarray, values: np.ndarray,
                   hierarchy: Hierarchy) -> tuple:
    """What labels say about other classes: a dog is an animal, and what is no
    animal is no dog.

    Args:
        pairs: ``(K,)`` uint64, ``image << 32 | class``, without repetition.
        values: ``(K,)`` PRESENT or ABSENT.
        hierarchy: Of the classes.

    Returns:
        Pairs and values of the labels that follow, without those that are
        among ``pairs``, and without those that follow both ways.
    """
    found, kinds = [np.empty(0, np.uint64)], [np.empty(0, np.int8)]
    for value, related in ((PRESENT, hierarchy.ancestors),
                           (ABSENT, hierarchy.descendants)):
        own = pairs[values == value]
        classes = (own & 0xffffffff).astype(np.int64)
        counts = np.array([len(names) for names in related], np.int64)
        flat = np.array([c for names in related for c in names], np.uint64)
        starts = np.cumsum(counts) - counts
        count = counts[classes]
        first = np.cumsum(count) - count
        where = np.arange(count.sum()) + np.repeat(starts[classes] - first,
                                                   count)
        implied = np.unique(
            (np.repeat(own >> np.uint64(32), count) << np.uint64(32))
            | flat[where])
        found.append(implied)
        kinds.append(np.full(len(implied), value, np.int8))
    new = ~np.isin(found[1], found[2]), ~np.isin(found[2], found[1])
    chosen = [part[keep] for part, keep in zip(found[1:], new)]
    implied = np.concatenate(chosen)
    kind = np.concatenate([part[keep] for part, keep in zip(kinds[1:], new)])
    fresh = ~np.isin(implied, pairs)
    return implied[fresh], kind[fresh]
