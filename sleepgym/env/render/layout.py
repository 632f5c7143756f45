"""Fixed layout of a picture, in pixels from its top left corner.

matplotlib's own layout engines take longer than the drawing, and would shift the axes between frames of a video.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 640, 480, 100

SMALL = 8
"""Font size in points, the smallest that is legible at this resolution."""

LEFT, RIGHT, SIDE = 80, 508, 524
"""Left and right edge of the panels, and left edge of the side column."""

PANELS = {
    "hypnogram": (14, 80),
    "facts": (106, 142),
    "recall": (262, 50),
    "budget": (326, 50),
    "perplexity": (390, 44),
}
"""Top and height of each panel."""

DIM, LINE, TRACK, NIGHT = "#555555", "#C4C4CC", "#E4E4E4", "#E7E7F0"
"""Colours of secondary text, of lines between days, of empty gauges and of nights."""


def empty() -> Figure:
    """Returns an empty figure of 640 x 480 pixels."""
    return Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)


def panel(fig: Figure, name: str) -> Axes:
    """Adds one of :data:`PANELS` to the figure."""
    top, height = PANELS[name]
    axes = fig.add_axes((LEFT / WIDTH, 1 - (top + height) / HEIGHT, (RIGHT - LEFT) / WIDTH, height / HEIGHT))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, length=2.5)
    return axes


def column(fig: Figure) -> Axes:
    """Adds the side column to the figure; its coordinates are pixels, with y downwards."""
    axes = fig.add_axes((SIDE / WIDTH, 0, 1 - SIDE / WIDTH, 1))
    axes.set_xlim(0, WIDTH - SIDE)
    axes.set_ylim(HEIGHT, 0)
    axes.set_axis_off()
    return axes
