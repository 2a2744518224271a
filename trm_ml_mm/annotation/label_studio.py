"""Label Studio: a labeling config, tasks with predictions, and its exports.

Formats: https://labelstud.io/guide/predictions and
https://labelstud.io/guide/export, JSON and JSON-MIN.
"""
import html
import json
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Optional, Tuple, Union
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, LabelTable
from trm_ml_mm.utils.io import read_json, write_text
from trm_ml_mm.utils.text import printable

from .answers import Answer
from .names import check_ending, check_size, columns_of, listing, safe_name
from .questions import VALUES, WORDS, check_probabilities, questions

# Where Label Studio serves files of a folder that it was given.
LOCAL_FILES = '/data/local-files/?d='
# From here on, a probability is proposed as an answer.
SURE = 0.8
_IMAGE, _ASKED = 'image', 'asked'
_CLASS = 'class_'  # how the name of a class's control begins
_NAME = 'table_image'  # the image as the table names it


def label_studio_config(classes: List[str]) -> str:
    """The labeling config, XML.

    Each class has one control with the choices present, absent and unknown.
    It is shown if the class is ticked in the list below, which a prediction
    does for the classes that are asked for.

    Args:
        classes: C names.

    Raises:
        ValueError: See :func:`columns_of`.
    """
    columns_of(classes, _control)
    view = ElementTree.Element('View')
    _child(view, 'Header', value='$questions', size='4')
    _child(view, 'Image', name=_IMAGE, value='$image')
    for name in classes:
        shown = _child(view, 'View', visibleWhen='choice-selected',
                       whenTagName=_ASKED, whenChoiceValue=safe_name(name))
        _child(shown, 'Header', value=_shown(name), size='5')
        choices = _child(shown, 'Choices', name=_control(name), toName=_IMAGE,
                         choice='single-radio', showInline='true')
        for word in WORDS.values():
            _child(choices, 'Choice', value=word)
    _child(view, 'Header', value='Classes to answer', size='5')
    asked = _child(view, 'Choices', name=_ASKED, toName=_IMAGE,
                   choice='multiple', showInline='true')
    for name in classes:
        _child(asked, 'Choice', value=safe_name(name),
               html=html.escape(_shown(name)))
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding='unicode') + '\n'


def to_label_studio(table: LabelTable,
                    asked: Optional[Iterable[Tuple[str, str]]] = None,
                    probabilities: Optional[np.ndarray] = None,
                    image_url: str = LOCAL_FILES) -> List[dict]:
    """Tasks with a prediction each, which fills in the form beforehand.

    A known label is filled in as it is. An unknown one that is asked for is
    filled in as present from a probability of :data:`SURE` on, as absent up
    to 1 - :data:`SURE`, and as unknown between them or without a probability.
    Any other label is left open. A prediction is no answer: only what a
    person submits comes back.

    Args:
        table: N images, C classes.
        asked: See :func:`questions`.
        probabilities: That a class is present, ``(N, C)``; NaN for none.
        image_url: What goes before an image's name in its address.

    Returns:
        One task for each image with a question. The score of a result is the
        probability; the score of a prediction is how sure its least sure
        question is, from .5 to 1.

    Raises:
        ValueError: See :func:`questions` and :func:`check_probabilities`.
    """
    probabilities = check_probabilities(table, probabilities)
    return [_task(table, row, columns, probabilities[row], image_url)
            for row, columns in questions(table, asked).items()]


def from_label_studio(export: Any, table: LabelTable,
                      source: str = 'the export') -> List[Answer]:
    """The answers in an export, JSON or JSON-MIN.

    Skipped tasks, drafts and predictions are no answers. Controls that you
    added to the project are not read.

    Args:
        export: The content of the file.
        table: The table that was exported.
        source: The file, for messages.

    Raises:
        ValueError: If it is no such export, or about another table.
    """
    if not isinstance(export, list):
        raise ValueError(f'{source} is no list of tasks: export the project '
                         'as JSON or JSON-MIN.')
    columns = columns_of(table.classes, _control)
    rows = {name: row for row, name in enumerate(table.images)}
    answers, others = [], set()
    for number, entry in enumerate(export, 1):
        where = f'{source} entry {number}'
        for image, control, choices in _results(entry, where):
            if not control.startswith(_CLASS):
                others.add(control)
                continue
            if not isinstance(image, str) or image not in rows:
                raise ValueError(
                    f'{where} is about the image "{printable(str(image))}", '
                    'and the table has none: give the table that was '
                    'exported.')
            if control not in columns:
                raise ValueError(
                    f'{where} has an answer to "{printable(control)}", which '
                    f'is none of the {len(columns)} classes: give the table '
                    'that was exported.')
            column = columns[control]
            answers.append(Answer(rows[image], column, _value(
                choices, f'{where}, class "{table.classes[column]}"'), where))
    others.discard(_ASKED)
    if others and not answers:
        raise ValueError(f'{source} has answers to {listing(sorted(others))} '
                         'and to no class of the table: set the project up '
                         'with the config that was exported.')
    return answers


