"""Observations of many episodes, with the layout of :mod:`sleepgym.env.observation`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import (
    EDITS_SCALE,
    LEDGER_FEATURES,
    MARGIN_SCALE,
    NOTE_TOKENS,
    NOTES_LEDGER_FEATURES,
    SINCE_DAYS,
    Observation,
    ledger_features,
    stats_features,
)
from sleepgym.episode.actions import LOOK_UPS
from sleepgym.sim import routing
from sleepgym.sim.noted import NotedFacts
from sleepgym.sim.rules import edits_left, known_degraded
from sleepgym.sim.setting import Setting
from sleepgym.sim.state import State
from sleepgym.sim.streams import Streams

_COLUMN = {name: place for place, name in enumerate([*LEDGER_FEATURES, *NOTES_LEDGER_FEATURES])}


def observations(setting: Setting, streams: Streams, state: State) -> Observation:
    """Returns the observations, ``{"ledger": [rows, facts, features], "stats": [rows, features]}``.

    Args:
        setting: Numbers of the card.
        streams: Streams of the episodes.
        state: State of the episodes.
    """
    budget, notes = setting.card.budget, setting.card.notes
    facts = budget.capacity + budget.pending + (notes.capacity if notes is not None else 0)
    ledger = np.zeros((len(state), facts, len(ledger_features(notes is not None))), np.float32)
    _written(setting, streams, state, ledger)
    _waiting(setting, streams, state, state.facts.inbox, state.ledger.fill, ledger)
    values = _stats(setting, streams, state)
    if notes is not None:
        values |= _of_notes(setting, streams, state, ledger)
    features = stats_features(notes is not None)
    stats = np.empty((len(state), len(features)), np.float32)
    for place, (name, feature) in enumerate(features.items()):
        stats[:, place] = np.clip(values[name], feature.low, feature.high)
    return {"ledger": ledger, "stats": stats}


def flattened(seen: Observation) -> NDArray[np.float32]:
    """Lays observations out as one vector per episode, ``[rows, features]``, as ``FlattenLedger`` does one at a time.

    Args:
        seen: Observations of many episodes.
    """
    return np.concatenate((seen["ledger"].reshape(len(seen["stats"]), -1), seen["stats"]), 1)


def _written(setting: Setting, streams: Streams, state: State, out: NDArray[np.float32]) -> None:
    """Fills the rows of written facts in."""
    ledger, horizon = state.ledger, np.float32(setting.card.horizon)
    # Of present entries alone: most ledgers are far from full.
    there = np.flatnonzero(ledger.present)
    row, place = np.divmod(there, ledger.fact.shape[1])
    of = {name: array.reshape(-1).take(there) for name, array in vars(ledger).items()}
    tick, audited = state.clock.tick[row], of["audited_at"] >= 0
    columns = {
        "present": 1,
        "age": (tick - of["written_at"]) / horizon,
        "stage": of["stage"] / np.float32(setting.card.sleep.last_stage),
        "scale": of["scale"],
        "audited": audited,
        "margin": np.clip(of["margin"] / np.float32(MARGIN_SCALE), -1, 1),
        "recalled": of["margin"] > 0,
        "audit_age": np.where(audited, (tick - of["audited_at"]) / horizon, 1),
        "edits": np.minimum(of["writes"] / np.float32(EDITS_SCALE), 1),
        "popularity": streams.popularity[row, of["fact"]],
    }
    rows = np.zeros((len(there), out.shape[2]), np.float32)
    for name, values in columns.items():
        rows[:, _COLUMN[name]] = values
    out[row, place] = rows


def _waiting(
    setting: Setting,
    streams: Streams,
    state: State,
    waiting: NDArray[np.int32],
    above: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Fills the rows of facts in that the weights were not taught.

    Args:
        setting: Numbers of the card.
        streams: Streams of the episodes.
        state: State of the episodes.
        waiting: The facts in order; -1 beyond the last, ``[rows, width]``.
        above: Rows above them, ``[rows]``.
        out: Rows of the observations.
    """
    row, place = np.nonzero(waiting >= 0)
    fact, at = waiting[row, place], above[row] + place
    out[row, at, _COLUMN["present"]] = out[row, at, _COLUMN["pending"]] = out[row, at, _COLUMN["audit_age"]] = 1
    out[row, at, _COLUMN["age"]] = (state.clock.tick[row] - state.facts.arrived_at[row, fact]) / setting.card.horizon
    out[row, at, _COLUMN["popularity"]] = streams.popularity[row, fact]


