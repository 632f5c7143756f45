"""Stream of an episode's arrivals and traffic, drawn completely at reset, so that it is independent of actions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sleepgym.episode.card import Card
from sleepgym.episode.card_sections import StreamCard
from sleepgym.facts.fact import Fact
from sleepgym.facts.real import RealFacts
from sleepgym.facts.source import FactSource
from sleepgym.facts.world import Split, World


@dataclass(frozen=True)
class Arrival:
    """A fact that becomes true at a tick.

    Attributes:
        fact: The fact.
        tick: Tick of its arrival.
        popularity: Relative rate of questions about it, in (0, 1]; an update keeps the popularity of its fact.
        is_update: Whether it changes a fact that arrived earlier in the episode.
    """

    fact: Fact
    tick: int
    popularity: float
    is_update: bool = False


@dataclass(frozen=True)
class Rhythm:
    """Parameters of an episode that the agent may observe: day and night, rates and edit budget.

    Attributes:
        ticks_per_day: Ticks per day.
        night_start: Tick of the day at which the night begins.
        night_ticks: Length of the night.
        arrival_rate: Expected arrivals per tick, averaged over a day.
        update_share: Expected share of updates among arrivals.
        edit_budget: Edits allowed in the episode.
    """

    ticks_per_day: int
    night_start: int
    night_ticks: int
    arrival_rate: float
    update_share: float
    edit_budget: int

    def since_nightfall(self, tick: int) -> int:
        """Returns the ticks since the last night began."""
        return (tick - self.night_start) % self.ticks_per_day

    def is_night(self, tick: int) -> bool:
        """Returns whether a tick is in the night."""
        return self.since_nightfall(tick) < self.night_ticks

    def activity(self, tick: int, night_level: float) -> float:
        """Returns the traffic relative to its peak: constant at night, the root of a half sine by day.

        Args:
            tick: The tick.
            night_level: Traffic at night.
        """
        phase = self.since_nightfall(tick) - self.night_ticks
        if phase < 0:
            return night_level
        day = self.ticks_per_day - self.night_ticks
        return night_level + (1 - night_level) * float(np.sin(np.pi * (phase + 0.5) / day)) ** 0.5


@dataclass(frozen=True)
class Stream:
    """All random inputs of an episode.

    Attributes:
        rhythm: Sampled parameters.
        arrivals: Arriving facts by tick.
        traffic: Number of questions by tick, relative to the peak.
        known: Pretrained facts that are asked, none of which an arrival changes; the bare model recalls all of them.
    """

    rhythm: Rhythm
    arrivals: tuple[tuple[Arrival, ...], ...]
    traffic: tuple[float, ...]
    known: tuple[Fact, ...]

    @property
    def horizon(self) -> int:
        """Length of the episode in ticks."""
        return len(self.traffic)

    def digest(self) -> str:
        """SHA-256 of all of it."""

        def plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
            # What facts of most sources do not have says nothing about them.
            return {name: value for name, value in items if (name, value) != ("joiner", None)}

        return hashlib.sha256(json.dumps(asdict(self, dict_factory=plain), sort_keys=True).encode()).hexdigest()


def source_of(spec: StreamCard) -> FactSource:
    """Returns the source of a card's facts."""
    if spec.source == "world":
        return _world()
    return RealFacts.read(Path(spec.path) if spec.path else None)


@cache
def _world() -> World:
    # One for all environments of a process: making its names takes longer than most steps, and nothing changes them.
    return World(seed=0)


