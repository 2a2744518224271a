"""What the page says about the blanks of a table: proposals, questions, and
the answers of a person."""
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Callable, Iterable, List, NamedTuple, Optional, Sequence

import numpy as np

from trm_ml_mm.annotation import Answer, apply_answers
from trm_ml_mm.annotation.names import ImageFinder, listing
from trm_ml_mm.apis import MultiLabelInferencer, fill_blanks
from trm_ml_mm.evaluation import rank_questions
from trm_ml_mm.labels import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    TableColumns,
    read_table,
    write_table,
)

from .viewer import Viewer

BATCH = 16  # images that are read at once
SHOWN = 200  # proposals on the page; the file has all
# Wraps an iterable of a number of images, to show progress.
Track = Callable[[Iterable, int], Iterable]


class Question(NamedTuple):
    """A label that a person is asked for."""

    row: int
    column: int
    path: str  # of the image
    name: str  # of the class
    probability: float  # that it is present


class Blanks:
    """A table, what a model proposes for its blanks, and answers.

    Thresholds come from the known labels of the table, as those of
    :func:`~trm_ml_mm.apis.fill_blanks`. The model judges every image as it
    is, so it should not have been trained on them.

    Args:
        viewer: The model. If it was trained on other classes than those of
            the table, it recognises these by their words.
        table: CSV file.
        images: Files. A file belongs to the image of the table whose path
            ends in its name. Images without a file keep their labels.
        ignored: Columns of the table that are no classes.
        precision: Of proposals, in (0, 1).
        track: Shows progress.

    Raises:
        ValueError, FileNotFoundError: If the table cannot be read, has
            classes that the model cannot read, or no file is an image of it.
    """

    def __init__(self, viewer: Viewer, table: str, images: Sequence[str],
                 ignored: Sequence[str] = (), precision: float = .95,
                 track: Track = lambda images, count: images):
        self.table = read_table(table, columns=TableColumns(
            ignored=tuple(ignored)))
        self.known = self.table.labels  # before any answer
        self.precision = precision
        self.paths = find_files(self.table.images, images)
        self.predict = predictor_of(viewer, self.table.classes)
        self.logits, self.scores, self.unreadable = self._judge(track)
        self.answers: List[Answer] = []
        self._fill()
        queue = rank_questions(self.known, self.probabilities)
        self.queue = [tuple(pair) for pair in queue.tolist()]

    def _judge(self, track: Track):
        """Logits and scores ``(N, C)``, NaN for images without a file, and
        sentences on files that cannot be read."""
        rows = [row for row, path in enumerate(self.paths)
                if path is not None]
        logits = np.full((len(self.paths), len(self.predict.classes)), np.nan)
        scores, unreadable = logits.copy(), []
        batches = self.predict.preprocess([self.paths[row] for row in rows],
                                          BATCH)
        entries = (entry for batch in batches for entry in batch)
        for row, entry in zip(rows, track(entries, len(rows))):
            if 'error' in entry:
                unreadable.append(str(entry['error']))
                continue
            (sample, _), = self.predict.forward([entry])
            logits[row] = sample.pred_logit.numpy()
            scores[row] = self.predict.judge(sample.pred_logit.numpy())[0]
        if np.isnan(logits).all():
            raise ValueError(f'No image can be read: {unreadable[0]}')
        columns = [self.predict.classes.index(name)
                   for name in self.table.classes]
        return logits[:, columns], scores[:, columns], unreadable

    def _fill(self) -> None:
        """Proposals for what is still blank."""
        self.answered = apply_answers(self.table, self.answers).table
        self.problem = None
        try:
            filled = fill_blanks(self.answered.labels, self.logits,
                                 self.table.classes,
                                 precision=(self.precision, ) * 2)
        except ValueError as error:  # too few known labels: nothing is sure
            self.problem = str(error)
            self.labels, self.probabilities = self.answered.labels, self.scores
        else:
            self.labels = filled.labels
            self.probabilities = filled.probabilities

    def question(self) -> Optional[Question]:
        """The label to ask for now; None: there is none left."""
        if len(self.answers) >= len(self.queue):
            return None
        row, column = self.queue[len(self.answers)]
        return Question(row, column, self.paths[row],
                        self.table.classes[column],
                        float(self.probabilities[row, column]))

    def answer(self, value: int) -> None:
        """Note an answer to :meth:`question`: PRESENT, ABSENT or UNKNOWN."""
        row, column = self.queue[len(self.answers)]
        self.answers.append(Answer(row, column, value, 'the page'))
        self._fill()

    def undo(self) -> None:
        """Take the latest answer back."""
        if self.answers:
            self.answers.pop()
            self._fill()

    def proposals(self) -> List[list]:
        """Image, class, label and probability of the first proposals, the
        least sure ones first."""
        where = np.argwhere(self.labels != self.answered.labels)
        chance = self.probabilities[tuple(where.T)]
        return [[self.table.images[row], self.table.classes[column],
                 'present' if self.labels[row, column] == PRESENT
                 else 'absent', f'{self.probabilities[row, column]:.3f}']
                for row, column in where[np.argsort(np.abs(chance - .5))
                                         ][:SHOWN].tolist()]

    def summary(self) -> str:
        """What is known, proposed, answered and left, in sentences."""
        before, after = self.answered.labels, self.labels
        new = after[before != after]
        said = Counter(answer.value for answer in self.answers)
        blank = int((after == UNKNOWN).sum())
        words = [
            f'{len(self.table.images)} images, {len(self.table.classes)} '
            f'classes; {int((self.known != UNKNOWN).sum())} labels of the '
            'table are known.',
            f'Proposed: {int((new == PRESENT).sum())} present, '
            f'{int((new == ABSENT).sum())} absent. Left blank: {blank}.',
            f'Your answers: {said[PRESENT]} present, {said[ABSENT]} absent, '
            f'{said[UNKNOWN]} unknown.']
        if self.problem:
            words.append(f'Nothing can be proposed yet. {self.problem}')
        missing = [name for name, path in zip(self.table.images, self.paths)
                   if path is None]
        if missing:
            words.append(f'{len(missing)} images of the table have no file '
                         f'and keep their labels: {listing(missing)}.')
        return ' '.join([*words, *self.unreadable[:5]])

    def write(self, path: str, proposals: bool = True) -> None:
        """Write the table with the answers, and with the proposals."""
        write_table(path, replace(self.table, labels=self.labels)
                    if proposals else self.answered)


def find_files(names: Sequence[str], files: Sequence[str]
               ) -> List[Optional[str]]:
    """The file of each image of a table; None: there is none.

    Raises:
        ValueError: If a file belongs to several images, or none belongs to
            any.
    """
    finder = ImageFinder(names)
    paths: List[Optional[str]] = [None] * len(names)
    for file in files:
        # A browser brings no folders; where the name says it all, they do not
        # count.
        named = finder.by_file_name.get(Path(file).name, ())
        if named:
            where = named[0] if len(named) == 1 else Path(file).as_posix()
            paths[finder.row(where, 'A file')] = str(file)
    if not any(paths):
        raise ValueError(f'None of the {len(files)} files has the name of an '
                         f'image of the table ({listing(list(names))}): '
                         'choose the files that its paths end in.')
    return paths


def predictor_of(viewer: Viewer, classes: Sequence[str]
                 ) -> MultiLabelInferencer:
    """The model for the classes of a table."""
    if set(classes) <= set(viewer.predict.classes):
        return viewer.predict
    return viewer.of_classes(tuple(classes))
