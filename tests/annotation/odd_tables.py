"""Tables with odd names, questions and answers, for property tests."""
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN, LabelTable

# What cannot stand in a table is tested with the table.
TEXT = st.text(st.characters(exclude_categories=['Cs'],
                             exclude_characters='\0'), max_size=12)
NAMES = (TEXT | st.sampled_from([
    'dog', 'Dog', 'dog!', '"dog"', "o'dog", '<dog/>', '&amp;', '$dog', 'a,b',
    'has::x_(y)', 'Ä', 'A\u0308', '犬', '🐕', '_', '-1', 'asked', 'image',
    'present', 'dog\nhouse', 'x' * 80, 'x' * 81, ']]>', '{{idx}}', '\x1b[31m',
])).filter(lambda s: s and s == s.strip() and s[0] != '\ufeff')
FOLDERS = st.sampled_from(['', 'a/', 'b/a/', 'c d/', 'é/', './'])
VALUES = st.sampled_from((PRESENT, ABSENT, UNKNOWN))


class Case(NamedTuple):
    table: LabelTable
    asked: list  # (image, class), or None for all
    probabilities: np.ndarray  # or None
    said: dict  # (row, column) of each question -> answer

    @property
    def expected(self):
        """Labels afterwards, by a plain loop."""
        labels = self.table.labels.copy()
        for (row, column), value in self.said.items():
            if labels[row, column] == UNKNOWN:
                labels[row, column] = value
        return labels


@st.composite
def cases(draw, file_names=NAMES):
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    # A number keeps the names apart; in other parts they may be alike.
    images = [f'{draw(FOLDERS)}{name.replace("/", "")}{i}.jpg'
              for i, name in enumerate(draw(
                  st.lists(file_names, min_size=1, max_size=4)))]
    cells = [(row, column) for row in range(len(images))
             for column in range(len(classes))]
    labels = np.array([draw(VALUES) for _ in cells], np.int8).reshape(
        len(images), len(classes))
    asked = draw(st.none() | st.lists(st.sampled_from(cells), min_size=1))
    said = {cell: draw(VALUES) for cell in (cells if asked is None else asked)}
    probabilities = draw(st.none() | st.lists(
        st.floats(0, 1) | st.just(float('nan')),
        min_size=len(cells), max_size=len(cells)))
    return Case(
        LabelTable(images, classes, labels),
        asked and [(images[row], classes[column]) for row, column in asked],
        probabilities and np.reshape(probabilities, labels.shape), said)
