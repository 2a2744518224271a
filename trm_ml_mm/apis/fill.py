"""Fill in the unknown labels of a training set, where a model is sure."""
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmengine.config import Config

from trm_ml_mm.evaluation import (
    ProbabilityFit,
    fit_probabilities,
    precision_thresholds,
    sampling_problems,
)
from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN
from trm_ml_mm.utils.checks import check_ratio

PRECISION = .95
CONFIDENCE = .9  # of the guarantee


class Evidence(NamedTuple):
    """Labels of images that the judging model has not seen, and its logits.

    Thresholds are found on these.
    """

    logits: np.ndarray  # (M, C)
    labels: np.ndarray  # (M, C) in {PRESENT, ABSENT, UNKNOWN}


class Filled(NamedTuple):
    """A label matrix whose blanks are filled in, and why."""

    labels: np.ndarray  # (N, C) in {PRESENT, ABSENT, UNKNOWN}
    probabilities: np.ndarray  # (N, C) of presence; NaN: unreadable image
    yes_from: np.ndarray  # (C,) on the logit; inf: never
    no_to: np.ndarray  # (C,) on the logit; -inf: never
    own_labels: bool  # whether thresholds are from the known labels too
    problems: List[str]  # signs that these are no random sample


def fill_blanks(labels: np.ndarray, logits: np.ndarray,
                classes: Sequence[str],
                validation: Optional[Evidence] = None,
                precision: Tuple[float, float] = (PRECISION, PRECISION),
                confidence: float = CONFIDENCE) -> Filled:
    """Fill in unknown labels, so that a wanted ratio of them is right.

    An unknown label becomes present from a threshold on, and absent up to
    another one. Both thresholds have a guarantee (see
    :func:`~trm_ml_mm.evaluation.precision_thresholds`), and both answers
    must be the more probable one. Between them, the label stays unknown.

    Thresholds are found on the known labels of the matrix itself, and on those
    of a validation set. If the known labels do not look like a random sample,
    and there is a validation set, only that one counts.

    Args:
        labels: ``(N, C)`` in {PRESENT, ABSENT, UNKNOWN}.
        logits: ``(N, C)`` by models that were not trained on the image; see
            :func:`~trm_ml_mm.apis.cross_fit.cross_fit`. NaN: nothing is
            known about the image, and its labels stay.
        classes: C names.
        validation: Further images, as new to the models as these.
        precision: Wanted of "present" and of "absent", in (0, 1).
        confidence: Of the guarantee, in (0, 1).

    Raises:
        ValueError: If a precision or the confidence is not in (0, 1), or no
            threshold can be found: no positive or no negative is known, or
            logits do not rise with presence.
    """
    readable = ~np.isnan(logits).any(1)
    own = Evidence(logits[readable], labels[readable])
    problems = sampling_problems(*own, classes)
    use_own = validation is None or not problems
    parts = [own] * use_own + [validation] * (validation is not None)
    evidence = Evidence(*map(np.concatenate, zip(*parts)))
    fit = fit_probabilities(*evidence)
    yes, no = (precision_thresholds(*evidence, wanted, confidence, value,
                                    fit).values
               for value, wanted in zip((PRESENT, ABSENT), precision))
    probabilities = np.full(labels.shape, np.nan)
    probabilities[readable] = fit.map.probabilities(own.logits)
    filled = labels.copy()
    blank = (labels == UNKNOWN) & readable[:, None]
    likely = probabilities > .5
    filled[blank & likely & (logits >= yes)] = PRESENT
    filled[blank & ~likely & (logits <= no)] = ABSENT
    if use_own:  # the probability of a known label is not of its own making
        known = own.labels != UNKNOWN
        held_out = fit.held_out_probabilities[:len(known)][known]
        inner = probabilities[readable]
        inner[known] = held_out
        probabilities[readable] = inner
    return Filled(filled, probabilities, yes, no, use_own, problems)