def _of_notes(
    setting: Setting, streams: Streams, state: State, out: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Fills the rows of facts in that are only noted, and the columns of notes; returns further entries of stats."""
    assert setting.card.notes is not None
    facts, notes, ledger = state.facts, state.notes, state.ledger
    only = routing.by_popularity(state, streams.popularity, routing.only_noted(state))
    waiting = np.count_nonzero(facts.inbox >= 0, axis=1)
    _waiting(setting, streams, state, only, ledger.fill + waiting, out)
    noted = NotedFacts.of(setting, streams, state)
    looked_up = noted.looked_up(setting, state)
    above = np.zeros(len(state), np.int64)
    # Rows of the ledger are of the versions that it holds, others of the current ones.
    for order, version in ((ledger.fact, facts.written), (facts.inbox, facts.current), (only, facts.current)):
        row, place = np.nonzero(order >= 0)
        fact, at = order[row, place], above[row] + place
        told = notes.told[row, fact]
        out[row, at, _COLUMN["noted"]] = told >= 0
        out[row, at, _COLUMN["stale"]] = (told >= 0) & (told != version[row, fact])
        out[row, at, _COLUMN["looked_up"]] = looked_up[row, fact]
        above = above + np.count_nonzero(order >= 0, axis=1)
    return {
        "note_tokens": noted.tokens.sum(1) / (NOTE_TOKENS * setting.card.notes.capacity),
        "look_ups": notes.look_ups,
        "answering": notes.answering / (len(LOOK_UPS) - 1),
    }


def _stats(setting: Setting, streams: Streams, state: State) -> dict[str, NDArray[np.float64]]:
    card, clock, horizon = setting.card, state.clock, setting.card.horizon
    day, capacity, tick = card.stream.ticks_per_day, card.budget.capacity, state.clock.tick
    angle = 2 * np.pi * tick / day
    night = (tick - streams.night_start) % day < streams.night_ticks
    fill, scales = state.ledger.fill, state.ledger.scale.sum(1)
    rank = fill + clock.rank if setting.edits_share_modules else np.maximum(fill, clock.rank)
    return {
        "day_sin": np.sin(angle),
        "day_cos": np.cos(angle),
        "night": night,
        "to_night": np.where(night, 0, ((streams.night_start - tick) % day) / day),
        "night_length": streams.night_ticks / day,
        "progress": tick / horizon,
        "traffic": streams.traffic[np.arange(len(tick)), np.minimum(tick, horizon - 1)],
        "arrival_rate": streams.arrival_rate / card.stream.arrival_rate[1],
        "update_share": streams.update_share,
        "budget": streams.edit_budget / max(1, card.max_edits),
        "budget_left": edits_left(state, streams.edit_budget) / streams.edit_budget,
        "pending": np.count_nonzero(state.facts.inbox >= 0, axis=1) / card.budget.pending,
        "ledger_fill": fill / capacity,
        "load": scales / capacity,
        "degraded": np.count_nonzero(known_degraded(state.facts, state.ledger), axis=1) / capacity,
        "pressure": pressure(setting, state, scales),
        "perplexity_ratio": state.mind.ratio,
        "served": clock.lately_served,
        "rank_used": rank / (capacity + card.sleep.rank),
        "since_sleep": (tick - clock.slept_at) / (SINCE_DAYS * day),
        "since_audit": (tick - clock.audited_at) / (SINCE_DAYS * day),
    }


def pressure(setting: Setting, state: State, load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the sleep pressure, ``[rows]``; see :func:`sleepgym.episode.pressure.sleep_pressure`.

    Args:
        setting: Numbers of the card.
        state: State of the episodes.
        load: Sum of the scales of all edits, ``[rows]``.
    """
    card = setting.card.pressure
    awake = state.clock.tick - state.clock.slept_at
    rise = np.maximum(0.0, state.mind.ratio - 1)
    return np.minimum(
        1.0,
        card.edits_weight * np.minimum(1.0, load / card.edits) ** card.exponent
        + card.ticks_weight * np.minimum(1.0, awake / card.ticks)
        + card.perplexity_weight * np.minimum(1.0, rise / card.perplexity),
    )
