"""Curves with error bars, and points around zero."""
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Tuple

from matplotlib.figure import Figure

WIDTH = 7.5  # inches, of a picture in the docs
MARKERS = 'osv^D<>pXh*P'


class Curve(NamedTuple):
    """One line with error bars."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    deviation: Sequence[float]


def draw_curves(curves: Sequence[Curve], path: Path, x: str, y: str,
                zoom: Optional[float] = None) -> None:
    """Draw lines with error bars, the first one bold.

    Args:
        curves: At least one.
        path: PNG file.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        zoom: Add a second panel with this much of y below the highest value.
    """
    figure = Figure(figsize=(WIDTH if zoom is None else 1.5 * WIDTH, 4.2))
    panels = figure.subplots(1, 1 if zoom is None else 2, squeeze=False)[0]
    for axes in panels:
        for i, curve in enumerate(curves):
            axes.errorbar(curve.x, curve.y, curve.deviation, label=curve.name,
                          marker=MARKERS[i % len(MARKERS)], markersize=5,
                          capsize=3, linewidth=2.5 if i == 0 else 1.2)
        axes.set_xlabel(x)
        axes.set_xticks(curves[0].x)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(y)
    if zoom is not None:
        top = max(max(curve.y) for curve in curves)
        panels[-1].set_ylim(top - zoom, top + 0.1 * zoom)
    panels[-1].legend(loc='center left', bbox_to_anchor=(1, 0.5),
                      frameon=False, fontsize=8)
    save(figure, path)


def draw_points(points: Sequence[Tuple[float, float]], path: Path, x: str,
                y: str) -> None:
    """Draw points around zero, over a logarithmic x."""
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    axes.axhline(0, color='black', linewidth=0.8)
    axes.scatter(*zip(*points), s=14, alpha=0.7)
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Save a figure as the docs show it."""
    figure.savefig(path, dpi=100, bbox_inches='tight')
