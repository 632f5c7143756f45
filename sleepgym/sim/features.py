"""What a fitted response model sees of a change: numbers of each fact, and of the episode around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.response import Situation
from sleepgym.sim.rules import at_facts
from sleepgym.sim.state import Mind

MARGIN = 10.0
"""Nats that count as 1 in a feature."""

MANY = 20.0
"""Facts that count as 1 in a feature."""

OF_EPISODE = (
    "one", "load", "edits", "fill", "chosen", "trained", "held", "steps", "asleep_before", "nights", "drift", "known",
    "recalled",
)  # fmt: skip
"""Features of an episode, in order."""

OF_FACT = (
    "raw", "chat", "raw_recalled", "chat_recalled", "scale", "stage", "in_ledger", "settled", "rewritten", "is_chosen",
    "is_trained", "is_held", "writes", "nights_held",
)  # fmt: skip
"""Features of a fact, in order; those of its episode follow."""

AFTERWARDS = ("was_sure", "raw_after", "chat_after")
"""Features of how sure the model is of its answer about a fact after a change, which follow all of the others."""

INTERACTING = ("raw", "chat", "scale", "load", "is_trained")
"""Features whose products with all others the form ``interactions`` adds."""

_Number = TypeVar("_Number", np.float32, np.float64)

FORMS = ("constant", "linear", "interactions")
"""Forms of a model: an intercept, a linear function of the features, and one of them and of their products."""


@dataclass(frozen=True)
class Around:
    """Facts and episodes around changes of one kind.

    Attributes:
        at: Situation before.
        chosen: Facts that are written or solved again, bool ``[rows, facts]``.
        trained: Facts that a night trains, bool ``[rows, facts]``.
        held: Facts whose answers a night holds, bool ``[rows, facts]``.
        steps: Training steps of a night, ``[rows]``.
    """

    at: Situation
    chosen: NDArray[np.bool_]
    trained: NDArray[np.bool_]
    held: NDArray[np.bool_]
    steps: NDArray[np.int32]

    @classmethod
    def edit(cls, at: Situation, chosen: NDArray[np.bool_]) -> Around:
        """Returns what is around an injection or a refresh."""
        none = np.zeros(chosen.shape, bool)
        return cls(at, chosen, none, none, np.zeros(len(chosen), np.int32))

    def of_episodes(self) -> NDArray[np.float32]:
        """Returns the features of the episodes, ``[rows, features]``."""
        state, ledger = self.at.state, self.at.state.ledger
        fill = ledger.fill
        recalled = np.count_nonzero((state.facts.entry >= 0) & (state.mind.chat > 0), axis=1)
        columns = (
            np.ones(len(fill)),
            ledger.scale.sum(1) / MANY,
            np.count_nonzero(ledger.scale > 0, axis=1) / MANY,
            fill / MANY,
            self.chosen.sum(1) / MANY,
            self.trained.sum(1) / MANY,
            self.held.sum(1) / MANY,
            self.steps / self.at.setting.card.sleep.steps,
            state.clock.nights > 0,
            np.minimum(state.clock.nights, 5) / 5,
            np.log(state.mind.ratio),
            state.mind.known,
            recalled / np.maximum(fill, 1),
        )
        return np.stack([np.asarray(column, np.float32) for column in columns], 1)

    def of_facts(
        self, row: NDArray[np.int64], fact: NDArray[np.int64], of_episodes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Returns the features of some facts with those of their episodes, ``[chosen facts, features]``.

        Args:
            row: Episode of each fact.
            fact: Number of each fact.
            of_episodes: As :meth:`of_episodes` returns them.
        """
        state = self.at.state
        facts, ledger, mind = state.facts, state.ledger, state.mind
        # By one flat index each: looking up by row and column takes twice the time.
        place = row * facts.entry.shape[1] + fact
        entry = _taken(facts.entry, place)
        # Of facts outside the ledger, any entry is looked up, and counts as 0.
        there, at_entry = entry >= 0, row * ledger.fact.shape[1] + entry
        raw, chat = _taken(mind.raw, place), _taken(mind.chat, place)
        own = (
            raw / MARGIN,
            chat / MARGIN,
            raw > 0,
            chat > 0,
            _taken(ledger.scale, at_entry) * there,
            _taken(ledger.stage, at_entry) * there / self.at.setting.card.sleep.last_stage,
            there,
            _taken(facts.held_at, place) >= 0,
            _taken(facts.written, place) >= 0,
            _taken(self.chosen, place),
            _taken(self.trained, place),
            _taken(self.held, place),
            np.minimum(_taken(ledger.writes, at_entry) * there, 8) / 8,
            np.minimum(_taken(ledger.held, at_entry) * there, 4) / 4,
        )
        out = np.empty((len(row), len(OF_FACT) + len(OF_EPISODE)), np.float32)
        for number, column in enumerate(own):
            out[:, number] = column
        out[:, len(OF_FACT) :] = of_episodes[row]
        return out

    def of_sureness(
        self, row: NDArray[np.int64], fact: NDArray[np.int64], after: Mind, of_episodes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Returns the features of some facts with what the model answers after the change, ``[facts, features]``.

        Args:
            row: Episode of each fact.
            fact: Number of each fact.
            after: What the model answers afterwards.
            of_episodes: As :meth:`of_episodes` returns them.
        """
        was_sure = self.at.state.mind.sure[row, fact]
        own = was_sure, after.raw[row, fact] / MARGIN, after.chat[row, fact] / MARGIN
        return np.concatenate((self.of_facts(row, fact, of_episodes), np.stack(own, 1).astype(np.float32)), 1)

    @property
    def edited(self) -> NDArray[np.bool_]:
        """Facts in the ledger, bool ``[rows, facts]``."""
        return self.at.state.facts.entry >= 0

    @property
    def ever_written(self) -> NDArray[np.bool_]:
        """Facts that the model was taught, bool ``[rows, facts]``."""
        return self.at.state.facts.written >= 0


def of_entries_to_facts(at: Situation, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns a choice of entries as one of facts, bool ``[rows, facts]``."""
    return at_facts(chosen, at.state.facts, False)


def expanded(features: NDArray[_Number], names: tuple[str, ...], form: str) -> NDArray[_Number]:
    """Returns the inputs of a model of a form.

    Args:
        features: Features, ``[samples, features]``.
        names: Their names, the intercept's ``"one"`` among them.
        form: One of :data:`FORMS`.
    """
    if form == "constant":
        return features[:, [names.index("one")]]
    if form == "linear":
        return features
    by = [names.index(name) for name in INTERACTING if name in names]
    count, width = features.shape
    out = np.empty((count, 1 + len(by), width), features.dtype)
    out[:, 0] = features
    for place, column in enumerate(by, start=1):
        np.multiply(features, features[:, [column]], out=out[:, place])
    return out.reshape(count, (1 + len(by)) * width)


def weighted(
    features: NDArray[np.float32], names: tuple[str, ...], form: str, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns ``expanded(features, names, form) @ weights`` without laying products of features out in memory.

    Args:
        features: Features, ``[samples, features]``.
        names: Their names.
        form: One of :data:`FORMS`.
        weights: ``[inputs]`` or ``[inputs, targets]``.
    """
    # In float64, and rounded at the end: BLAS sums in an order that depends on how many samples there are, and an
    # environment is not to depend on its company.
    wide, exact = features.astype(np.float64), weights.astype(np.float64)
    if form != "interactions":
        return (expanded(wide, names, form) @ exact).astype(np.float32)
    by, width = [names.index(name) for name in INTERACTING if name in names], features.shape[1]
    # A linear function of the features per factor, all of them in one product; the factors multiply what comes out.
    each = exact.reshape(1 + len(by), width, -1).transpose(1, 0, 2)
    parts = (wide @ each.reshape(width, -1)).reshape(len(wide), *each.shape[1:])
    out = parts[:, 0]
    for number, column in enumerate(by, start=1):
        out = out + parts[:, number] * wide[:, [column]]
    return out.astype(np.float32).reshape(len(features), *weights.shape[1:])


def _taken(array: NDArray[Any], place: NDArray[np.int64]) -> NDArray[Any]:
    return array.reshape(-1).take(place)
