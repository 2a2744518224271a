"""From the answers of people to labels in the table."""
from dataclasses import replace
from typing import Dict, Iterable, List, NamedTuple, Tuple

from trm_ml_mm.labels import UNKNOWN, LabelTable

from .questions import WORDS


class Answer(NamedTuple):
    """What a person said about one label."""

    row: int
    column: int
    value: int  # PRESENT, ABSENT or UNKNOWN
    where: str  # the place in its file, for messages


class Answered(NamedTuple):
    """A table after the answers, and what they did to it."""

    table: LabelTable
    filled: int  # unknown labels that are known now
    confirmed: int  # known labels that were answered as they are
    replaced: int  # known labels that an answer has changed
    undecided: int  # labels whose only answer is "unknown"; they stay
    conflicts: List[str]  # one sentence for each label that stays for that


def apply_answers(table: LabelTable,
                  answers: Iterable[Answer],
                  overwrite: bool = False) -> Answered:
    """Write the answers into the table.

    The answer "unknown", or none, leaves a label as it is. Where one answer
    says present and another absent, the label stays as it is, and this is a
    conflict. Where an answer contradicts a known label, the label stays too,
    and this is a conflict; with ``overwrite``, the answer wins.

    Args:
        table: The table that the questions came from.
        answers: In any order; several about one label, too.
        overwrite: Answers replace known labels.
    """
    said: Dict[Tuple[int, int], Dict[int, str]] = {}
    for answer in answers:
        cell = said.setdefault((answer.row, answer.column), {})
        cell.setdefault(answer.value, answer.where)
    labels = table.labels.copy()
    filled = confirmed = replaced = undecided = 0
    conflicts = []
    for (row, column), places in sorted(said.items()):
        known = {value: where for value, where in places.items()
                 if value != UNKNOWN}
        old = int(labels[row, column])
        label = f'"{table.classes[column]}" in "{table.images[row]}"'
        if not known:
            undecided += 1
        elif len(known) > 1:
            told = ' and '.join(f'{WORDS[value]} ({where})'
                                for value, where in known.items())
            conflicts.append(f'{label} was answered as {told}; it stays '
                             f'{WORDS[old]}.')
        else:
            (value, where), = known.items()
            if old == value:
                confirmed += 1
            elif old == UNKNOWN:
                filled += 1
                labels[row, column] = value
            elif overwrite:
                replaced += 1
                labels[row, column] = value
            else:
                conflicts.append(
                    f'{label} was answered as {WORDS[value]} ({where}), and '
                    f'{table.where(row)} says {WORDS[old]}; it stays.')
    return Answered(replace(table, labels=labels), filled, confirmed, replaced,
                    undecided, conflicts)
