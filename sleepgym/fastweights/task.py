"""What tasks have in common: sequences of context windows, then one window of queries of known depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.facts.world import SPLITS, Split

TENTHS: dict[Split, tuple[int, ...]] = {"train": tuple(range(8)), "validation": (8,), "test": (9,)}
"""Which tenths of all contents belong to a split."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Batch:
    """Sequences of one task.

    A query is two tokens, what is asked about and how deep; the answer is predicted at the second.

    Attributes:
        windows: Context windows, each ``[batch, tokens]``.
        queries: Answer window ``[batch, 2 * queries]``.
        answers: Tokens to be predicted ``[batch, queries]``.
        depths: Depth of each query ``[batch, queries]``.
        needs: Number of context windows that have to be read before a query can be answered ``[batch, queries]``.
    """

    windows: tuple[Tensor, ...]
    queries: Tensor
    answers: Tensor
    depths: Tensor
    needs: Tensor

    def __len__(self) -> int:
        return len(self.answers)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        rest = (self.queries, self.answers, self.depths, self.needs)
        return Batch(tuple(window.to(device) for window in self.windows), *(part.to(device) for part in rest))

    def uncut(self) -> Batch:
        """The batch with its context in front of the queries, in one window: attention sees all, nothing is evicted."""
        return replace(self, windows=(), queries=torch.cat((*self.windows, self.queries), 1))


class Task(Protocol):
    """A generator of sequences."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""

    @property
    def context_tokens(self) -> tuple[int, ...]:
        """Number of tokens of each context window."""

    @property
    def queries(self) -> int:
        """Queries per sequence in training."""

    @property
    def deepest(self) -> int:
        """The largest depth."""

    @property
    def shallowest(self) -> int:
        """The smallest depth."""

    def batch(self, rng: np.random.Generator, size: int, split: Split = "train", depth: int | None = None) -> Batch:
        """Draws sequences.

        Args:
            rng: Source of randomness.
            size: Number of sequences.
            split: Which contents; those of two splits are disjoint.
            depth: Depth of all queries, of which there are then four about different things; by default each query
                has a depth of its own, any of them with equal probability.
        """


ASKED_TOGETHER = 4
"""Number of queries of one depth, all of which have to be answered correctly to count jointly."""


def tenths(contents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which tenth of all contents each row belongs to, by a hash that does not depend on anything else.

    Args:
        contents: ``[rows, numbers]``.

    Returns:
        Numbers from 0 to 9, ``[rows]``.
    """
    mixed = np.zeros(len(contents), np.uint64)
    for column in contents.T.astype(np.uint64):
        mixed = (mixed ^ (column + np.uint64(1))) * _FACTOR  # wraps
        mixed ^= mixed >> np.uint64(29)
    return ((mixed >> np.uint64(32)) % np.uint64(10)).astype(np.int64)


def drawn_from(
    split: Split,
    rows: int,
    draw: Callable[[int], NDArray[np.int64]],
    key: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Draws contents until there are enough of a split.

    Args:
        split: Split that they must belong to.
        rows: How many.
        draw: Draws so many contents, ``[rows, numbers]``.
        key: What of them decides their split, ``[rows, numbers]``.

    Raises:
        ValueError: There is no such split.
    """
    if split not in TENTHS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, found {split!r}")
    parts, missing = [], rows
    while missing > 0:
        contents = draw(int(missing * 12 / len(TENTHS[split])) + 8)
        found = contents[np.isin(tenths(key(contents)), TENTHS[split])][:missing]
        parts.append(found)
        missing -= len(found)
    return np.concatenate(parts)
