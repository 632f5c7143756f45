"""What an agent sees: a vector of statistics of S, the clock and the traffic, all finite, bounded and float32."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.env.fastweights.life import Life
from sleepgym.env.observation import Feature

FEATURES: Mapping[str, Feature] = {
    "norm": Feature(0, 1, "norm x of S, as x / (1 + x)"),
    "change": Feature(0, 1, "norm of what the last pass over the window changed of S, as x / (1 + x); 0 before it"),
    "loss": Feature(0, 1, "mean loss on the public questions, relative to that of a guess, at most 1"),
    "passes": Feature(0, 1, "passes over the window so far, relative to the most"),
    "window": Feature(0, 1, "place of the window in its document, 0 for the first and 1 for the last"),
    "left": Feature(0, 1, "time until the window is gone, relative to its whole time"),
    "traffic": Feature(0, 1, "questions now, relative to a busy tick"),
    "progress": Feature(0, 1, "share of the episode that has passed"),
}
"""Places of the vector in order."""


def space() -> spaces.Box:
    """The observation space."""
    low, high = ([getattr(f, side) for f in FEATURES.values()] for side in ("low", "high"))
    return spaces.Box(np.array(low, np.float32), np.array(high, np.float32), dtype=np.float32)


def observed(life: Life) -> NDArray[np.float32]:
    """What is seen of an episode now, ``[features]``."""
    digested, windows = life.now.digested, len(life.stream.documents[0].windows)
    norm = float(digested.state.norm())
    values = {
        "norm": norm / (1 + norm),
        "change": digested.change / (1 + digested.change),
        "loss": min(1.0, life.now.loss / math.log(life.model.spec.vocabulary)),
        "passes": digested.passes / life.card.passes.most,
        "window": life.stream.place(life.tick)[1] / max(1, windows - 1),
        "left": 0.0 if life.over else life.ticks_left / life.stream.window_ticks,
        "traffic": 0.0 if life.over else life.stream.traffic[life.tick],
        "progress": life.tick / life.stream.horizon,
    }
    return np.array([values[name] for name in FEATURES], np.float32)


def seen(observation: NDArray[np.float32], name: str) -> float:
    """One feature of an observation, by name.

    Raises:
        KeyError: There is no such feature.
    """
    return float(observation[_PLACES[name]])


_PLACES = {name: place for place, name in enumerate(FEATURES)}
