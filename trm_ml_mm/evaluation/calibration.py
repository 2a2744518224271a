"""What a model's logits mean: thresholds and probabilities from labelled
images, as plain data that a checkpoint keeps."""
import math
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

from trm_ml_mm.labels import PRESENT, UNKNOWN, summarize_labels
from trm_ml_mm.utils.checks import check_choice

from .known_labels import sampling_problems
from .probabilities import (
    FOLDS,
    METHODS,
    ProbabilityMap,
    calibration_error,
    check_both_values,
    check_scores,
    fit_probabilities,
    sigmoid,
)
from .thresholds import (
    best_f1_thresholds,
    precision_thresholds,
    recall_thresholds,
)

FORMAT = 1
F1, PRECISION, RECALL = 'f1', 'precision', 'recall'
CRITERIA = (F1, PRECISION, RECALL)


class Calibration(NamedTuple):
    """Thresholds and probabilities of a model, and where they are from."""

    criterion: str  # what the thresholds are for: one of CRITERIA
    target: Optional[float]  # wanted precision or recall
    confidence: Optional[float]  # with which it is guaranteed
    classes: List[str]
    # Of each class, on the logit; inf: the class is never predicted.
    thresholds: np.ndarray
    shared: List[str]  # classes with too few known labels for their own
    probabilities: ProbabilityMap
    positives: List[int]  # known ones of each class
    negatives: List[int]
    images: int
    # Expected calibration error of known labels: of the sigmoid of logits, and
    # of probabilities of fits that did not see the label.
    error_before: float
    error_after: float
    problems: List[str]  # signs that known labels are no random sample
    source: str  # the images and labels, for people

    @property
    def never_predicted(self) -> List[str]:
        """Classes without a threshold: no candidate reached the target."""
        return [name for name, threshold in zip(
            self.classes, self.thresholds) if threshold == np.inf]

    @property
    def cuts(self) -> List[Optional[float]]:
        """The probability at each threshold; None: never predicted."""
        found = self.probabilities.probabilities(self.thresholds)
        return [None if threshold == np.inf else float(cut)
                for threshold, cut in zip(self.thresholds, found)]

    def predict(self, logits: np.ndarray) -> np.ndarray:
        """Which classes are present, ``(..., C)`` bool from ``(..., C)``."""
        return np.asarray(logits) >= self.thresholds

    def to_dict(self) -> dict:
        """The same in JSON types; a threshold of inf becomes None."""
        curve = self.probabilities
        return dict(
            self._asdict(), format=FORMAT,
            thresholds=[None if t == np.inf else t
                        for t in self.thresholds.tolist()],
            probabilities=dict(
                curve._asdict(), bias=curve.bias.tolist(),
                **{name: None if points is None else points.tolist()
                   for name, points in (('curve_x', curve.curve_x),
                                        ('curve_y', curve.curve_y))}))

    @classmethod
    def from_dict(cls, content: Any, where: str = 'The calibration',
                  classes: Optional[Sequence[str]] = None) -> 'Calibration':
        """Read what :meth:`to_dict` wrote.

        Args:
            content: The dict; nothing in it is trusted.
            where: What holds it, for error messages.
            classes: Names of the model's classes; None: not compared.

        Raises:
            ValueError: If it is of another version, incomplete, of other
                types, or of other classes; says which entry.
        """
        if not isinstance(content, dict) or content.get('format') != FORMAT:
            found = content.get('format') if isinstance(content, dict) else (
                type(content).__name__)
            raise ValueError(
                f'{where} has format {found!r}, and this version of '
                f'trm_ml_mm reads {FORMAT}: calibrate the model again.')
        entries = _Entries(content, where)
        names = entries.texts('classes')
        if classes is not None and names != list(classes):
            raise ValueError(f'{where} is of other classes than the model, or '
                             'of another order of them: calibrate the model '
                             'again.')
        thresholds = entries.numbers('thresholds', len(names), or_none=True)
        inner = entries.inner('probabilities')
        method = inner.choice('method', METHODS)
        curve = [None, None]
        if method.endswith('isotonic'):
            curve[0] = inner.numbers('curve_x')
            curve[1] = inner.numbers('curve_y', len(curve[0]))
            for name, points in zip(('curve_x', 'curve_y'), curve):
                inner.need(name, len(points) > 0
                           and (np.diff(points) >= 0).all())
        scale = inner.number('scale')
        inner.need('scale', scale > 0)
        criterion = entries.choice('criterion', CRITERIA)
        share = [0, 1] if criterion != F1 else None
        return cls(
            criterion, entries.ratio('target', share),
            entries.ratio('confidence', share), names, thresholds,
            entries.texts('shared', names),
            ProbabilityMap(method, scale,
                           inner.numbers('bias', len(names)), *curve),
            entries.counts('positives', len(names)),
            entries.counts('negatives', len(names)),
            entries.count('images'), entries.ratio('error_before', [0, 1]),
            entries.ratio('error_after', [0, 1]), entries.texts('problems'),
            entries.text('source'))


