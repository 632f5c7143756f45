"""What an agent sees: one row per fact and one vector of statistics, all finite, bounded and float32.

Only what an agent could know is in here: the ledger shows the last audit, never the true recall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.episode.actions import LOOK_UPS, OPERATORS, Action, Operator
from sleepgym.episode.card import Card, CardError
from sleepgym.episode.routing import only_noted
from sleepgym.episode.stream import Arrival
from sleepgym.errors import SleepGymError
from sleepgym.facts.fact import Fact

if TYPE_CHECKING:
    from sleepgym.episode.episode import Episode

Observation = dict[str, NDArray[np.float32]]
Columns = Mapping[str, NDArray[Any] | float]
"""Features of facts by name: a value for each, ``[facts]``, or one for all of them."""

MARGIN_SCALE = 10.0
"""Nats that count as a margin of 1; greater ones are clipped."""

EDITS_SCALE = 8
"""Edits spent on one fact that count as 1; more are clipped."""

NOTE_TOKENS = 16
"""Tokens of a note that count as 1 in ``note_tokens``."""

SINCE_DAYS = 2
"""Days that count as 1 in ``since_sleep`` and ``since_audit``; more are clipped."""


@dataclass(frozen=True)
class Feature:
    """One number of an observation.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        meaning: What it says, in a few words with its unit.
    """

    low: float
    high: float
    meaning: str


LEDGER_FEATURES: Mapping[str, Feature] = {
    "present": Feature(0, 1, "1 if the row is a fact"),
    "pending": Feature(0, 1, "1 if it waits to be written"),
    "age": Feature(0, 1, "ticks since it was written (since it arrived, if it waits), as a share of the episode"),
    "stage": Feature(0, 1, "0: held by its edit alone; 1: held by the adapter alone"),
    "scale": Feature(0, 1, "scale of its edit"),
    "audited": Feature(0, 1, "1 if it was audited since it was last written"),
    "margin": Feature(-1, 1, f"margin at the last audit, in units of {MARGIN_SCALE:g} nats; positive means recalled"),
    "recalled": Feature(0, 1, "1 if it was recalled at the last audit"),
    "audit_age": Feature(0, 1, "ticks since the last audit, as a share of the episode; 1 before the first"),
    "edits": Feature(0, 1, f"edits spent on it, in units of {EDITS_SCALE}"),
    "popularity": Feature(0, 1, "how often it is asked, relative to the most popular possible"),
}
"""Columns of ``ledger`` in order."""

STATS_FEATURES: Mapping[str, Feature] = {
    "day_sin": Feature(-1, 1, "sine of the time of day"),
    "day_cos": Feature(-1, 1, "cosine of the time of day"),
    "night": Feature(0, 1, "1 at night"),
    "to_night": Feature(0, 1, "time until night, in days; 0 at night"),
    "night_length": Feature(0, 1, "length of the episode's night, in days"),
    "progress": Feature(0, 1, "share of the episode that has passed"),
    "traffic": Feature(0, 1, "questions now, relative to the peak"),
    "arrival_rate": Feature(0, 1, "facts per tick in this episode, relative to the largest possible"),
    "update_share": Feature(0, 1, "share of arrivals that change an earlier fact"),
    "budget": Feature(0, 1, "edit budget of this episode, relative to the largest possible"),
    "budget_left": Feature(0, 1, "share of it that is left"),
    "pending": Feature(0, 1, "how full the inbox is"),
    "ledger_fill": Feature(0, 1, "how full the ledger is"),
    "load": Feature(0, 1, "sum of the scales of all edits, relative to the ledger's capacity"),
    "degraded": Feature(0, 1, "facts known to be degraded and still true, relative to the ledger's capacity"),
    "pressure": Feature(0, 1, "sleep pressure: how badly sleep is needed, from load, time awake and damage"),
    "perplexity_ratio": Feature(0, 4, "perplexity on held-out text relative to the bare model"),
    "served": Feature(0, 1, "share of questions answered lately (exponential mean)"),
    "rank_used": Feature(0, 1, "largest rank in use on a layer, relative to a full ledger and the adapter"),
    "since_sleep": Feature(0, 1, f"time since the last night ended, in units of {SINCE_DAYS} days"),
    "since_audit": Feature(0, 1, f"time since the last nap or night ended, in units of {SINCE_DAYS} days"),
}
"""Entries of ``stats`` in order."""

NOTES_LEDGER_FEATURES: Mapping[str, Feature] = {
    "noted": Feature(0, 1, "1 if there is a note of it, in whatever version"),
    "stale": Feature(0, 1, "1 if that note tells another version than this row is of"),
    "looked_up": Feature(0, 1, "1 if a question about it would be looked up now"),
}
"""Further columns of ``ledger`` on cards with notes, in order."""

NOTES_STATS_FEATURES: Mapping[str, Feature] = {
    "note_tokens": Feature(0, 1, f"tokens of all notes, in units of {NOTE_TOKENS} for each that there is room for"),
    "look_ups": Feature(0, 1, "share of questions looked up lately (exponential mean)"),
    "answering": Feature(0, 1, "how questions are answered: looked up never (0), if unsure (0.5), always (1)"),
}
"""Further entries of ``stats`` on cards with notes, in order."""

_PLACES: Mapping[str, Mapping[str, int]] = {
    "ledger": {name: place for place, name in enumerate([*LEDGER_FEATURES, *NOTES_LEDGER_FEATURES])},
    "stats": {name: place for place, name in enumerate([*STATS_FEATURES, *NOTES_STATS_FEATURES])},
}


def ledger_features(has_notes: bool) -> Mapping[str, Feature]:
    """Returns the columns of ``ledger`` on cards with notes, or without them."""
    return {**LEDGER_FEATURES, **NOTES_LEDGER_FEATURES} if has_notes else LEDGER_FEATURES


def stats_features(has_notes: bool) -> Mapping[str, Feature]:
    """Returns the entries of ``stats`` on cards with notes, or without them."""
    return {**STATS_FEATURES, **NOTES_STATS_FEATURES} if has_notes else STATS_FEATURES


class FeatureNameError(SleepGymError, ValueError, KeyError):
    """A name is that of no feature."""

    def __str__(self) -> str:
        # A KeyError's own would put the whole message between quotes.
        return Exception.__str__(self)


class ObservationError(SleepGymError, ValueError, TypeError):
    """A value is not an observation of a SleepEnv."""


class Observer:
    """Makes observations for one card.

    Attributes:
        space: Dict of ``ledger [capacity + pending, 11]`` and ``stats [21]``. Rows of facts that were written,
            ``budget.capacity`` at most, come before those that wait, ``budget.pending`` at most; others are zeros. On a
            card with notes ``ledger [capacity + pending + notes, 14]`` and ``stats [24]``; after those that wait come
            facts that are noted and that the weights were not taught, ``notes.capacity`` at most.

    Raises:
        CardError: Vectors of a card with notes could not be told from those of one without.
    """

    def __init__(self, card: Card) -> None:
        self.card = card
        has_notes = card.notes is not None
        self.rows = card.budget.capacity + card.budget.pending + (card.notes.capacity if card.notes else 0)
        self._ledger, self._entries = ledger_features(has_notes), stats_features(has_notes)
        self.space = spaces.Dict({"ledger": _box(self._ledger, self.rows), "stats": _box(self._entries)})
        if has_notes and _has_notes(self.rows * len(self._ledger) + len(self._entries)) is not True:
            raise CardError(
                f"card, key notes.capacity: expected another number of rows of the ledger than {self.rows}, whose "
                f"vectors are as long as those of a card without notes, found {card.notes}; take one more or less"
            )
        # Once: they are the same at every step.
        self._bounds = _bounds(self._ledger), _bounds(self._entries)

    def __call__(self, episode: Episode) -> Observation:
        """The observation, clipped to its bounds."""
        ledger = np.zeros((self.rows, len(self._ledger)), np.float32)
        written, waiting = len(episode.learner.state.ledger), len(episode.inbox.pending)
        _fill(ledger[:written], self._written(episode))
        _fill(ledger[written : written + waiting], self._waiting(episode, list(episode.inbox.pending.values())))
        values = self._stats(episode)
        if self.card.notes is not None:
            noted = only_noted(episode.state)
            _fill(ledger[written + waiting :][: len(noted)], self._waiting(episode, noted))
            facts = [entry.fact for entry in episode.learner.state.ledger.values()]
            facts += [arrival.fact for arrival in (*episode.inbox.pending.values(), *noted)]
            _fill(ledger[: len(facts)], self._noted(episode, facts))
            values |= self._notes_stats(episode)
        stats = np.array([values[name] for name in self._entries], np.float32)
        of_ledger, of_stats = self._bounds
        # Not np.clip: its wrappers cost more than the arithmetic on so few numbers.
        for part, (low, high) in ((ledger, of_ledger), (stats, of_stats)):
            np.minimum(np.maximum(part, low, out=part), high, out=part)
        return {"ledger": ledger, "stats": stats}

    def _written(self, episode: Episode) -> Columns:
        horizon, current, written = episode.stream.horizon, episode.inbox.current, episode.written
        return {
            "present": 1,
            "age": (episode.tick - written.written_at) / horizon,
            "stage": written.stage / self.card.sleep.last_stage,
            "scale": written.scale,
            "audited": written.audited,
            "margin": written.margin / MARGIN_SCALE,
            "recalled": written.recalled,
            "audit_age": np.where(written.audited, (episode.tick - written.audited_at) / horizon, 1),
            "edits": written.writes / EDITS_SCALE,
            "popularity": np.array([current[key].popularity for key in episode.learner.state.ledger]),
        }

    def _waiting(self, episode: Episode, waiting: Sequence[Arrival]) -> Columns:
        since = np.array([arrival.tick for arrival in waiting])
        return {
            "present": 1,
            "pending": 1,
            "age": (episode.tick - since) / episode.stream.horizon,
            "audit_age": 1,
            "popularity": np.array([arrival.popularity for arrival in waiting]),
        }

    def _noted(self, episode: Episode, facts: Sequence[Fact]) -> Columns:
        told, looked_up = episode.notes.told, dict(zip(episode.inbox.current, episode.looked_up(), strict=True))
        return {
            "noted": np.array([fact.key in told for fact in facts]),
            "stale": np.array([told.get(fact.key, fact) != fact for fact in facts]),
            "looked_up": np.array([looked_up[fact.key] for fact in facts]),
        }

    def _notes_stats(self, episode: Episode) -> dict[str, float]:
        assert self.card.notes is not None
        notes = episode.notes
        return {
            "note_tokens": float(episode.noted.tokens.sum()) / (NOTE_TOKENS * self.card.notes.capacity),
            "look_ups": notes.look_ups,
            "answering": LOOK_UPS.index(notes.answering) / (len(LOOK_UPS) - 1),
        }

    def _stats(self, episode: Episode) -> dict[str, float]:
        card, rhythm, now = self.card, episode.stream.rhythm, episode.state
        state, written = now.learner, episode.written
        day = rhythm.ticks_per_day
        angle = 2 * math.pi * episode.tick / day
        night = rhythm.is_night(episode.tick)
        return {
            "day_sin": math.sin(angle),
            "day_cos": math.cos(angle),
            "night": night,
            "to_night": 0 if night else ((rhythm.night_start - episode.tick) % day) / day,
            "night_length": rhythm.night_ticks / day,
            "progress": episode.tick / episode.stream.horizon,
            "traffic": episode.stream.traffic[min(episode.tick, episode.stream.horizon - 1)],
            "arrival_rate": rhythm.arrival_rate / card.stream.arrival_rate[1],
            "update_share": rhythm.update_share,
            "budget": rhythm.edit_budget / max(1, card.max_edits),
            "budget_left": episode.edits_left / rhythm.edit_budget,
            "pending": len(episode.inbox.pending) / card.budget.pending,
            "ledger_fill": len(state.ledger) / card.budget.capacity,
            "load": written.load / card.budget.capacity,
            "degraded": len(episode.degraded()) / card.budget.capacity,
            "pressure": episode.pressure(),
            "perplexity_ratio": episode.examiner.perplexity_ratio(),
            "served": now.lately_served,
            "rank_used": written.rank / (card.budget.capacity + card.sleep.rank),
            "since_sleep": (episode.tick - now.slept_at) / (SINCE_DAYS * day),
            "since_audit": (episode.tick - now.audited_at) / (SINCE_DAYS * day),
        }


def stat(observation: Mapping[str, NDArray[np.float32]] | NDArray[np.float32], name: str) -> float:
    """Returns one entry of ``stats`` by name.

    Args:
        observation: Of one environment, as a dictionary or as one vector.
        name: One of :data:`STATS_FEATURES`, on cards with notes of :data:`NOTES_STATS_FEATURES` too.

    Raises:
        FeatureNameError: There is no such entry; the message names the nearest.
        ObservationError: It is no such observation.
    """
    stats = structured(observation)["stats"]
    if stats.ndim != 1:
        raise ObservationError(
            f"expected the observation of one environment, found a batch with stats of shape {list(stats.shape)}; "
            "take a row of it: {name: part[row] for name, part in observation.items()}"
        )
    return float(stats[_place("stats", name, len(stats))])


def stats_column(
    observation: Mapping[str, NDArray[np.float32]] | NDArray[np.float32], name: str
) -> NDArray[np.float32]:
    """Returns one entry of ``stats`` by name, for any number of observations, ``[...]``.

    Args:
        observation: With any leading axes.
        name: One of :data:`STATS_FEATURES`, on cards with notes of :data:`NOTES_STATS_FEATURES` too.

    Raises:
        FeatureNameError: There is no such entry; the message names the nearest.
        ObservationError: It is no such observation.
    """
    stats = structured(observation)["stats"]
    return stats[..., _place("stats", name, stats.shape[-1])]


def column(observation: Mapping[str, NDArray[np.float32]] | NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Returns one column of ``ledger`` by name, ``[rows]``.

    Args:
        observation: Of one environment, as a dictionary or as one vector; with a leading axis, ``[batch, rows]``.
        name: One of :data:`LEDGER_FEATURES`, on cards with notes of :data:`NOTES_LEDGER_FEATURES` too.

    Raises:
        FeatureNameError: There is no such column; the message names the nearest.
        ObservationError: It is no such observation.
    """
    ledger = structured(observation)["ledger"]
    return ledger[..., _place("ledger", name, ledger.shape[-1])]


