"""Plots of an evaluation: intervals, performance profiles and learning curves.

Not imported with the package, since matplotlib takes long to load. Every function returns a new figure of 640 x 480
pixels, to be saved with ``figure.savefig("name.png")``; pyplot and its global state are not used. Schedulers take Okabe
and Ito's colours in order, and differ in marker and line style as well, for print and colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sleepgym.env.render import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION
from sleepgym.evaluation.bootstrap import Band, Estimate

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", "-.", ":")
SMALL = 9
"""Font size in points of all text except axis labels."""


@dataclass(frozen=True)
class LearningCurve:
    """Scores of training runs over environment steps.

    Attributes:
        steps: Environment steps at which policies were evaluated, ascending, ``[points]``.
        scores: Scores of each run, ``[runs, points]``.
        minutes: Wall time of a run until then, in minutes, ascending, ``[points]``; None if unknown.

    Raises:
        ValueError: Shapes do not fit.
    """

    steps: NDArray[np.int64]
    scores: NDArray[np.float64]
    minutes: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.minutes is not None and self.minutes.shape != self.steps.shape:
            raise ValueError(f"expected minutes {self.steps.shape} as steps, found {self.minutes.shape}")
        if self.scores.ndim != 2 or not self.scores.size or self.steps.shape != self.scores.shape[1:]:
            raise ValueError(
                f"expected scores [runs, points] and steps [points], found {self.scores.shape} and {self.steps.shape}"
            )


def interval_figure(panels: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Plots estimates with their intervals: a row per scheduler and a panel per statistic.

    Args:
        panels: Estimate of each scheduler, by name of the statistic; the first panel sets the order of schedulers, from
            top to bottom. Up to three panels fit.

    Raises:
        ValueError: There are no panels, or they are of different schedulers.
    """
    if len({frozenset(estimates) for estimates in panels.values()}) != 1:
        found = [list(estimates) for estimates in panels.values()]
        raise ValueError(f"expected panels of the same schedulers, found {found}")
    names = list(next(iter(panels.values())))
    figure = _figure()
    row_of_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (statistic, estimates) in zip(row_of_axes, panels.items(), strict=True):
        for row, (name, (colour, marker, _)) in enumerate(zip(names, _looks(), strict=False)):
            bounds = estimates[name]
            axes.plot(
                [bounds.low, bounds.high], [row, row], color=colour, linewidth=6, alpha=0.35, solid_capstyle="butt"
            )
            axes.plot(bounds.point, row, color=colour, marker=marker, markersize=7)
        _tidy(axes)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel(statistic)
        axes.tick_params(axis="y", length=0)
    row_of_axes[0].set_yticks(range(len(names)), names)
    row_of_axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def profile_figure(thresholds: NDArray[np.float64], profiles: Mapping[str, Band]) -> Figure:
    """Plots performance profiles: the share of runs x streams that score above each threshold. Higher is better.

    Args:
        thresholds: Normalised scores, ascending, ``[points]``.
        profiles: Profile of each scheduler, ``[points]``.
    """
    figure = _figure()
    axes = figure.subplots()
    for (name, band), (colour, _, dashes) in zip(profiles.items(), _looks(), strict=False):
        # Step functions, since the share of few episodes is one; interpolation would suggest further episodes.
        axes.fill_between(thresholds, band.low, band.high, step="mid", color=colour, alpha=0.15, linewidth=0)
        axes.step(thresholds, band.point, where="mid", color=colour, linestyle=dashes, linewidth=1.8, label=name)
    _tidy(axes)
    axes.set_xlim(thresholds[0], thresholds[-1])
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("normalised score t (0: never sleep, 1: planner)")
    axes.set_ylabel("share of episodes that score above t")
    _legend(figure, axes)
    return figure


def learning_figure(curves: Mapping[str, LearningCurve], references: Mapping[str, float]) -> Figure:
    """Plots learning curves: the median over training runs, and the interquartile range.

    Args:
        curves: Learning curve of each learner; the minutes of the first one are an axis of their own, if known.
        references: Scores of schedulers that do not learn, drawn as labelled horizontal lines.
    """
    figure = _figure()
    axes = figure.subplots()
    for (name, curve), (colour, marker, dashes) in zip(curves.items(), _looks(), strict=False):
        low, middle, high = np.percentile(curve.scores, (25, 50, 75), axis=0)
        axes.fill_between(curve.steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            curve.steps,
            middle,
            color=colour,
            marker=marker,
            markersize=4,
            linestyle=dashes,
            label=f"{name} ({len(curve.scores)} runs)",
        )
    for name, score in references.items():
        axes.axhline(score, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        # Outside the axes on the right, since a curve may overlap the line.
        axes.annotate(
            name, (1.01, score), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color="#555555"
        )
    _tidy(axes)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("score")
    first = next(iter(curves.values()))
    if first.minutes is not None and len(first.steps) > 1:
        # A straight line, so that the ticks of the second axis are evenly spaced.
        slope, start = np.polyfit(first.steps, first.minutes, 1)
        above = axes.secondary_xaxis("top", functions=(lambda x: start + slope * x, lambda y: (y - start) / slope))
        above.set_xlabel("minutes of a run")
        above.tick_params(labelsize=SMALL)
    _legend(figure, axes)
    return figure


def _figure() -> Figure:
    return Figure(figsize=(6.4, 4.8), dpi=100, layout="constrained")


def _looks() -> Iterator[tuple[str, str, str]]:
    """Yields colour, marker and dashes for one scheduler after the other; combinations repeat after 56."""
    return zip(cycle(COLOURS), cycle(MARKERS), cycle(DASHES), strict=False)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)


def _legend(figure: Figure, axes: Axes) -> None:
    """Adds a legend above the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3, fontsize=SMALL, frameon=False)