class _Entries:
    """Entries of a dict from a file, each checked as it is read."""

    def __init__(self, content: dict, where: str):
        self.content, self.where = content, where

    def need(self, name: str, right: bool) -> None:
        if not right:
            raise ValueError(f'{self.where} is damaged: its entry "{name}" is '
                             'missing or not what it must be; calibrate the '
                             'model again.')

    def inner(self, name: str) -> '_Entries':
        value = self.content.get(name)
        self.need(name, isinstance(value, dict))
        return _Entries(value, self.where)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        value = self.content.get(name)
        self.need(name, isinstance(value, str) and value in choices)
        return value

    def text(self, name: str) -> str:
        self.need(name, isinstance(self.content.get(name), str))
        return self.content[name]

    def texts(self, name: str, among: Optional[Sequence[str]] = None
              ) -> List[str]:
        value = self.content.get(name)
        self.need(name, isinstance(value, list) and all(
            isinstance(v, str) and (among is None or v in among)
            for v in value))
        return list(value)

    def number(self, name: str) -> float:
        value = self.content.get(name)
        self.need(name, _is_number(value))
        return float(value)

    def ratio(self, name: str, limits: Optional[Sequence[float]]
              ) -> Optional[float]:
        """Within the limits; None, if there are none."""
        value = self.content.get(name)
        if limits is None:
            self.need(name, value is None)
            return None
        self.need(name, _is_number(value)
                  and limits[0] <= value <= limits[1])
        return float(value)

    def numbers(self, name: str, length: Optional[int] = None,
                or_none: bool = False) -> np.ndarray:
        value = self.content.get(name)
        self.need(name, isinstance(value, list)
                  and length in (None, len(value))
                  and all(_is_number(v) or (or_none and v is None)
                          for v in value))
        return np.array([np.inf if v is None else v for v in value],
                        np.float64)

    def count(self, name: str) -> int:
        value = self.content.get(name)
        self.need(name, type(value) is int and value >= 0)
        return value

    def counts(self, name: str, length: int) -> List[int]:
        value = self.content.get(name)
        self.need(name, isinstance(value, list) and len(value) == length
                  and all(type(v) is int and v >= 0 for v in value))
        return list(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def calibrate_logits(logits: np.ndarray, labels: np.ndarray,
                     classes: Sequence[str], criterion: str = F1,
                     target: Optional[float] = None,
                     confidence: float = .9, source: str = '',
                     minimum: Optional[float] = None) -> Calibration:
    """Thresholds and probabilities from labelled, also partially labelled,
    images that the model was not trained on.

    Args:
        logits: ``(N, C)`` floats.
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        classes: C names.
        criterion: 'f1': the best F1 of each class. 'precision', 'recall': the
            wanted one, guaranteed; see
            :mod:`~trm_ml_mm.evaluation.risk_control`.
        target: Wanted precision or recall, in (0, 1).
        confidence: Of the guarantee, in (0, 1).
        source: What the images are, for people.
        minimum: Known labels that a class needs for its own threshold; None:
            the default of the criterion in
            :mod:`~trm_ml_mm.evaluation.thresholds`.

    Raises:
        ValueError: If an argument is wrong, or the labels are too few or do
            not belong to the logits.
    """
    check_choice(CRITERIA, criterion=criterion)
    if (target is None) != (criterion == F1):
        raise ValueError(f'The criterion {criterion!r} ' + (
            'has no target.' if criterion == F1 else 'needs a target.'))
    logits, labels = check_scores(logits, labels)
    if len(classes) != logits.shape[1]:
        raise ValueError(f'There are {len(classes)} class names and '
                         f'{logits.shape[1]} columns of logits.')
    check_both_values(labels[labels != UNKNOWN] == PRESENT)
    fit = fit_probabilities(logits, labels)
    if criterion == F1:
        options = {} if minimum is None else dict(minimum=minimum)
        found = best_f1_thresholds(logits, labels, fit, **options)
    else:
        find = (precision_thresholds if criterion == PRECISION else
                recall_thresholds)
        found = find(logits, labels, target, confidence, fit=fit,
                     minimum=minimum)
    count = summarize_labels(labels)
    return Calibration(
        criterion, target, None if criterion == F1 else confidence,
        list(classes), found.values,
        [name for name, one in zip(classes, found.shared) if one], fit.map,
        count.positive.tolist(), count.negative.tolist(), len(labels),
        calibration_error(sigmoid(logits), labels),
        calibration_error(fit.held_out_probabilities, labels),
        sampling_problems(logits, labels, classes), source)


def held_out_predictions(logits: np.ndarray, labels: np.ndarray,
                         seed: int = 0, **options) -> np.ndarray:
    """What thresholds predict on images that they were not chosen on.

    Each of five parts of the images is predicted by a calibration on the
    other four. So its figures are those of slightly fewer labels.

    Args:
        logits: See :func:`calibrate_logits`.
        labels: See :func:`calibrate_logits`.
        seed: Deals images out to the parts.
        options: Further ones of :func:`calibrate_logits`.

    Returns:
        ``(N, C)`` bool.

    Raises:
        ValueError: See :func:`calibrate_logits`; also if a part has all known
            positives or negatives.
    """
    logits, labels = check_scores(logits, labels)
    # Another seed than the folds of the probabilities, which lie within.
    parts = np.random.RandomState(seed + 1).permutation(len(logits)) % FOLDS
    predicted = np.zeros(logits.shape, bool)
    for part in np.unique(parts):
        out = parts == part
        predicted[out] = calibrate_logits(
            logits[~out], labels[~out], **options).predict(logits[out])
    return predicted