def structured(observation: Any) -> Mapping[str, NDArray[np.float32]]:
    """Returns an observation as ``{"ledger": [..., rows, 11], "stats": [..., 21]}``, with its leading axes.

    On cards with notes it is ``{"ledger": [..., rows, 14], "stats": [..., 24]}``.

    Args:
        observation: Such a mapping, which is returned as it is; or vectors of it, ``[..., rows * 11 + 21]``, as
            ``flat=True`` and :class:`~sleepgym.env.wrappers.FlattenLedger` make them.

    Raises:
        ObservationError: It is neither.
    """
    if isinstance(observation, Mapping) and "stats" in observation and "ledger" in observation:
        return observation
    if isinstance(observation, np.ndarray) and observation.ndim and observation.dtype.kind == "f":
        has_notes = _has_notes(observation.shape[-1])
        if has_notes is not None:
            columns, entries = len(ledger_features(has_notes)), len(stats_features(has_notes))
            ledger = observation[..., :-entries].reshape(*observation.shape[:-1], -1, columns)
            return {"ledger": ledger, "stats": observation[..., -entries:]}
    found = (
        f"a mapping with {sorted(map(str, observation))}"
        if isinstance(observation, Mapping)
        else f"{type(observation).__name__} of shape {list(getattr(observation, 'shape', ()))}"
    )
    raise ObservationError(
        "expected an observation of a SleepEnv, a mapping with 'ledger' and 'stats' or one vector of both, found "
        f"{found}; take off wrappers that change observations otherwise"
    )


