"""One episode's stream of arrivals and questions, drawn whole at reset so that no action can shift it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sleepgym.episode.card import Card, StreamCard
from sleepgym.facts.fact import Fact
from sleepgym.facts.real import RealFacts
from sleepgym.facts.source import FactSource
from sleepgym.facts.world import Split, World


@dataclass(frozen=True)
class Arrival:
    """A fact that becomes true at a tick.

    Attributes:
        fact: The fact.
        tick: When it arrives.
        popularity: How often it is asked, in (0, 1]; an update keeps the popularity of its fact.
        is_update: Whether it changes a fact that arrived earlier in the episode.
    """

    fact: Fact
    tick: int
    popularity: float
    is_update: bool = False


@dataclass(frozen=True)
class Rhythm:
    """The episode's day: what an agent may know of it, since it can be seen on any calendar and meter.

    Attributes:
        ticks_per_day: Ticks of a day.
        night_start: Tick of the day at which the night begins.
        night_ticks: Length of the night.
        arrival_rate: Expected arrivals per tick, on average over a day.
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
        """Ticks since the last night began."""
        return (tick - self.night_start) % self.ticks_per_day

    def is_night(self, tick: int) -> bool:
        """Whether a tick is in the night."""
        return self.since_nightfall(tick) < self.night_ticks

    def activity(self, tick: int, night_level: float) -> float:
        """Traffic relative to its peak: low at night, a dome in the day."""
        phase = self.since_nightfall(tick) - self.night_ticks
        if phase < 0:
            return night_level
        day = self.ticks_per_day - self.night_ticks
        return night_level + (1 - night_level) * float(np.sin(np.pi * (phase + 0.5) / day)) ** 0.5


@dataclass(frozen=True)
class Stream:
    """Everything random about an episode's demand.

    Attributes:
        rhythm: What was drawn for the episode.
        arrivals: Per tick, the facts that arrive.
        traffic: Per tick, the number of questions relative to the peak.
        known: The pretrained facts that are asked; the bare model recalls them all.
    """

    rhythm: Rhythm
    arrivals: tuple[tuple[Arrival, ...], ...]
    traffic: tuple[float, ...]
    known: tuple[Fact, ...]

    @property
    def horizon(self) -> int:
        """Ticks of the episode."""
        return len(self.traffic)

    def digest(self) -> str:
        """SHA-256 of all of it."""
        stated = asdict(self, dict_factory=_without_usual_joiner)
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _without_usual_joiner(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a record, without a joiner of None: streams that were noted before facts had one stay the same."""
    return {name: value for name, value in fields if name != "joiner" or value is not None}


def source_of(spec: StreamCard) -> FactSource:
    """Where a card's facts come from."""
    if spec.source == "world":
        return World(seed=0)
    return RealFacts.read(Path(spec.path) if spec.path else None)


def draw_stream(
    card: Card,
    source: FactSource,
    split: Split,
    rng: np.random.Generator,
    is_known: Callable[[Fact], bool] = lambda fact: True,
) -> Stream:
    """Draws an episode's stream.

    Args:
        card: Ranges and laws.
        source: Where facts come from.
        split: Whose subjects.
        rng: Source of all randomness; nothing else draws from it.
        is_known: Whether the bare model recalls a pretrained fact: no other is worth asking. Asked for as many as are
            needed; by default it knows them all.
    """
    spec = card.stream
    rhythm = _rhythm(card, rng)
    traffic = [rhythm.activity(tick, spec.night_traffic) for tick in range(card.horizon)]
    day = sum(traffic[: spec.ticks_per_day]) / spec.ticks_per_day
    counts = rng.poisson([rhythm.arrival_rate * level / day for level in traffic])
    updates = [rng.random(int(count)) < rhythm.update_share for count in counts]
    # At most as many new facts as arrivals; drawn at once so that no subject comes twice.
    fresh = iter(source.new_facts(rng, min(int(counts.sum()), spec.max_new_facts), split))
    current: dict[tuple[str, str], Arrival] = {}
    arrivals: list[tuple[Arrival, ...]] = []
    for tick, flags in enumerate(updates):
        now: list[Arrival] = []
        earlier = list(current)
        for is_update in flags.tolist():
            fact = None if is_update and earlier else next(fresh, None)
            if fact is not None:
                now.append(Arrival(fact, tick, _popularity(spec, rng)))
            elif earlier:
                # Each fact changes at most once per tick: two objects of one tick would have no order.
                old = current[earlier.pop(int(rng.integers(len(earlier))))]
                now.append(Arrival(source.update(rng, old.fact), tick, old.popularity, is_update=True))
        current.update({arrival.fact.key: arrival for arrival in now})
        arrivals.append(tuple(now))
    keys = list(source.truth)
    told = (source.known_fact(*keys[i]) for i in rng.permutation(len(keys)).tolist())
    known = tuple(islice(filter(is_known, told), spec.known_facts))
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


def _popularity(spec: StreamCard, rng: np.random.Generator) -> float:
    """A draw of a Pareto law, capped and divided by its cap."""
    return min(1 + float(rng.pareto(spec.popularity_exponent)), spec.popularity_cap) / spec.popularity_cap
