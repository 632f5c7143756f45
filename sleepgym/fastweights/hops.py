"""The task ``hops``: who follows whom on a cycle of names is read, later it is asked who is k steps after somebody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sleepgym.facts.world import Split, World
from sleepgym.fastweights.task import ASKED_TOGETHER, Batch, drawn_from
from sleepgym.settings import at_least, require

WINDOWS = 2


@dataclass(frozen=True)
class Hops:
    """A shuffled cycle of people in two windows; a query names one of them and a number of steps k.

    Each half of the cycle's steps, in random order, is one window of pairs "who, who is next" (after the task Depo of
    Allen-Zhu 2025, "Physics of Language Models: Part 4.1").

    Tokens: a name per person, and a token per number of steps from 1 to K.

    Attributes:
        people: Length of the cycle, even, and more than K.
        deepest: K.
        queries: Queries per sequence in training.
    """

    people: int = 12
    deepest: int = 8
    queries: int = 16

    def __post_init__(self) -> None:
        at_least(self, 1, "deepest", "queries")
        at_least(self, ASKED_TOGETHER, "people")
        expected = f"an even number of more than K = {self.deepest}"
        require(self.people % WINDOWS == 0 and self.people > self.deepest, "people", expected, self.people)

    @property
    def shallowest(self) -> int:
        """1: who is next."""
        return 1

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.people + self.deepest

    @property
    def context_tokens(self) -> tuple[int, ...]:
        """Number of tokens of each context window."""
        return (self.people,) * WINDOWS

    def names(self) -> list[str]:
        """The names behind the first tokens, which are people of the world of the bundled model."""
        return list(World().subjects["person"][: self.people])

    def batch(self, rng: np.random.Generator, size: int, split: Split = "train", depth: int | None = None) -> Batch:
        """See :meth:`~sleepgym.fastweights.task.Task.batch`. Contents of a split are cycles."""
        draw = lambda rows: rng.permuted(np.tile(np.arange(self.people), (rows, 1)), axis=1)  # noqa: E731
        cycles = drawn_from(split, size, draw, successors)
        place = np.argsort(cycles, 1)  # where on the cycle each person is
        order = rng.permuted(np.tile(np.arange(self.people), (size, 1)), axis=1)
        row = np.arange(size)[:, None]
        pairs = np.stack((cycles[row, order], cycles[row, (order + 1) % self.people]), -1).reshape(size, WINDOWS, -1)
        if depth is None:
            asked = rng.integers(self.people, size=(size, self.queries))
            depths = rng.integers(1, self.deepest + 1, size=(size, self.queries))
        else:
            asked = rng.permuted(np.tile(np.arange(self.people), (size, 1)), axis=1)[:, :ASKED_TOGETHER]
            depths = np.full_like(asked, depth)
        answers = cycles[row, (place[row, asked] + depths) % self.people]
        queries = np.stack((asked, self.people + depths - 1), -1).reshape(size, -1)
        return Batch(
            tuple(torch.from_numpy(np.ascontiguousarray(pairs[:, window])) for window in range(WINDOWS)),
            torch.from_numpy(queries),
            torch.from_numpy(answers),
            torch.from_numpy(depths),
            torch.full(asked.shape, WINDOWS),
        )


def successors(cycles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Who is next after each person, ``[rows, people]``, which is the same from wherever a cycle is written."""
    out = np.empty_like(cycles)
    np.put_along_axis(out, cycles, np.roll(cycles, -1, 1), 1)
    return out