def export_label_studio(table: LabelTable,
                        path: Union[str, Path],
                        asked: Optional[Iterable[Tuple[str, str]]] = None,
                        probabilities: Optional[np.ndarray] = None,
                        image_url: str = LOCAL_FILES) -> List[Path]:
    """Write the tasks, and the labeling config beside them.

    Args:
        path: Of the tasks, ``<name>.json``; the config is
            ``<name>_config.xml``.
        table: See :func:`to_label_studio`.
        asked: See :func:`to_label_studio`.
        probabilities: See :func:`to_label_studio`.
        image_url: See :func:`to_label_studio`.

    Returns:
        Both paths.

    Raises:
        ValueError: See :func:`to_label_studio`.
    """
    path = check_ending(path, '.json')
    config = path.with_name(f'{path.stem}_config.xml')
    tasks = to_label_studio(table, asked, probabilities, image_url)
    write_text(config, label_studio_config(table.classes))
    write_text(path, json.dumps(tasks, ensure_ascii=False, allow_nan=False,
                                indent=1) + '\n')
    return [path, config]


def read_label_studio(path: Union[str, Path],
                      table: LabelTable) -> List[Answer]:
    """The answers in a file; see :func:`from_label_studio`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such export.
    """
    export = read_json(check_size(path), 'export of Label Studio')
    return from_label_studio(export, table, str(path))


def _control(name: str) -> str:
    return _CLASS + safe_name(name)


def _shown(name: str) -> str:
    """For people; Label Studio would replace $word by data of the task."""
    return printable(name).replace('$', '\N{FULLWIDTH DOLLAR SIGN}')


def _child(parent: ElementTree.Element, tag: str,
           **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, attributes)


def _task(table: LabelTable, row: int, columns: List[int],
          probabilities: np.ndarray, image_url: str) -> dict:
    labels, asked = table.labels[row], set(columns)
    results = [_result(row, _ASKED, [safe_name(table.classes[c])
                                     for c in columns])]
    for column, name in enumerate(table.classes):
        known = labels[column] != UNKNOWN
        if known or column in asked:
            value = int(labels[column]) if known else _proposal(
                probabilities[column])
            result = _result(row, _control(name), [WORDS[value]])
            if not np.isnan(probabilities[column]):
                result['score'] = round(float(probabilities[column]), 6)
            results.append(result)
    prediction = dict(model_version='trm_ml_mm', result=results)
    sure = np.maximum(probabilities, 1 - probabilities)[columns]
    if not np.isnan(sure).all():
        prediction['score'] = round(float(np.nanmin(sure)), 6)
    image = table.images[row]
    return dict(
        data={_IMAGE: image_url + quote(image), _NAME: image,
              'questions': 'In the picture? ' + ', '.join(
                  _question(table.classes[c], probabilities[c])
                  for c in columns)},
        predictions=[prediction])


def _proposal(probability: float) -> int:
    if probability >= SURE:
        return PRESENT
    return ABSENT if 1 - probability >= SURE else UNKNOWN


def _question(name: str, probability: float) -> str:
    name = printable(name)
    return name if np.isnan(probability) else f'{name} ({probability:.0%})'


def _result(row: int, control: str, choices: List[str]) -> dict:
    return dict(id=f'{row}-{control}', type='choices', from_name=control,
                to_name=_IMAGE, value=dict(choices=choices))


def _results(entry: Any, where: str) -> Iterator[Tuple[Any, str, Any]]:
    """(Image, control, choices) of each result that a person submitted."""
    if not isinstance(entry, dict):
        raise ValueError(f'{where} is no task: export the project as JSON or '
                         'JSON-MIN.')
    if 'annotations' not in entry:  # JSON-MIN: one flat entry per annotation
        if _NAME not in entry:
            raise ValueError(f'{where} has neither "annotations" nor '
                             f'"{_NAME}": export a project whose tasks came '
                             'from this package as JSON or JSON-MIN.')
        for control, choices in entry.items():
            if control.startswith(_CLASS) or control == _ASKED:
                yield entry[_NAME], control, choices
        return
    try:
        image = entry['data'].get(_NAME)
        for annotation in entry['annotations']:
            if annotation.get('was_cancelled'):
                continue
            for result in annotation['result']:
                if 'from_name' in result:
                    yield image, str(result['from_name']), result['value']
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{where} is no whole task ({error!r}): export the '
                         'project again as JSON or JSON-MIN.') from error


def _value(choices: Any, where: str) -> int:
    if isinstance(choices, dict):
        choices = choices.get('choices')
    if isinstance(choices, list) and len(choices) == 1:
        choices = choices[0]
    if not isinstance(choices, str) or choices not in VALUES:
        raise ValueError(f'{where} is answered by '
                         f'{printable(str(choices))[:40]!r}; the answers are '
                         f'{", ".join(WORDS.values())}.')
    return VALUES[choices]
