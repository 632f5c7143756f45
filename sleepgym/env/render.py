"""Pictures of an episode: a hypnogram above recall, perplexity and budget."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sleepgym.env.history import History
from sleepgym.env.stream import Rhythm

# Okabe and Ito's colours: told apart with any kind of colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"

LEVELS = {"SLEEP": 0, "NAP": 1, "REFRESH": 2, "INJECT": 2, "PRUNE": 2, "WAIT": 3}
"""Height of each action in the hypnogram: the deeper, the less awake."""

LEVEL_NAMES = ("sleep", "nap", "writing", "awake")


def figure(history: History, horizon: int, width: int = 640, height: int = 480) -> Figure:
    """Draws an episode so far.

    Args:
        history: What happened.
        horizon: Ticks of the whole episode, so that the axis does not move while it runs.
        width: In pixels.
        height: In pixels.
    """
    dpi = 100
    fig = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, layout="constrained")
    top, middle, bottom = fig.subplots(3, 1, sharex=True, height_ratios=(1.1, 1.5, 1.0))
    for axes in (top, middle, bottom):
        _nights(axes, history.rhythm, horizon)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.margins(x=0)
    _hypnogram(top, history)
    _recall(middle, history)
    _costs(bottom, history)
    bottom.set_xlim(0, horizon)
    day = history.rhythm.ticks_per_day
    bottom.set_xticks(range(0, horizon + 1, day), [f"day {i}" for i in range(horizon // day)] + ["end"])
    bottom.set_xlabel(f"time ({day} ticks a day, nights shaded)", fontsize=9)
    fig.align_ylabels()
    return fig


def to_array(fig: Figure) -> NDArray[np.uint8]:
    """The figure as RGB, ``[height, width, 3]``."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.array(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def text(history: History, width: int = 72) -> str:
    """The last ticks as a line of letters with the present numbers below, for terminals."""
    letters = {"SLEEP": "z", "NAP": "n", "INJECT": "I", "REFRESH": "R", "PRUNE": "P", "WAIT": "."}
    line = "".join(letters[doing] for doing in history.doing[-width:])
    if not len(history):
        return "tick 0\n"
    return (
        f"{line}\ntick {len(history)}  recall {history.recall[-1]:.2f}  served {history.served[-1]:.2f}  "
        f"budget left {history.budget_left[-1]:.0%}  perplexity {history.perplexity_ratio[-1] - 1:+.1%}\n"
    )


def _nights(axes: Axes, rhythm: Rhythm, horizon: int) -> None:
    for tick in range(horizon):
        if rhythm.is_night(tick):
            axes.axvspan(tick, tick + 1, color="#ECECF2", linewidth=0, zorder=0)


def _edges(history: History) -> NDArray[np.float64]:
    return np.arange(len(history) + 1, dtype=float)


def _hypnogram(axes: Axes, history: History) -> None:
    levels = [LEVELS[doing] for doing in history.doing]
    axes.stairs(levels, _edges(history), baseline=None, color=BLACK, linewidth=1.2)
    for level, colour, doings in ((0, BLUE, {"SLEEP"}), (1, SKY, {"NAP"}), (2, ORANGE, {"INJECT", "REFRESH", "PRUNE"})):
        ticks = [tick for tick, doing in enumerate(history.doing) if doing in doings]
        axes.broken_barh([(tick, 1) for tick in ticks], (level - 0.18, 0.36), color=colour, linewidth=0)
    arrived = [(tick, count) for tick, count in enumerate(history.arrivals) if count]
    axes.scatter(
        [tick + 0.5 for tick, _ in arrived],
        [3.75] * len(arrived),
        s=[9.0 * count for _, count in arrived],
        color=GREEN,
        marker="v",
        linewidth=0,
        clip_on=False,
    )
    axes.set_yticks([*range(4), 3.75], [*LEVEL_NAMES, "facts arrive"])
    axes.get_yticklabels()[-1].set_color(GREEN)
    axes.set_ylim(-0.4, 4.1)


def _recall(axes: Axes, history: History) -> None:
    edges = _edges(history)
    axes.stairs(history.served, edges, baseline=None, color=ORANGE, linewidth=1.2, label="answered")
    axes.stairs(history.recall, edges, baseline=None, color=BLUE, linewidth=2, label="true recall")
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("share", fontsize=9)
    axes.legend(fontsize=8, loc="lower left", ncols=2, frameon=True, framealpha=0.9, edgecolor="none")


def _costs(axes: Axes, history: History) -> None:
    edges = _edges(history)
    axes.stairs(history.budget_left, edges, baseline=None, color=GREEN, linewidth=1.6)
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("budget left", fontsize=9, color=GREEN)
    drift = axes.twinx()
    percent = [100 * (ratio - 1) for ratio in history.perplexity_ratio]
    drift.stairs(percent, edges, baseline=None, color=VERMILION, linewidth=1.6, linestyle="--")
    drift.set_ylabel("perplexity (%)", fontsize=9, color=VERMILION)
    drift.set_ylim(min(-1.0, *percent, 0.0) * 1.1, max(5.0, *percent, 0.0) * 1.1)
    drift.tick_params(labelsize=8)
    drift.spines["top"].set_visible(False)