def draw_stream(
    card: Card,
    source: FactSource,
    split: Split,
    rng: np.random.Generator,
    is_known: Callable[[Fact], bool] = lambda fact: True,
) -> Stream:
    """Draws an episode's stream.

    Args:
        card: Ranges and distributions.
        source: Source of the facts.
        split: Split that facts are drawn from.
        rng: Source of all randomness; must not be shared.
        is_known: Whether the bare model recalls a pretrained fact; other pretrained facts are not asked. Called until
            enough are found; by default all are recalled.
    """
    spec = card.stream
    rhythm = _rhythm(card, rng)
    activity = [rhythm.activity(tick, spec.night_traffic) for tick in range(card.horizon)]
    traffic = _with_lulls(spec, activity, rng)
    day = sum(activity[: spec.ticks_per_day]) / spec.ticks_per_day
    counts = spec.burst * rng.poisson([rhythm.arrival_rate * level / (spec.burst * day) for level in activity])
    are_updates = iter((rng.random(int(counts.sum())) < rhythm.update_share).tolist())
    # At most as many new facts as arrivals; drawn in one call, so that subjects are distinct.
    fresh = iter(source.new_facts(rng, min(int(counts.sum()), spec.max_new_facts), split))
    current: dict[tuple[str, str], Arrival] = {}
    arrivals: list[tuple[Arrival, ...]] = []
    for tick, count in enumerate(counts.tolist()):
        now: list[Arrival] = []
        earlier = list(current)
        for is_update in islice(are_updates, count):
            fact = None if is_update and earlier else next(fresh, None)
            if fact is not None:
                now.append(Arrival(fact, tick, _popularity(spec, rng)))
            elif earlier:
                # At most one update per fact and tick, since arrivals of one tick have no order.
                old = current[earlier.pop(int(rng.integers(len(earlier))))]
                now.append(Arrival(source.update(rng, old.fact), tick, old.popularity, is_update=True))
        current.update({arrival.fact.key: arrival for arrival in now})
        arrivals.append(tuple(now))
    # What is about to change is not asked as it was: learning the change would count as forgetting.
    keys = list(source.truth)
    unchanged = (keys[i] for i in rng.permutation(len(keys)) if keys[i] not in current)
    known = tuple(islice(filter(is_known, (source.known_fact(*key) for key in unchanged)), spec.known_facts))
    return Stream(rhythm, tuple(arrivals), tuple(traffic), known)


def _rhythm(card: Card, rng: np.random.Generator) -> Rhythm:
    spec = card.stream
    rate = float(rng.uniform(*spec.arrival_rate))
    return Rhythm(
        ticks_per_day=spec.ticks_per_day,
        night_start=int(rng.integers(spec.night_start[0], spec.night_start[1] + 1)),
        night_ticks=int(rng.integers(spec.night_ticks[0], spec.night_ticks[1] + 1)),
        arrival_rate=rate,
        update_share=float(rng.uniform(*spec.update_share)),
        edit_budget=max(1, round(float(rng.uniform(*card.budget.edits)) * rate * card.horizon)),
    )


def _with_lulls(spec: StreamCard, activity: Sequence[float], rng: np.random.Generator) -> list[float]:
    """Lowers traffic to that of the night in lulls, which begin and end at random: a Markov chain of two states."""
    traffic, is_lull = [], False
    for tick, (level, drawn) in enumerate(zip(activity, rng.random(len(activity)).tolist(), strict=True)):
        is_lull = drawn < lull_chance(spec, is_lull, first=tick == 0)
        traffic.append(min(level, spec.night_traffic) if is_lull else level)
    return traffic


def lull_chance(spec: StreamCard, is_lull: bool, first: bool) -> float:
    """Returns the probability that a tick is in a lull.

    Args:
        spec: Share and mean length of lulls.
        is_lull: Whether the tick before it is.
        first: Whether there is none before it.
    """
    if first:
        return spec.lull_share
    return 1 - 1 / spec.lull_ticks if is_lull else spec.lull_share / ((1 - spec.lull_share) * spec.lull_ticks)


def _popularity(spec: StreamCard, rng: np.random.Generator) -> float:
    """Draws from a Pareto distribution, capped and divided by the cap."""
    return min(1 + float(rng.pareto(spec.popularity_exponent)), spec.popularity_cap) / spec.popularity_cap
