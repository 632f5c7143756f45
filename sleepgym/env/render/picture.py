"""Picture of an episode: hypnogram, status of every fact, recall, budget and perplexity over time, and gauges."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sleepgym.env.render import gauges, layout
from sleepgym.env.render.colours import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, STANDINGS, VERMILION
from sleepgym.episode.history import History, Standing
from sleepgym.episode.stream import Rhythm

LEVELS = {"SLEEP": 0, "NAP": 1, "REFRESH": 2, "INJECT": 2, "PRUNE": 2, "NOTE": 2, "WAIT": 3}
LEVELS |= {"LOOK_UP_NEVER": 3, "LOOK_UP_UNSURE": 3, "LOOK_UP_ALWAYS": 3}
"""Level of each action in the hypnogram, from sleep (0) to awake (3)."""

LEVEL_NAMES = ("sleep", "nap", "writing", "awake")
LEVEL_COLOURS = (BLUE, SKY, ORANGE)

FADE = 0.6
"""Weight of white in the colours of offline ticks."""

DAY_LABELS = 8
"""Maximum number of labels of the time axis."""


def figure(history: History, horizon: int) -> Figure:
    """Draws an episode so far, 640 x 480 pixels.

    Args:
        history: Record of the episode so far.
        horizon: Length of the whole episode in ticks, which fixes the time axis.
    """
    fig = layout.empty()
    panels = {name: layout.panel(fig, name) for name in layout.PANELS}
    for axes in panels.values():
        _time(axes, history.rhythm, horizon)
    _hypnogram(panels["hypnogram"], history)
    _facts(panels["facts"], history, horizon)
    _recall(panels["recall"], history)
    _budget(panels["budget"], history)
    _perplexity(panels["perplexity"], history)
    # All panels share the time axis: labels below the last one only.
    day, last = history.rhythm.ticks_per_day, panels["perplexity"]
    last.set_xticks(range(0, horizon + 1, day * math.ceil(horizon / day / DAY_LABELS)))
    last.set_xlabel(f"tick ({day} a day, nights shaded)", fontsize=9)
    gauges.draw(layout.column(fig), history, horizon)
    return fig


def to_array(fig: Figure) -> NDArray[np.uint8]:
    """Rasterises the figure as RGB, uint8 ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def _time(axes: Axes, rhythm: Rhythm, horizon: int) -> None:
    day = rhythm.ticks_per_day
    # Starts a day early, since a night can begin before the episode does.
    nights = [(start, rhythm.night_ticks) for start in range(rhythm.night_start - day, horizon, day)]
    axes.broken_barh(
        nights, (0, 1), transform=axes.get_xaxis_transform(), facecolor=layout.NIGHT, linewidth=0, zorder=0
    )
    # Lines instead of ticks, which matplotlib draws slowly as objects of many parts.
    axes.vlines(
        range(day, horizon, day), 0, 1, transform=axes.get_xaxis_transform(), color=layout.LINE, linewidth=0.8, zorder=1
    )
    axes.set_xlim(0, horizon)
    axes.set_xticks([])


def _name(axes: Axes, name: str) -> None:
    # In pixels, so that the names of all panels are aligned whatever the width of their tick labels.
    axes.annotate(
        name,
        (-layout.LEFT + 10, axes.bbox.height / 2),
        xycoords="axes pixels",
        rotation=90,
        ha="center",
        va="center",
        fontsize=9,
    )


def _trace(axes: Axes, values: list[float], colour: str, dashes: str = "-") -> None:
    axes.stairs(
        values, np.arange(len(values) + 1), baseline=None, color=colour, linewidth=1.8, linestyle=dashes, zorder=3
    )


def _hypnogram(axes: Axes, history: History) -> None:
    levels = [LEVELS[doing] for doing in history.doing]
    axes.stairs(levels, np.arange(len(levels) + 1), baseline=None, color=BLACK, linewidth=1)
    for level, colour in enumerate(LEVEL_COLOURS):
        ticks = [(tick, 1) for tick, at in enumerate(levels) if at == level]
        axes.broken_barh(ticks, (level - 0.22, 0.44), facecolor=colour, linewidth=0, zorder=3)
    arrived = [(tick + 0.5, count) for tick, count in enumerate(history.arrivals) if count]
    axes.scatter(
        [tick for tick, _ in arrived],
        [4] * len(arrived),
        s=[9.0 * count for _, count in arrived],
        color=GREEN,
        marker="v",
        linewidth=0,
        clip_on=False,
    )
    axes.set_yticks([0, 1, 2, 3, 4], [*LEVEL_NAMES, "facts arrive"])
    axes.get_yticklabels()[-1].set_color(GREEN)
    axes.set_ylim(-0.5, 4.4)


def _facts(axes: Axes, history: History, horizon: int) -> None:
    cells = _cells(history)
    expected = history.rhythm.arrival_rate * (1 - history.rhythm.update_share) * horizon
    # Starts at the expected number and grows in steps of five, so that the axis rarely changes.
    rows = 5 * math.ceil(max(1.1 * expected, len(cells), 1) / 5)
    if cells.size:
        axes.imshow(
            cells,
            extent=(0, cells.shape[1], 0.5, len(cells) + 0.5),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            zorder=2,
        )
    axes.set_xlim(0, horizon)
    axes.set_ylim(0.5, rows + 0.5)
    axes.set_yticks(range(rows // 5, rows + 1, rows // 5))
    _name(axes, "fact, by arrival")


def _cells(history: History) -> NDArray[np.float64]:
    """Returns the RGBA colours ``[facts, ticks, 4]`` of the heat map; transparent before a fact's arrival."""
    colours = {standing: to_rgb(colour) for standing, (colour, _) in STANDINGS.items()}
    cells = np.zeros((max(map(len, history.standings), default=0), len(history), 4))
    for tick, (letters, offline) in enumerate(zip(history.standings, history.offline, strict=True)):
        if letters:
            column = np.array([colours[Standing(letter)] for letter in letters])
            cells[: len(letters), tick, :3] = column + FADE * offline * (1 - column)
            cells[: len(letters), tick, 3] = 1
    return cells


def _recall(axes: Axes, history: History) -> None:
    axes.stairs(history.served, np.arange(len(history) + 1), fill=True, color=ORANGE, alpha=0.45, linewidth=0)
    _trace(axes, history.recall, BLUE)
    _share(axes)
    _name(axes, "share")


def _budget(axes: Axes, history: History) -> None:
    _trace(axes, history.pressure, PURPLE, "--")
    _trace(axes, history.budget_left, GREEN)
    _share(axes)
    _name(axes, "share")


def _share(axes: Axes) -> None:
    axes.set_ylim(-0.04, 1.06)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _perplexity(axes: Axes, history: History) -> None:
    percent = gauges.rise(history)
    _trace(axes, percent, VERMILION)
    axes.axhline(0, color=BLACK, linewidth=0.6, zorder=1)
    top = gauges.full_scale(percent)
    axes.set_ylim(min(-0.1 * top, *percent, 0.0), 1.06 * top)
    axes.set_yticks([0, top / 2, top], ["0", f"{top / 2:g}", f"{top:g}"])
    _name(axes, "rise, %")
