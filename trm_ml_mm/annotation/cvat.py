"""CVAT: labels of a task, image tags as pre-annotations, and its exports.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-xml/,
"CVAT for images 1.1".
"""
import json
import posixpath
import re
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple, Union
from xml.etree import ElementTree

import numpy as np

from trm_ml_mm.labels import UNKNOWN, LabelTable
from trm_ml_mm.utils.io import write_text
from trm_ml_mm.utils.text import printable
from trm_ml_mm.utils.xml_files import parse_xml

from .answers import Answer
from .names import (
    MAX_MEGABYTES,
    ImageFinder,
    check_ending,
    check_size,
    columns_of,
    safe_name,
)
from .questions import VALUES, WORDS, check_probabilities, questions

# CVAT cuts longer names off.
MAX_NAME = 64
# CVAT looks for an image by its name, and if there is none, by its number:
# our numbers are none of a task, or labels would go to another image.
FIRST_NUMBER = 100_000_000
_ANSWER, _PROBABILITY = 'answer', 'probability'
# What XML 1.0 cannot hold, and what readers of attributes change.
_NOT_IN_XML = re.compile('[^ -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')


def cvat_labels(classes: List[str]) -> List[dict]:
    """The labels of a task, for the tab "Raw" of CVAT's constructor.

    Each class is a label for image tags whose attribute ``answer`` is
    present, absent or unknown, and unknown at first.

    Args:
        classes: C names.

    Raises:
        ValueError: See :func:`columns_of`.
    """
    columns_of(classes, cvat_name)
    return [
        dict(name=cvat_name(name), type='tag', attributes=[
            dict(name=_ANSWER, input_type='select', mutable=False,
                 values=list(WORDS.values()), default_value=WORDS[UNKNOWN]),
            dict(name=_PROBABILITY, input_type='text', mutable=False,
                 values=[''], default_value='')]) for name in classes
    ]


def cvat_name(name: str) -> str:
    """The class as CVAT keeps it: its own name if that is short and has only
    printable characters, else :func:`safe_name`."""
    if len(name) <= MAX_NAME and name.isprintable() and (
            not _NOT_IN_XML.search(name) and name == name.strip()):
        return name
    return safe_name(name)


def to_cvat(table: LabelTable,
            asked: Optional[Iterable[Tuple[str, str]]] = None,
            probabilities: Optional[np.ndarray] = None) -> str:
    """Image tags for the questions, XML.

    A known label has its value. An unknown one that is asked for is unknown,
    and its probability stands beside it: CVAT does not say which tags a
    person has looked at, so a proposal would come back as an answer. Any
    other label has no tag.

    Args:
        table: N images, C classes.
        asked: See :func:`questions`.
        probabilities: That a class is present, ``(N, C)``; NaN for none.

    Raises:
        ValueError: See :func:`questions` and :func:`check_probabilities`; if
            an image's name cannot stand in XML; or if two images differ in
            the ending of their names only, since CVAT takes them for one.
    """
    probabilities = check_probabilities(table, probabilities)
    tasks = questions(table, asked)
    _check_images([table.images[row] for row in tasks])
    root = ElementTree.Element('annotations')
    _child(root, 'version', '1.1')
    task = _child(_child(root, 'meta'), 'task')
    _child(task, 'name', 'trm_ml_mm')
    _child(task, 'size', str(len(tasks)))
    _child(task, 'mode', 'annotation')
    labels = _child(task, 'labels')
    for label in cvat_labels(table.classes):
        _add_label(labels, label)
    names = list(map(cvat_name, table.classes))
    for number, (row, columns) in enumerate(tasks.items(), FIRST_NUMBER):
        image = _child(root, 'image', id=str(number),
                       name=posixpath.normpath(table.images[row]))
        for column in sorted({*columns,
                              *np.flatnonzero(table.labels[row] != UNKNOWN)}):
            tag = _child(image, 'tag', label=names[column], source='file')
            _child(tag, 'attribute', WORDS[int(table.labels[row, column])],
                   name=_ANSWER)
            probability = probabilities[row, column]
            _child(tag, 'attribute', '' if np.isnan(probability) else
                   f'{probability:.4f}', name=_PROBABILITY)
    ElementTree.indent(root)
    return ('<?xml version="1.0" encoding="utf-8"?>\n'
            + ElementTree.tostring(root, encoding='unicode') + '\n')


def from_cvat(content: Union[bytes, str], table: LabelTable,
              source: str = 'the export') -> List[Answer]:
    """The answers in an export, "CVAT for images 1.1".

    Args:
        content: Of ``annotations.xml``.
        table: The table that was exported.
        source: The file, for messages.

    Raises:
        ValueError: If it is no such export, or about another table; or if
            there are shapes, which say nothing about a whole image.
    """
    try:
        root = parse_xml(content)
    except ElementTree.ParseError as error:
        raise ValueError(f'{source} cannot be read ({error}): export the task '
                         'again as "CVAT for images 1.1".') from error
    if root.tag != 'annotations' or root.find('track') is not None:
        raise ValueError(f'{source} is no list of images with tags: export '
                         'the task as "CVAT for images 1.1".')
    columns = columns_of(table.classes, cvat_name)
    finder = ImageFinder(table.images)
    answers = []
    for number, image in enumerate(root.iterfind('image'), 1):
        where = f'{source} image {number}'
        if not len(image):  # the task may have images of another table
            continue
        row = finder.row(image.get('name', ''), where)
        for tag in image:
            answers.append(Answer(row, *_read_tag(tag, columns, where), where))
    return answers


