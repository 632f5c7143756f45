"""Where everything of a picture is, in pixels from its top left corner.

By hand: matplotlib's own layout takes longer than the drawing, and would move the axes of a video about.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 640, 480, 100

SMALL = 8
"""Points: the smallest text that can be read at this size."""

LEFT, RIGHT, SIDE = 80, 508, 524
"""Where panels begin and end, and where the column beside them begins."""

PANELS = {
    "hypnogram": (14, 80),
    "facts": (106, 142),
    "recall": (262, 50),
    "budget": (326, 50),
    "perplexity": (390, 44),
}
"""Top and height of each panel."""

DIM, LINE, TRACK, NIGHT = "#555555", "#C4C4CC", "#E4E4E4", "#E7E7F0"
"""Colours of what matters less: words, the lines between days, empty gauges, the shade of nights."""


def empty() -> Figure:
    """A figure of this size without anything on it."""
    return Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)


def panel(fig: Figure, name: str) -> Axes:
    """One of the panels, empty."""
    top, height = PANELS[name]
    axes = fig.add_axes((LEFT / WIDTH, 1 - (top + height) / HEIGHT, (RIGHT - LEFT) / WIDTH, height / HEIGHT))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, length=2.5)
    return axes


def column(fig: Figure) -> Axes:
    """The column beside the panels; its coordinates are pixels, and y grows downwards."""
    axes = fig.add_axes((SIDE / WIDTH, 0, 1 - SIDE / WIDTH, 1))
    axes.set_xlim(0, WIDTH - SIDE)
    axes.set_ylim(HEIGHT, 0)
    axes.set_axis_off()
    return axes
