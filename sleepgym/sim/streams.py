"""Streams of many episodes as arrays, drawn from the same laws as :func:`sleepgym.episode.stream.draw_stream`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.card import Card
from sleepgym.episode.stream import Arrival, Stream, lull_chance
from sleepgym.facts.fact import Fact
from sleepgym.memory.ledger import Key
from sleepgym.sim.arrays import Arrays
from sleepgym.sim.dice import Keys, integers, uniform

if TYPE_CHECKING:
    from sleepgym.episode.reading import Readings

_RHYTHM, _COUNTS, _UPDATES, _CHOICES, _POPULARITY, _LULLS = range(6)
"""What is drawn, for :mod:`sleepgym.sim.dice`."""


@dataclass
class Streams(Arrays):
    """All random inputs of episodes, without texts: a fact is a number, in order of first arrival.

    Attributes:
        night_start: Tick of the day at which the night begins, ``[rows]``.
        night_ticks: Length of the night, ``[rows]``.
        arrival_rate: Expected arrivals per tick, ``[rows]``.
        update_share: Expected share of updates among arrivals, ``[rows]``.
        edit_budget: Edits allowed, ``[rows]``.
        known: Pretrained facts that are asked, ``[rows]``.
        traffic: Questions per tick, relative to the peak, ``[rows, horizon]``.
        first: Place of each tick's first arrival, and the number of all arrivals, ``[rows, horizon + 1]``.
        fact: Fact that arrives, by place, ``[rows, arrivals]``.
        version: Number of its version; versions of a fact are equal if their numbers are, ``[rows, arrivals]``.
        popularity: Popularity of each fact, in (0, 1], ``[rows, facts]``; of facts that never arrive, of no meaning.
        note_right: Whether the bare model reads each version right in its note, by number; on cards with notes only,
            bool ``[rows, arrivals]``, or ``[rows, 0]``.
        note_tokens: Tokens that its note adds to a context, of the same shape.
    """

    night_start: NDArray[np.int32]
    night_ticks: NDArray[np.int32]
    arrival_rate: NDArray[np.float64]
    update_share: NDArray[np.float64]
    edit_budget: NDArray[np.int32]
    known: NDArray[np.int32]
    traffic: NDArray[np.float64]
    first: NDArray[np.int32]
    fact: NDArray[np.int32]
    version: NDArray[np.int32]
    popularity: NDArray[np.float64]
    note_right: NDArray[np.bool_]
    note_tokens: NDArray[np.int32]


def max_facts(card: Card) -> int:
    """Returns the maximum number of facts of an episode."""
    return min(card.stream.max_new_facts, max_arrivals(card))


def max_arrivals(card: Card) -> int:
    """Returns the number of arrivals of an episode that there is room for.

    A Poisson count exceeds it with a probability below 1e-12; what is beyond is cut off.
    """
    mean = card.stream.arrival_rate[1] * card.horizon
    burst = card.stream.burst
    return math.ceil(mean + 8 * math.sqrt(mean * burst) + 8 * burst)


def draw_streams(card: Card, keys: Keys) -> Streams:
    """Draws a stream per key; the pretrained facts are as many as the card asks for, and no note has been read.

    Args:
        card: Ranges and distributions.
        keys: Keys of the episodes.
    """
    spec, rows, horizon = card.stream, len(keys), card.horizon
    drawn = uniform(keys, _RHYTHM, 5)
    rate = _within(drawn[:, 0], spec.arrival_rate)
    start, length = integers(drawn[:, 1], *spec.night_start), integers(drawn[:, 2], *spec.night_ticks)
    share = _within(drawn[:, 3], spec.update_share)
    budget = np.maximum(1, np.rint(_within(drawn[:, 4], card.budget.edits) * rate * horizon)).astype(np.int32)
    level = activity(card, start, length)
    day = level[:, : spec.ticks_per_day].mean(1)
    mean = rate[:, None] * level / (spec.burst * day[:, None])
    counts = np.int32(spec.burst) * _poisson(uniform(keys, _COUNTS, horizon), mean)
    first, fact = _arrivals(card, keys, counts, share)
    # The inverse of the distribution function of a Pareto distribution, capped and divided by the cap.
    popularity = uniform(keys, _POPULARITY, max_facts(card)) ** (-1 / spec.popularity_exponent)
    return Streams(
        night_start=start,
        night_ticks=length,
        arrival_rate=rate,
        update_share=share,
        edit_budget=budget,
        known=np.full(rows, spec.known_facts, np.int32),
        traffic=np.where(_lulls(card, keys), np.minimum(level, spec.night_traffic), level),
        first=first,
        fact=fact,
        version=np.tile(np.arange(fact.shape[1], dtype=np.int32), (rows, 1)),
        popularity=np.minimum(popularity, spec.popularity_cap) / spec.popularity_cap,
        note_right=np.zeros((rows, 0), bool),
        note_tokens=np.zeros((rows, 0), np.int32),
    )


def _lulls(card: Card, keys: Keys) -> NDArray[np.bool_]:
    """Returns which ticks are in lulls, bool ``[rows, horizon]``; see :func:`~sleepgym.episode.stream.lull_chance`."""
    drawn = uniform(keys, _LULLS, card.horizon)
    lulls = np.zeros(drawn.shape, bool)
    begins, goes_on = (lull_chance(card.stream, state, first=False) for state in (False, True))
    lulls[:, 0] = drawn[:, 0] < lull_chance(card.stream, False, first=True)
    for tick in range(1, card.horizon):
        lulls[:, tick] = drawn[:, tick] < np.where(lulls[:, tick - 1], goes_on, begins)
    return lulls


def activity(card: Card, night_start: NDArray[np.int32], night_ticks: NDArray[np.int32]) -> NDArray[np.float64]:
    """Returns the traffic of every tick but for lulls, ``[rows, horizon]``; see ``Rhythm.activity``.

    Args:
        card: Days and the traffic at night.
        night_start: Tick of the day at which the night begins, ``[rows]``.
        night_ticks: Length of the night, ``[rows]``.
    """
    day, level = card.stream.ticks_per_day, card.stream.night_traffic
    length = night_ticks[:, None]
    phase = (np.arange(card.horizon) - night_start[:, None]) % day - length
    wave = np.sin(np.pi * (np.maximum(phase, 0) + 0.5) / (day - length)) ** 0.5
    return np.where(phase < 0, level, level + (1 - level) * wave)


def facts_in_order(stream: Stream) -> list[Key]:
    """Returns the keys of a stream's facts in order of first arrival: the numbers that :func:`streams_of` gives."""
    return list(dict.fromkeys(arrival.fact.key for tick in stream.arrivals for arrival in tick))


