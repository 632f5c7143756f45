"""Pictures of an episode, and the same as text: traffic, passes, depth, and what was answered."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sleepgym.env.fastweights.life import Life
from sleepgym.env.render import layout
from sleepgym.env.render.colours import BLUE, GREY, ORANGE, SKY
from sleepgym.env.render.picture import to_array

PANELS = ("questions", "passes", "depth", "score")
BARS = " .:-=+*#%@"
"""From nothing to everything, in ten steps."""


def picture(life: Life) -> NDArray[np.uint8]:
    """Draws an episode so far, uint8 ``[480, 640, 3]``."""
    return to_array(figure(life))


def figure(life: Life) -> Figure:
    """The figure behind :func:`picture`."""
    fig = layout.empty()
    axes = fig.subplots(len(PANELS), 1, sharex=True)
    fig.subplots_adjust(left=0.12, right=0.97, top=0.93, bottom=0.1, hspace=0.3)
    ticks, horizon = life.now.ticks, life.stream.horizon
    traffic = np.array([tick.traffic for tick in ticks])
    served = np.array([tick.traffic * tick.served for tick in ticks])
    at = np.arange(len(ticks)) + 0.5
    axes[0].bar(at, traffic, 1.0, color=GREY)
    axes[0].bar(at, served, 1.0, color=SKY)
    axes[0].set_ylim(0, 1)
    axes[1].bar(at, [tick.passes for tick in ticks], 1.0, color=[ORANGE if t.offline else BLUE for t in ticks])
    axes[1].set_ylim(0, life.card.passes.most + 0.5)
    axes[2].bar(at, [life.stream.depth(tick) for tick in range(len(ticks))], 1.0, color=BLUE)
    axes[2].set_ylim(0, max(int(document.depths.max()) for document in life.stream.documents) + 0.5)
    asked = np.maximum(np.cumsum(traffic), 1e-9)
    axes[3].plot(at, np.cumsum(served) / asked, color=BLUE)
    axes[3].set_ylim(0, 1)
    for ax, name in zip(axes, PANELS, strict=True):
        ax.set_ylabel(name, fontsize=layout.SMALL)
        ax.tick_params(labelsize=layout.SMALL)
        ax.vlines(range(0, horizon + 1, life.stream.window_ticks), 0, 1, transform=ax.get_xaxis_transform(),
                  color=layout.LINE, linewidth=0.6, zorder=0)  # fmt: skip
        ax.set_xlim(0, horizon)
    axes[-1].set_xlabel("tick (lines: a window is gone)", fontsize=layout.SMALL)
    fig.suptitle(f"questions answered (light) of those asked; passes (orange: offline); score {life.score:.2f}",
                 fontsize=layout.SMALL)  # fmt: skip
    return fig


def text(life: Life) -> str:
    """The episode so far in four lines, a letter per tick."""
    ticks = life.now.ticks
    rows = {
        "traffic": [_bar(tick.traffic) for tick in ticks],
        "served": ["z" if tick.offline else _bar(tick.served) for tick in ticks],
        "passes": [str(tick.passes) for tick in ticks],
        "depth": [str(life.stream.depth(tick)) for tick in range(len(ticks))],
    }
    head = f"tick {life.tick} of {life.stream.horizon}, score {life.score:.3f}, {life.slept} ticks offline (z)"
    return "\n".join([head, *(f"{name:8}{''.join(letters)}" for name, letters in rows.items())])


def _bar(share: float) -> str:
    return BARS[round(share * (len(BARS) - 1))]
