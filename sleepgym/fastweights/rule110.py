"""The task ``rule110``: strings of cells are read, later one cell of one of them is asked after t steps of Rule 110."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sleepgym.facts.world import Split
from sleepgym.fastweights.task import ASKED_TOGETHER, Batch, drawn_from
from sleepgym.settings import at_least, require

WINDOWS = 2
RULE = np.array([0, 1, 1, 1, 0, 1, 1, 0])
"""The next state of a cell by 4 * left + 2 * itself + right: the binary digits of 110."""


def evolved(cells: NDArray[np.int64], steps: int) -> NDArray[np.int64]:
    """States of rings of cells ``[..., cells]`` after some steps of Rule 110."""
    for _ in range(steps):
        cells = RULE[4 * np.roll(cells, 1, -1) + 2 * cells + np.roll(cells, -1, -1)]
    return cells


@dataclass(frozen=True)
class Rule110:
    """Strings of cells on a ring, in two windows; a query names a string and a depth t.

    Asked is the cell in the middle of the string as it was written, after t steps. It depends on the 2 t + 1 cells
    around it, all of which were written on both sides of it as long as t is at most half of the string.

    Tokens: a cell of each named string in each of its two states, a name per string, and a token per depth from 0 to T.
    So every cell says whose it is, and what has to be learned is the rule rather than to find the name.

    Attributes:
        strings: Number of strings of a sequence, half of them in each window; at least 4.
        cells: Number of cells of a string, odd.
        deepest: T.
        queries: Queries per sequence in training.
    """

    strings: int = 4
    cells: int = 13
    deepest: int = 6
    queries: int = 16

    def __post_init__(self) -> None:
        at_least(self, 1, "deepest", "queries")
        at_least(self, ASKED_TOGETHER, "strings")
        require(self.strings % WINDOWS == 0, "strings", "an even number", self.strings)
        expected = f"an odd number of at least 2 T + 1 = {2 * self.deepest + 1}"
        require(self.cells % 2 == 1 and self.cells > 2 * self.deepest, "cells", expected, self.cells)

    @property
    def shallowest(self) -> int:
        """0: the cell as it was written."""
        return 0

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return 3 * self.strings + self.deepest + 1

    @property
    def context_tokens(self) -> tuple[int, ...]:
        """Number of tokens of each context window."""
        return (self.strings // WINDOWS * self.cells,) * WINDOWS

    def batch(self, rng: np.random.Generator, size: int, split: Split = "train", depth: int | None = None) -> Batch:
        """See :meth:`~sleepgym.fastweights.task.Task.batch`. Contents of a split are strings."""
        draw = lambda rows: rng.integers(2, size=(rows, self.cells))  # noqa: E731
        strings = drawn_from(split, size * self.strings, draw, lambda rows: rows)
        strings = strings.reshape(size, self.strings, self.cells)
        middle = np.stack([evolved(strings, t)[..., self.cells // 2] for t in range(self.deepest + 1)], -1)
        names = rng.permuted(np.tile(np.arange(self.strings), (size, 1)), axis=1)
        if depth is None:
            asked = rng.integers(self.strings, size=(size, self.queries))
            depths = rng.integers(self.deepest + 1, size=(size, self.queries))
        else:
            asked = rng.permuted(np.tile(np.arange(self.strings), (size, 1)), axis=1)[:, :ASKED_TOGETHER]
            depths = np.full_like(asked, depth)
        row = np.arange(size)[:, None]
        written = (2 * names[..., None] + strings).reshape(size, WINDOWS, -1)
        queries = np.stack((2 * self.strings + names[row, asked], 3 * self.strings + depths), -1).reshape(size, -1)
        return Batch(
            tuple(torch.from_numpy(np.ascontiguousarray(written[:, window])) for window in range(WINDOWS)),
            torch.from_numpy(queries),
            torch.from_numpy(middle[row, asked, depths]),
            torch.from_numpy(depths),
            torch.from_numpy(1 + asked * WINDOWS // self.strings),
        )