def streams_of(card: Card, streams: Sequence[Stream], readings: Sequence[Readings] = ()) -> Streams:
    """Turns streams of real facts into arrays, so that both environments can be played on the same streams.

    Args:
        card: Card that the streams were drawn for.
        streams: At least one.
        readings: What the bare model reads in the notes of each stream; needed on cards with notes, and there only.

    Raises:
        ValueError: A stream has more facts or arrivals than there is room for on this card, or there are not as many
            readings as a card needs.
    """
    if len(readings) != (len(streams) if card.notes is not None else 0):
        raise ValueError(
            f"expected readings of notes for each of {len(streams)} streams on a card with notes, and none on others, "
            f"found {len(readings)}; pass those of the episodes"
        )
    width, facts = max_arrivals(card), max_facts(card)
    fact = np.full((len(streams), width), -1, np.int32)
    version = np.full((len(streams), width), -1, np.int32)
    popularity = np.ones((len(streams), facts))
    first = np.zeros((len(streams), card.horizon + 1), np.int32)
    noted = (len(streams), width if card.notes is not None else 0)
    right, tokens = np.zeros(noted, bool), np.zeros(noted, np.int32)
    for row, stream in enumerate(streams):
        numbers = {key: number for number, key in enumerate(facts_in_order(stream))}
        arrivals: list[Arrival] = [arrival for tick in stream.arrivals for arrival in tick]
        if len(arrivals) > width or len(numbers) > facts or stream.horizon != card.horizon:
            raise ValueError(
                f"expected a stream of at most {facts} facts, {width} arrivals and {card.horizon} ticks, found "
                f"{len(numbers)}, {len(arrivals)} and {stream.horizon}; pass the card that it was drawn for"
            )
        versions: dict[Fact, int] = {}
        for place, arrival in enumerate(arrivals):
            fact[row, place] = numbers[arrival.fact.key]
            version[row, place] = versions.setdefault(arrival.fact, place)
            popularity[row, numbers[arrival.fact.key]] = arrival.popularity
        for read in readings[row : row + 1]:
            for told, number in versions.items():
                right[row, number], tokens[row, number] = read.right[told], read.tokens[told]
        first[row, 1:] = np.cumsum([len(tick) for tick in stream.arrivals])
    rhythms = [stream.rhythm for stream in streams]
    return Streams(
        night_start=np.array([rhythm.night_start for rhythm in rhythms], np.int32),
        night_ticks=np.array([rhythm.night_ticks for rhythm in rhythms], np.int32),
        arrival_rate=np.array([rhythm.arrival_rate for rhythm in rhythms]),
        update_share=np.array([rhythm.update_share for rhythm in rhythms]),
        edit_budget=np.array([rhythm.edit_budget for rhythm in rhythms], np.int32),
        known=np.array([len(stream.known) for stream in streams], np.int32),
        traffic=np.array([stream.traffic for stream in streams]),
        first=first,
        fact=fact,
        version=version,
        popularity=popularity,
        note_right=right,
        note_tokens=tokens,
    )