def operators_of(observation: Mapping[str, NDArray[np.float32]]) -> tuple[Operator, ...]:
    """Returns the operators of the card that a structured observation is of."""
    return OPERATORS if observation["stats"].shape[-1] > len(STATS_FEATURES) else tuple(Action)


def _has_notes(length: int) -> bool | None:
    """Returns whether vectors of a length are those of a card with notes; None if they are no observations."""
    for has_notes in (False, True):
        rows, rest = divmod(length - len(stats_features(has_notes)), len(ledger_features(has_notes)))
        if rows > 0 and not rest:
            return has_notes
    return None


def _place(part: str, name: str, width: int) -> int:
    has_notes = {"ledger": width > len(LEDGER_FEATURES), "stats": width > len(STATS_FEATURES)}[part]
    known = {"ledger": ledger_features(has_notes), "stats": stats_features(has_notes)}
    if name in known[part]:
        return _PLACES[part][name]
    function = {"ledger": "column", "stats": "stat"}
    elsewhere = next((function[other] for other in known if other != part and name in known[other]), "")
    near = get_close_matches(str(name), known[part], 1, 0.0)
    hint = f"{elsewhere}() reads {name!r}" if elsewhere else f"the nearest is {near[0]!r}"
    raise FeatureNameError(
        f"expected the name of a feature of {part!r}, found {name!r}; known are {', '.join(known[part])}; {hint}"
    )


def _fill(rows: NDArray[np.float32], columns: Columns) -> None:
    """Writes features into their places; others stay zero."""
    for name, values in columns.items():
        rows[:, _PLACES["ledger"][name]] = values


def _bounds(features: Mapping[str, Feature]) -> NDArray[np.float32]:
    """Lower and upper bounds, ``[2, features]``."""
    return np.array([(feature.low, feature.high) for feature in features.values()], np.float32).T


def _box(features: Mapping[str, Feature], rows: int | None = None) -> spaces.Box:
    low, high = _bounds(features)
    if rows is not None:
        low, high = np.tile(low, (rows, 1)), np.tile(high, (rows, 1))
    return spaces.Box(low, high, dtype=np.float32)
