"""Which labels a person is asked for, and in which words."""
from typing import Dict, Iterable, List, Optional, Tuple

import numpy as np

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, LabelTable

# The answers of a question, in every tool. "unknown" is an answer too: not
# sure, or not looked at. So no answer is ever read as absent.
WORDS = {PRESENT: 'present', ABSENT: 'absent', UNKNOWN: 'unknown'}
VALUES = {word: value for value, word in WORDS.items()}


def questions(table: LabelTable,
              asked: Optional[Iterable[Tuple[str, str]]] = None
              ) -> Dict[int, List[int]]:
    """Row of each image with a question -> columns of the classes asked for.

    Args:
        table: N images, C classes.
        asked: (Image, class) of each question, by their names; known labels
            may be among them. None: every label of every image.

    Returns:
        Rows in the order in which they are asked for, columns in the order of
        the classes.

    Raises:
        ValueError: If nothing is asked, or the table has no such image or
            class.
    """
    if asked is None:
        return {row: list(range(len(table.classes)))
                for row in range(len(table.images))}
    rows = {name: row for row, name in enumerate(table.images)}
    columns = {name: column for column, name in enumerate(table.classes)}
    found = {}
    for image, name in asked:
        if image not in rows:
            raise ValueError(f'{table.source} has no image "{image}", which '
                             'a question is about.')
        if name not in columns:
            raise ValueError(f'{table.source} has no class "{name}", which '
                             'a question is about.')
        found.setdefault(rows[image], set()).add(columns[name])
    if not found:
        raise ValueError('There is no question to export: every label is '
                         'known, or none was asked for.')
    return {row: sorted(group) for row, group in found.items()}


def check_probabilities(table: LabelTable,
                        probabilities: Optional[np.ndarray]) -> np.ndarray:
    """The probabilities, ``(N, C)``; NaN where there is none.

    Raises:
        ValueError: If the shape is another, or a value lies outside [0, 1].
    """
    if probabilities is None:
        return np.full(table.labels.shape, np.nan)
    probabilities = np.asarray(probabilities, float)
    if probabilities.shape != table.labels.shape:
        raise ValueError(f'The probabilities have the shape '
                         f'{probabilities.shape}, and the table has the '
                         f'shape {table.labels.shape}.')
    wrong = (probabilities < 0) | (probabilities > 1)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f'{table.where(row)}: the probability of '
            f'"{table.classes[column]}" is {probabilities[row, column]:g}; '
            'probabilities lie in [0, 1].')
    return probabilities
