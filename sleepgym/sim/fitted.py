"""Response model that was fitted to records of real episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.sim.dice import Keys, derived, normal, normal_pairs_at, uniform, uniform_at
from sleepgym.sim.features import AFTERWARDS, OF_EPISODE, OF_FACT, Around, of_entries_to_facts
from sleepgym.sim.models import Linear, Logistic
from sleepgym.sim.response import Night, Situation
from sleepgym.sim.state import Mind

FACT = (*OF_FACT, *OF_EPISODE)
"""Names of the features of models of facts."""
EPISODE = OF_EPISODE
"""Names of the features of models of episodes."""
PASSING = (*FACT, "next_stage")
"""Names of the features of the model ``night.further``."""

SURE = "notes.sure"
"""Logistic model of fits of cards with notes: the model is sure of a wrong answer that it gives."""

SURENESS = (*FACT, *AFTERWARDS)
"""Names of its features."""

MOST = 20.0
"""Largest absolute margin (nats): beyond it, nothing depends on its size."""

MARGINS = (
    "inject.written", "inject.others", "refresh.chosen", "refresh.others", "night.passed", "night.failed",
    "night.settled",
)  # fmt: skip
"""Linear models of margins, raw and in chat: of a written fact as they are, of others as differences."""

DAMAGE = ("inject.damage", "refresh.damage", "night.damage")
"""Linear models of the difference in the logarithm of the perplexity ratio, and in the share of known facts."""

CHANCES: Mapping[str, tuple[str, ...]] = {
    "night.undone": EPISODE,
    "night.passes": FACT,
    "night.further": PASSING,
    "night.off": FACT,
}
"""Logistic models with their features: a night undoes itself; a fact passes the gate; one that has passed goes a stage
further, since its edit stands in the way; the edit of one that has failed is switched off."""

_MARGINS, _DAMAGE, _UNDONE, _PASSES, _FURTHER, _OFF, _SURE, _READ = range(8)
"""What is drawn, for :mod:`sleepgym.sim.dice`."""


@dataclass(frozen=True)
class Read:
    """What the bare model read in the notes of recorded streams; notes of new streams are drawn from them.

    Attributes:
        right: Whether it read each version right, bool ``[versions]``.
        tokens: Tokens that its note adds to a context, ``[versions]``.
    """

    right: NDArray[np.bool_]
    tokens: NDArray[np.int32]


@dataclass(frozen=True)
class FittedResponse:
    """Response of linear models with noise and of logistic models, see :mod:`sleepgym.sim.fit`.

    Attributes:
        linear: Models named in :data:`MARGINS` and :data:`DAMAGE`.
        logistic: Models named in :data:`CHANCES`, and :data:`SURE` in a fit of a card with notes.
        read: What was read in notes; None in a fit of a card without notes.
    """

    linear: Mapping[str, Linear]
    logistic: Mapping[str, Logistic]
    read: Read | None = None

    def inject(self, at: Situation, written: NDArray[np.bool_]) -> Mind:
        """See :class:`~sleepgym.sim.response.Response`."""
        return self._edited(Around.edit(at, written), "inject", "written")

    def refresh(self, at: Situation, refreshed: NDArray[np.bool_]) -> Mind:
        """See :class:`~sleepgym.sim.response.Response`."""
        return self._edited(Around.edit(at, of_entries_to_facts(at, refreshed)), "refresh", "chosen")

    def night(
        self,
        at: Situation,
        refreshed: NDArray[np.bool_],
        trained: NDArray[np.bool_],
        held: NDArray[np.bool_],
        steps: NDArray[np.int32],
    ) -> Night:
        """See :class:`~sleepgym.sim.response.Response`."""
        around = Around(at, of_entries_to_facts(at, refreshed), of_entries_to_facts(at, trained), held, steps)
        keys, of_episodes = _keys(at), around.of_episodes()
        row, fact = np.nonzero(around.edited)
        features = around.of_facts(row, fact, of_episodes)
        entry, last = at.state.facts.entry[row, fact], at.setting.card.sleep.last_stage
        passes = uniform_at(keys, _PASSES, row, fact) < self.logistic["night.passes"].chance(features, FACT)
        stage = np.where(passes, np.minimum(at.state.ledger.stage[row, entry] + 1, last), 0)
        # Each stage is a trial, which ends with the first that holds.
        moving = np.flatnonzero(passes & (stage < last))
        for further in range(1, last):
            chance = self.logistic["night.further"].chance(
                with_next_stage(features[moving], stage[moving], last), PASSING
            )
            moving = moving[uniform_at(keys, _FURTHER + 16 * further, row[moving], fact[moving]) < chance]
            stage[moving] += 1
            moving = moving[stage[moving] < last]
        off = uniform_at(keys, _OFF, row, fact) < self.logistic["night.off"].chance(features, FACT)
        scale = np.where(~passes & off, 0.0, at.setting.scales[stage])
        mind = at.state.mind.copy()
        for name, chosen in (("night.passed", passes), ("night.failed", ~passes)):
            self._move(mind, name, features[chosen], row[chosen], fact[chosen], keys)
        row_, fact_ = np.nonzero(around.ever_written & ~around.edited)
        self._move(mind, "night.settled", around.of_facts(row_, fact_, of_episodes), row_, fact_, keys)
        self._damage(mind, "night.damage", of_episodes, at, keys)
        undone = uniform(keys, _UNDONE, 1)[:, 0] < self.logistic["night.undone"].chance(of_episodes, EPISODE)
        passed, stages, scales = (np.zeros(at.state.ledger.fact.shape, kind) for kind in (bool, np.int32, np.float64))
        passed[row, entry], stages[row, entry], scales[row, entry] = passes, stage, scale
        self._set_sure(mind, around, of_episodes, keys)
        return Night(mind, passed, stages, scales, _rank(at, trained), undone)

    def _edited(self, around: Around, kind: str, role: str) -> Mind:
        """Returns what the model answers after facts were written or solved again."""
        at = around.at
        keys, of_episodes, mind = _keys(at), around.of_episodes(), at.state.mind.copy()
        row, fact = np.nonzero(around.chosen)
        if kind == "inject":
            # What the model answered about an earlier version says nothing about this one: it starts from 0.
            mind.raw[row, fact] = mind.chat[row, fact] = 0
        self._move(mind, f"{kind}.{role}", around.of_facts(row, fact, of_episodes), row, fact, keys)
        row, fact = np.nonzero(around.ever_written & ~around.chosen)
        self._move(mind, f"{kind}.others", around.of_facts(row, fact, of_episodes), row, fact, keys)
        self._damage(mind, f"{kind}.damage", of_episodes, at, keys)
        self._set_sure(mind, around, of_episodes, keys)
        return mind

    def readings(self, keys: Keys, count: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """See :class:`~sleepgym.sim.response.Response`; versions are drawn from those that were recorded."""
        assert self.read is not None, "a fit of a card with notes"
        drawn = (uniform(keys, _READ, count) * len(self.read.right)).astype(np.int64)
        return self.read.right[drawn], self.read.tokens[drawn]

    def _set_sure(self, mind: Mind, around: Around, of_episodes: NDArray[np.float32], keys: Keys) -> None:
        """Says of which of its answers the model is sure, on a card with notes.

        A margin says how far the right answer is ahead of all others, or behind the one that is given: within the
        card's threshold nothing is sure, beyond it what is right is. What is wrong is by chance.
        """
        notes = around.at.setting.card.notes
        if notes is None:
            return
        mind.sure[:] = mind.chat >= notes.sure_nats
        row, fact = np.nonzero((around.ever_written | around.chosen) & (mind.chat <= -notes.sure_nats))
        chance = self.logistic[SURE].chance(around.of_sureness(row, fact, mind, of_episodes), SURENESS)
        mind.sure[row, fact] = uniform_at(keys, _SURE, row, fact) < chance

    def _move(
        self,
        mind: Mind,
        name: str,
        features: NDArray[np.float32],
        row: NDArray[np.int64],
        fact: NDArray[np.int64],
        keys: Keys,
    ) -> None:
        """Adds a model's difference to the margins of some facts."""
        model = self.linear[name]
        if len(model.left):
            change = model.redraw(features, FACT, uniform_at(keys, _MARGINS, row, fact))
        else:
            change = model.draw(features, FACT, normal_pairs_at(keys, _MARGINS, row, fact))
        for margins, difference in ((mind.raw, change[:, 0]), (mind.chat, change[:, 1])):
            margins[row, fact] = np.clip(margins[row, fact] + difference, -MOST, MOST)

    def _damage(self, mind: Mind, name: str, of_episodes: NDArray[np.float32], at: Situation, keys: Keys) -> None:
        model = self.linear[name]
        if len(model.left):
            change = model.redraw(of_episodes, EPISODE, uniform(keys, _DAMAGE, 1)[:, 0])
        else:
            change = model.draw(of_episodes, EPISODE, normal(keys, _DAMAGE, 2))
        mind.ratio[:] = np.exp(np.clip(np.log(mind.ratio) + change[:, 0].astype(np.float64), -1.0, 3.0))
        count = np.maximum(at.known, 1)
        # A share of so many facts.
        mind.known[:] = np.rint(np.clip(mind.known + change[:, 1], 0, 1) * count) / count


def with_next_stage(features: NDArray[np.float32], stage: NDArray[np.integer], last: int) -> NDArray[np.float32]:
    """Returns features with the stage that a fact may go beyond, ``[samples, features + 1]``."""
    return np.concatenate((features, (stage / last).astype(np.float32)[:, None]), 1)


def _rank(at: Situation, trained: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Returns the rank of the adapter after a night: a fresh one is joined to the stored one unless nothing is trained.

    A real night that finds all lessons learned already does not join it either, which is not foreseen here. A gated one
    gets a row for every trained fact that it does not hold; that it may have one that failed is not foreseen either.

    Args:
        at: The situation.
        trained: Entries of the ledger that are trained, ``[rows, entries]``.
    """
    spec, rank, trains = at.setting.card.sleep, at.state.clock.rank, np.asarray(trained.any(1))
    if spec.adapter == "gated":
        return (rank + (trained & (at.state.ledger.held == 0)).sum(1)).astype(np.int32)
    most = spec.max_rank if spec.adapter == "fresh" else spec.rank
    return np.where(trains | (rank == 0), np.minimum(rank + spec.rank, most), rank).astype(np.int32)


def _keys(at: Situation) -> Keys:
    return derived(at.state.clock.dice, at.state.clock.steps)
