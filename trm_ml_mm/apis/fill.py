"""Fill in the unknown labels of a training set, where a model is sure."""
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from trm_ml_mm.evaluation import (
    ProbabilityMap,
    fit_probabilities,
    precision_thresholds,
    sampling_problems,
)
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

PRECISION = .95


class Evidence(NamedTuple):
    """Labels of images that the judging models have not seen, and logits.

    Thresholds are found on these.
    """

    logits: np.ndarray  # (M, C)
    labels: np.ndarray  # (M, C) in {PRESENT, ABSENT, UNKNOWN}


class Filled(NamedTuple):
    """A label matrix whose blanks are filled in, and why."""

    labels: np.ndarray  # (N, C) in {PRESENT, ABSENT, UNKNOWN}
    probabilities: np.ndarray  # (N, C) of presence; NaN: unreadable image
    own_labels: bool  # whether known labels of the matrix gave thresholds
    problems: List[str]  # signs that these are no random sample
    # Of the labels that gave the thresholds: how many would be filled in so,
    # and how many of them are so.
    present: Tuple[int, int]
    absent: Tuple[int, int]


def fill_blanks(labels: np.ndarray,
                logits: np.ndarray,
                classes: Sequence[str],
                validation: Optional[Evidence] = None,
                precision: Tuple[float, float] = (PRECISION, PRECISION),
                guarantee: Optional[float] = None) -> Filled:
    """Fill in unknown labels, so that a wanted ratio of them is right.

    An unknown label becomes present from one threshold on, and absent up to
    another one. Between them it stays unknown. A label never gets the less
    probable value, even where the wanted precision would allow it.

    Thresholds are found on the known labels of the matrix, and on those of a
    validation set. If the known labels do not look like a random sample, and
    there is a validation set, that one alone counts.

    Args:
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        logits: ``(N, C)`` by models that have not seen the images; see
            :func:`~trm_ml_mm.apis.cross_fit.cross_fit`. NaN: the image cannot
            be read, and its labels stay.
        classes: C names.
        validation: Further images, as new to the models as these.
        precision: Wanted of "present" and of "absent", in (0, 1).
        guarantee: Reach the wanted precision with this confidence, in (0, 1),
            by :func:`~trm_ml_mm.evaluation.precision_thresholds`. None: the
            estimated precision, which is the mean probability of the labels
            that are filled in, is the wanted one.

    Raises:
        ValueError: If a ratio is out of its range, no image can be read, or
            no threshold can be found because no positive or no negative is
            known, or logits do not rise with presence.
    """
    readable = ~np.isnan(logits).any(1)
    if not readable.any():
        raise ValueError('No image of the table can be read: check the folder '
                         'that its paths start from.')
    own = Evidence(logits[readable], labels[readable])
    problems = sampling_problems(*own, classes)
    if validation is not None:
        seen = ~np.isnan(validation.logits).any(1)
        validation = Evidence(*(part[seen] for part in validation))
    use_own = validation is None or not problems
    parts = [own] * use_own + [validation] * (validation is not None)
    evidence = Evidence(*map(np.concatenate, zip(*parts)))
    fitted = fit_probabilities(*evidence)
    chances = fitted.map.probabilities(own.logits)
    blank = own.labels == UNKNOWN
    if guarantee is not None:
        cuts = [precision_thresholds(*evidence, wanted, guarantee, value,
                                     fitted).values
                for value, wanted in zip((PRESENT, ABSENT), precision)]
    else:
        cuts = expected_cuts(fitted.map, own.logits, blank, precision)
    answers = answers_of(own.logits, chances, *cuts)
    filled = np.where(blank, answers, own.labels)
    known = evidence.labels[evidence.labels != UNKNOWN]
    told = answers_of(evidence.logits, fitted.map.probabilities(
        evidence.logits), *cuts)[evidence.labels != UNKNOWN]
    if use_own:  # a known label must not have made its own probability
        held_out = fitted.held_out_probabilities[:len(chances)]
        chances = np.where(blank, chances, held_out)
    found, probabilities = labels.copy(), np.full(labels.shape, np.nan)
    found[readable], probabilities[readable] = filled, chances
    return Filled(found, probabilities, use_own, problems, *(
        (int((told == value).sum()),
         int(((told == value) & (known == value)).sum()))
        for value in (PRESENT, ABSENT)))


def answers_of(logits: np.ndarray, chances: np.ndarray, yes: np.ndarray,
               no: np.ndarray) -> np.ndarray:
    """The probable value where it is sure, else UNKNOWN: ``(N, C)``.

    Args:
        logits: ``(N, C)``.
        chances: ``(N, C)`` probabilities of these logits.
        yes: ``(C,)`` logits from which on a label is surely present.
        no: ``(C,)`` logits up to which a label is surely absent.
    """
    return np.where(
        chances > .5, np.where(logits >= yes, PRESENT, UNKNOWN),
        np.where(logits <= no, ABSENT, UNKNOWN)).astype(np.int8)


def expected_cuts(curve: ProbabilityMap, logits: np.ndarray,
                  blank: np.ndarray, precision: Tuple[float, float]
                  ) -> List[np.ndarray]:
    """Thresholds on the logit with the wanted precision, if probabilities are
    right: ``(C,)`` each, of "present" and of "absent".

    Args:
        curve: What gives the probabilities.
        logits: ``(N, C)``.
        blank: ``(N, C)`` bool, the labels to fill in.
        precision: Wanted of both.
    """
    aligned = curve.aligned(logits)[blank]
    chances = curve.probabilities(logits)[blank]
    return [curve.unaligned(sign * expected_cut(sign * aligned, right, wanted))
            for sign, right, wanted in zip(
                (1, -1), (chances, 1 - chances), precision)]


def expected_cut(scores: np.ndarray, chances: np.ndarray,
                 precision: float) -> float:
    """The lowest score from which on the mean probability is at least the
    wanted precision; inf if there is none.

    Args:
        scores: ``(M,)``, rising with the probability.
        chances: ``(M,)`` probabilities of being right.
        precision: In (0, 1).
    """
    order = np.argsort(-scores, kind='stable')
    means = np.cumsum(chances[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(means >= precision)
    return float(scores[order[good[-1]]]) if len(good) else np.inf


class ClassReport(NamedTuple):
    """What happened to the labels of a class, or of all of them."""

    name: str
    known: int
    present: int  # filled in so
    present_precision: float  # estimated; NaN: none was filled in
    absent: int
    absent_precision: float
    blank: int  # labels that stay unknown


def report(labels: np.ndarray, filled: Filled, classes: Sequence[str]
           ) -> List[ClassReport]:
    """One line for each class, and one for all classes.

    A precision is the mean probability of the labels that were filled in.

    Args:
        labels: ``(N, C)`` as they were.
    """
    rows = [(name, slice(c, c + 1)) for c, name in enumerate(classes)]
    return [_report(name, labels[:, c], filled.labels[:, c],
                    filled.probabilities[:, c])
            for name, c in [*rows, ('all classes', slice(None))]]


def _report(name: str, before: np.ndarray, after: np.ndarray,
            probabilities: np.ndarray) -> ClassReport:
    new = before != after
    numbers = []
    for value, chances in ((PRESENT, probabilities),
                           (ABSENT, 1 - probabilities)):
        chosen = chances[new & (after == value)]
        numbers += [len(chosen),
                    float(chosen.mean()) if len(chosen) else float('nan')]
    return ClassReport(name, int((before != UNKNOWN).sum()), *numbers,
                       int((after == UNKNOWN).sum()))
