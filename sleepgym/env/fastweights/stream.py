"""What happens in an episode whatever the agent does: documents, their depth, and how many ask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sleepgym.env.fastweights.card import FastWeightsCard
from sleepgym.facts.world import Split
from sleepgym.fastweights.task import Batch, Task


@dataclass(frozen=True)
class Stream:
    """Documents and traffic of an episode.

    Attributes:
        documents: One sequence each; its questions are of one depth.
        traffic: Questions per tick, relative to a busy tick, ``[ticks]``.
        window_ticks: Ticks of a window.
    """

    documents: tuple[Batch, ...]
    traffic: NDArray[np.float64]
    window_ticks: int

    @property
    def horizon(self) -> int:
        """Length of the episode in ticks."""
        return len(self.traffic)

    def place(self, tick: int) -> tuple[int, int]:
        """Number of the document, and of the window of it, that can be read at a tick."""
        windows = len(self.documents[0].windows)
        return divmod(min(tick, self.horizon - 1) // self.window_ticks, windows)

    def depth(self, tick: int) -> int:
        """Depth of the questions at a tick."""
        return int(self.documents[self.place(tick)[0]].depths[0, 0])


def draw_stream(card: FastWeightsCard, task: Task, split: Split, rng: np.random.Generator) -> Stream:
    """Draws documents of equally frequent depths, and busy and quiet times that take turns."""
    depths = rng.integers(task.shallowest, task.deepest + 1, size=card.stream.documents)
    documents = tuple(task.batch(rng, 1, split, int(depth)) for depth in depths)
    horizon = card.stream.documents * len(task.context_tokens) * card.stream.window_ticks
    leave = np.array([1 / card.stream.quiet_ticks, 1 / card.stream.busy_ticks])  # chance per tick, by busy
    busy = np.zeros(horizon, np.int64)
    # The first tick is as busy as any other.
    busy[0] = rng.random() < card.stream.busy_ticks / (card.stream.busy_ticks + card.stream.quiet_ticks)
    for tick, draw in enumerate(rng.random(horizon - 1), 1):
        busy[tick] = busy[tick - 1] ^ (draw < leave[busy[tick - 1]])
    return Stream(documents, np.where(busy == 1, 1.0, card.stream.quiet_traffic), card.stream.window_ticks)


def same(one: Stream, other: Stream) -> bool:
    """Whether two streams are equal."""
    pairs = zip(one.documents, other.documents, strict=True)
    return np.array_equal(one.traffic, other.traffic) and all(
        torch.equal(a.queries, b.queries) and all(map(torch.equal, a.windows, b.windows)) for a, b in pairs
    )
