"""Side column of a picture: a clock, the legend with counts, and gauges of the current values."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sleepgym.env.render.colours import BLUE, GREEN, ORANGE, PURPLE, STANDINGS, VERMILION
from sleepgym.env.render.layout import DIM, PANELS, SIDE, SMALL, TRACK, WIDTH
from sleepgym.episode.history import History

WIDE = WIDTH - SIDE - 10
"""Width of a gauge in pixels."""


def draw(axes: Axes, history: History, horizon: int) -> None:
    """Draws the column.

    Args:
        axes: Empty axes with pixel coordinates, see :func:`~sleepgym.env.render.layout.column`.
        history: Record of the episode so far.
        horizon: Length of the whole episode in ticks.
    """
    _clock(axes, history, horizon)
    _legend(axes, history)
    now = len(history) - 1
    recall, answered = (history.recall[now], history.served[now]) if now >= 0 else (1.0, 1.0)
    budget, pressure = (history.budget_left[now], history.pressure[now]) if now >= 0 else (1.0, 0.0)
    edits = history.rhythm.edit_budget
    percent = rise(history) or [0.0]
    top = PANELS["recall"][0]
    _gauge(axes, top, "recall", f"{recall:.2f}", recall, BLUE)
    _gauge(axes, top + 27, "answered", f"{answered:.2f}", answered, ORANGE)
    top = PANELS["budget"][0]
    _gauge(axes, top, "edits left", f"{round(budget * edits)}/{edits}", budget, GREEN)
    _gauge(axes, top + 27, "pressure", f"{pressure:.2f}", pressure, PURPLE)
    top = PANELS["perplexity"][0]
    value = f"{percent[-1]:+.{1 if percent[-1] < 100 else 0}f} %"
    _gauge(axes, top, "perplexity", value, percent[-1] / full_scale(percent), VERMILION)


def rise(history: History) -> list[float]:
    """Returns the rise of perplexity over the bare model in percent, per tick, clipped to 1000; NaN counts as 1000."""
    ratios = np.minimum(np.nan_to_num(history.perplexity_ratio, nan=np.inf), 11)
    return (100 * (ratios - 1)).tolist()


def full_scale(percent: list[float]) -> float:
    """Returns the upper end of the perplexity scale in percent: 10, doubled until all values fit."""
    scale = 10.0
    while scale < max(percent, default=0.0):
        scale *= 2
    return scale


def _clock(axes: Axes, history: History, horizon: int) -> None:
    day, tick = history.rhythm.ticks_per_day, len(history)
    top = PANELS["hypnogram"][0]
    if tick < horizon:
        time = f"day {tick // day + 1} of {horizon // day}"
        part = "night" if history.rhythm.is_night(tick) else "day"
        lines = (f"tick {tick % day} of {day}, {part}", f"({tick} of {horizon})")
    else:
        time, lines = "the end", (f"after {horizon} ticks", "")
    axes.text(0, top, time, fontsize=10, va="top", weight="bold")
    axes.text(0, top + 18, "\n".join(lines), fontsize=SMALL, va="top", color=DIM, linespacing=1.4)
    if tick:
        axes.text(0, top + 80, history.doing[-1], fontsize=10, va="bottom", weight="bold")


def _legend(axes: Axes, history: History) -> None:
    now = history.standings[-1] if len(history) else ""
    top = PANELS["facts"][0]
    for row, (standing, (colour, name)) in enumerate(STANDINGS.items()):
        y = top + 4 + 18 * row
        axes.add_patch(Rectangle((0, y), 11, 11, facecolor=colour, linewidth=0))
        axes.text(17, y + 6, name, fontsize=SMALL, va="center")
        axes.text(WIDE, y + 6, str(now.count(standing)), fontsize=SMALL, va="center", ha="right")
    axes.text(0, top + 98, "pale: offline,\nnobody answered", fontsize=SMALL, va="top", color=DIM, linespacing=1.4)


def _gauge(axes: Axes, top: float, name: str, value: str, share: float, colour: str) -> None:
    axes.text(0, top + 6, name, fontsize=SMALL, va="center")
    axes.text(WIDE, top + 6, value, fontsize=SMALL, va="center", ha="right")
    axes.add_patch(Rectangle((0, top + 14), WIDE, 7, facecolor=TRACK, linewidth=0))
    axes.add_patch(Rectangle((0, top + 14), WIDE * min(1.0, max(0.0, share)), 7, facecolor=colour, linewidth=0))