def _within(drawn: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    return bounds[0] + (bounds[1] - bounds[0]) * drawn


def _poisson(drawn: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.int32]:
    """Inverts the distribution function, term by term."""
    counts = np.zeros(drawn.shape, np.int32)
    term = np.exp(-mean)
    below = term.copy()
    # Every step leaves fewer; rates are a few per tick.
    for count in range(1, 1000):
        more = drawn > below
        if not more.any():
            break
        counts += more
        term *= mean / count
        below += term
    return counts


def _arrivals(
    card: Card, keys: Keys, counts: NDArray[np.int32], share: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draws which facts arrive; see :func:`~sleepgym.episode.stream.draw_stream`, whose loop this is, for all rows.

    Args:
        card: Maximum number of facts.
        keys: Keys of the episodes.
        counts: Arrivals by tick, ``[rows, horizon]``.
        share: Share of updates, ``[rows]``.

    Returns:
        ``first`` and ``fact`` of :class:`Streams`.
    """
    rows, horizon = counts.shape
    width, facts = max_arrivals(card), max_facts(card)
    ends = np.minimum(np.cumsum(counts, 1), width)
    total = ends[:, -1]
    limit = np.minimum(total, card.stream.max_new_facts)
    starts = np.bincount((ends[:, :-1] + np.arange(rows)[:, None] * (width + 1)).ravel(), minlength=rows * (width + 1))
    tick = np.cumsum(starts.reshape(rows, -1), 1)[:, :width]
    wants_update = uniform(keys, _UPDATES, width) < share[:, None]
    chosen = uniform(keys, _CHOICES, width)
    each = np.arange(rows)
    fact = np.full((rows, width), -1, np.int32)
    kept = np.zeros((rows, horizon), np.int32)
    # Facts of earlier ticks that were not updated in this one: the first `earlier` entries of `pool`.
    pool = np.tile(np.arange(facts, dtype=np.int32), (rows, 1))
    known, earlier, place = (np.zeros(rows, np.int32) for _ in range(3))
    updated = np.zeros(rows, bool)
    for number in range(int(total.max(initial=0))):
        begins = (tick[:, number] != tick[:, number - 1]) | (number == 0)
        earlier = np.where(begins, known, earlier)
        again = begins & updated
        pool[again] = np.arange(facts)
        updated &= ~again
        there = number < total
        old = wants_update[:, number] & (earlier > 0)
        new = there & ~old & (known < limit)
        changes = there & ~new & (earlier > 0)
        pick = np.minimum((chosen[:, number] * earlier).astype(np.int32), np.maximum(earlier - 1, 0))
        arrives = np.where(new, known, pool[each, pick])
        # Without replacement: the last of the pool takes the place of the one that was picked.
        pool[each[changes], pick[changes]] = pool[each[changes], earlier[changes] - 1]
        earlier = earlier - changes
        updated |= changes
        known = known + new
        comes = new | changes
        fact[each[comes], place[comes]] = arrives[comes]
        kept[each[comes], tick[comes, number]] += 1
        place = place + comes
    return np.concatenate((np.zeros((rows, 1), np.int32), np.cumsum(kept, 1, dtype=np.int32)), 1), fact