def export_cvat(table: LabelTable,
                path: Union[str, Path],
                asked: Optional[Iterable[Tuple[str, str]]] = None,
                probabilities: Optional[np.ndarray] = None,
                image_url: str = '') -> List[Path]:
    """Write the annotations, and the labels of the task beside them.

    Args:
        path: Of the annotations, ``<name>.xml``; the labels are
            ``<name>_labels.json``.
        table: See :func:`to_cvat`.
        asked: See :func:`to_cvat`.
        probabilities: See :func:`to_cvat`.
        image_url: Not used: in CVAT, an image is found by its name.

    Returns:
        Both paths.

    Raises:
        ValueError: See :func:`to_cvat`.
    """
    path = check_ending(path, '.xml')
    labels = path.with_name(f'{path.stem}_labels.json')
    annotations = to_cvat(table, asked, probabilities)
    write_text(labels, json.dumps(cvat_labels(table.classes),
                                  ensure_ascii=False, indent=1) + '\n')
    write_text(path, annotations)
    return [path, labels]


def read_cvat(path: Union[str, Path], table: LabelTable) -> List[Answer]:
    """The answers in a file, ``annotations.xml`` or the archive that holds
    it; see :func:`from_cvat`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such export.
    """
    path = check_size(path)
    if not zipfile.is_zipfile(path):
        return from_cvat(path.read_bytes(), table, str(path))
    limit = MAX_MEGABYTES * 10**6
    try:
        with zipfile.ZipFile(path) as archive, archive.open(
                'annotations.xml') as file:
            content = file.read(limit + 1)
    except (KeyError, zipfile.BadZipFile, RuntimeError, OSError, EOFError,
            NotImplementedError) as error:
        raise ValueError(f'{path} is no archive with annotations.xml '
                         f'({error}): export the task again as "CVAT for '
                         'images 1.1".') from error
    if len(content) > limit:
        raise ValueError(f'annotations.xml in {path} has more than '
                         f'{MAX_MEGABYTES} MB: export the answers in several '
                         'files.')
    return from_cvat(content, table, f'{path}/annotations.xml')


def _check_images(names: List[str]) -> None:
    seen: Dict[str, str] = {}
    for name in names:
        if _NOT_IN_XML.search(name):
            raise ValueError(f'The image "{printable(name)}" has a character '
                             'in its name that CVAT cannot keep: rename it.')
        stem, _ = posixpath.splitext(posixpath.normpath(name))
        if stem in seen:
            raise ValueError(f'CVAT takes the images "{seen[stem]}" and '
                             f'"{name}" for one, since it leaves out the '
                             'ending of a name: rename one.')
        seen[stem] = name


def _child(parent: ElementTree.Element, tag: str, text: Optional[str] = None,
           **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_label(labels: ElementTree.Element, label: Dict[str, Any]) -> None:
    """What CVAT writes about a label into its own exports."""
    element = _child(labels, 'label')
    _child(element, 'name', label['name'])
    _child(element, 'type', label['type'])
    attributes = _child(element, 'attributes')
    for attribute in label['attributes']:
        item = _child(attributes, 'attribute')
        _child(item, 'name', attribute['name'])
        _child(item, 'mutable', str(attribute['mutable']))
        _child(item, 'input_type', attribute['input_type'])
        _child(item, 'default_value', attribute['default_value'])
        _child(item, 'values', '\n'.join(attribute['values']))


def _read_tag(tag: ElementTree.Element, columns: Dict[str, int],
              where: str) -> Tuple[int, int]:
    """(Column, value) of one tag."""
    label = tag.get('label', '')
    if tag.tag != 'tag':
        raise ValueError(f'{where} has a <{printable(str(tag.tag))[:40]}>, '
                         'and only tags of whole images are read: delete it.')
    if label not in columns:
        raise ValueError(f'{where} has a tag "{printable(label)}", which is '
                         f'none of the {len(columns)} classes: give the table '
                         'that was exported.')
    words = [a.text or WORDS[UNKNOWN] for a in tag.iterfind('attribute')
             if a.get('name') == _ANSWER]
    if len(words) != 1:
        raise ValueError(f'{where}, tag "{printable(label)}" has {len(words)} '
                         f'attributes "{_ANSWER}" instead of one: set the '
                         'task up with the labels that were exported.')
    word = words[0].strip()
    if word not in VALUES:
        raise ValueError(f'{where}, tag "{printable(label)}" is answered by '
                         f'{printable(word)[:40]!r}; the answers are '
                         f'{", ".join(WORDS.values())}.')
    return columns[label], VALUES[word]
