"""Charts as SVG that takes the colours of the page around it."""
import io
import re
from typing import Dict, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from trm_ml_mm.labels import ABSENT, PRESENT, UNKNOWN

from .run import Curve

WIDTH, HEIGHT = 5.2, 3.  # inches
MARGINS = dict(left=.12, right=.98, bottom=.16, top=.96)
BINS = 20
POINTS = 80  # of a precision-recall curve


def svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element, black as the colour of text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none'}):
        figure.savefig(buffer, format='svg', transparent=True,
                       metadata=dict(Date=None))
    text = buffer.getvalue()
    text = text[text.index('<svg'):].replace('#000000', 'currentColor')
    return re.sub(r'<metadata>.*?</metadata>', '', text, flags=re.S)


def lines(curves: Dict[str, Curve], x: str, y: str) -> str:
    """One line for each entry."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots(gridspec_kw=dict(MARGINS, right=.7))
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name, linewidth=1.5,
                  marker='o' if len(steps) < 15 else None, markersize=3)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=.3)
    axes.legend(fontsize=8, frameon=False, loc='center left',
                bbox_to_anchor=(1, .5))
    return svg(figure)


def frequency(points: Sequence[Tuple[int, float]]) -> str:
    """AP against the known positives of the training set."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots(gridspec_kw=MARGINS)
    axes.scatter(*zip(*points), s=16, alpha=.7)
    if min(x for x, _ in points) > 0:
        axes.set_xscale('log', base=2)
        axes.xaxis.set_major_formatter('{x:g}')
    axes.set_xlabel('known positives to train on')
    axes.set_ylabel('AP (%)')
    axes.grid(alpha=.3)
    return svg(figure)


def one_class(scores: np.ndarray, labels: np.ndarray, threshold: float
              ) -> Tuple[str, str]:
    """Precision against recall, and histograms of the scores.

    Args:
        scores: ``(N,)`` of one class.
        labels: ``(N,)`` of one class.
        threshold: Drawn as a line; None: there is none.
    """
    known = labels != UNKNOWN
    scores, labels = scores[known], labels[known]
    # Two figures: on a phone, one stands below the other.
    figures = [Figure(figsize=(WIDTH, HEIGHT)) for _ in range(2)]
    left, right = (figure.subplots(gridspec_kw=MARGINS) for figure in figures)
    order = np.argsort(-scores, kind='stable')
    found = (labels[order] == PRESENT).cumsum()
    if found[-1] if len(found) else 0:
        recall = found / found[-1]
        precision = found / np.arange(1, len(found) + 1)
        shown = np.unique(np.linspace(0, len(found) - 1, POINTS * 4,
                                      dtype=int))
        left.plot(recall[shown], precision[shown], linewidth=1.5)
    left.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel='recall',
             ylabel='precision')
    bins = np.linspace(0, 1, BINS + 1)
    for value, name in ((PRESENT, 'present'), (ABSENT, 'absent')):
        right.hist(scores[labels == value], bins, alpha=.6, label=name)
    if threshold is not None:
        right.axvline(threshold, linestyle='--', color='black', linewidth=1,
                      label='threshold')
    right.set_yscale('symlog')
    right.set(xlabel='score', ylabel='test images', xlim=(0, 1))
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.grid(alpha=.3)
    return svg(figures[0]), svg(figures[1])
