"""Streams drawn as arrays follow the laws of the real generator, and a real stream turns into arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from sleepgym.episode.card import Card, load_card
from sleepgym.episode.stream import Stream, draw_stream
from sleepgym.facts import Fact, World
from sleepgym.facts.source import FactSource
from sleepgym.facts.world import Split
from sleepgym.sim.dice import keys_of
from sleepgym.sim.streams import Streams, activity, draw_streams, facts_in_order, max_arrivals, streams_of

DRAWN = 2000
# Many updates, and fewer new facts than arrive: every branch of the generator is taken.
SCARCE = {"stream": {"max_new_facts": 8, "update_share": [0.3, 0.6]}}
CARDS = {
    "default": load_card("SleepLLM-v0"),
    "mini": load_card("SleepLLM-Mini-v0"),
    "scarce": load_card("SleepLLM-Mini-v0", **SCARCE),
    "lulls": load_card("SleepLLM-Mini-v0", stream={"lull_share": 0.3, "lull_ticks": 2.5, "burst": 3}),
}


class Counted:
    """The same few facts for every stream, as quickly as can be: streams are compared by when facts come, not which."""

    truth: Mapping[tuple[str, str], str] = {}

    def __init__(self, world: World) -> None:
        self.facts = world.new_facts(
            np.random.default_rng(0), max(card.stream.max_new_facts for card in CARDS.values())
        )

    def new_facts(self, rng: np.random.Generator, n: int, split: Split) -> list[Fact]:
        return self.facts[:n]

    def update(self, rng: np.random.Generator, fact: Fact) -> Fact:
        return fact

    def known_fact(self, subject: str, relation: str) -> Fact:
        raise KeyError(subject)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module", params=CARDS)
def both(request: pytest.FixtureRequest, world: World) -> tuple[Card, Streams, Streams]:
    """A card, streams of the real generator and streams drawn as arrays."""
    card = CARDS[request.param]
    source = Counted(world)
    real = streams_of(card, [draw(card, source, seed) for seed in range(DRAWN)])
    return card, real, draw_streams(card, keys_of(np.arange(DRAWN, dtype=np.uint64)))


def draw(card: Card, source: FactSource, seed: int) -> Stream:
    return draw_stream(card, source, "train", np.random.default_rng(seed))


def distance(left: np.ndarray, right: np.ndarray) -> float:
    """Statistic of the Kolmogorov-Smirnov test: the largest gap between two distribution functions."""
    every = np.concatenate((left, right))
    gaps = [np.searchsorted(np.sort(each), every, side="right") / len(each) for each in (left, right)]
    return float(np.abs(gaps[0] - gaps[1]).max())


def arrived(streams: Streams) -> np.ndarray:
    return np.arange(streams.fact.shape[1]) < streams.first[:, -1:]


def is_update(streams: Streams) -> np.ndarray:
    """Whether each arrival is the second or a later one of its fact."""
    seen = np.maximum.accumulate(streams.fact, 1)
    return arrived(streams) & (np.concatenate((np.full((len(seen), 1), -1), seen[:, :-1]), 1) >= streams.fact)


QUANTITIES: dict[str, Callable[[Streams], np.ndarray]] = {
    "arrivals": lambda s: s.first[:, -1],
    "arrivals on the first day": lambda s: s.first[:, s.traffic.shape[1] // 2],
    "most arrivals of a tick": lambda s: np.diff(s.first, axis=1).max(1),
    "facts": lambda s: s.fact.max(1) + 1,
    "updates": lambda s: is_update(s).sum(1),
    "which fact is updated": lambda s: s.fact[is_update(s)],
    "updates of one fact": lambda s: np.array([np.bincount(row[row >= 0], minlength=1).max() for row in s.fact]),
    "popularity": lambda s: s.popularity[:, :4][np.arange(4) <= s.fact.max(1)[:, None]],
    "night start": lambda s: s.night_start,
    "night length": lambda s: s.night_ticks,
    "traffic": lambda s: s.traffic.sum(1),
    "changes of traffic": lambda s: np.abs(np.diff(s.traffic, axis=1)).sum(1),
    "arrival rate": lambda s: s.arrival_rate,
    "update share": lambda s: s.update_share,
    "budget": lambda s: s.edit_budget,
}


@pytest.mark.parametrize("name", QUANTITIES)
def test_quantities_are_distributed_as_in_the_real_generator(name: str, both: tuple[Card, Streams, Streams]) -> None:
    _, real, drawn = both
    left, right = QUANTITIES[name](real), QUANTITIES[name](drawn)
    # Two samples of equal laws are this far apart once in 10,000 times, at these sizes.
    limit = 2.23 * np.sqrt(1 / len(left) + 1 / len(right))
    assert distance(left, right) < limit


def test_a_fact_changes_at_most_once_a_tick_and_never_in_the_tick_in_which_it_arrives(
    both: tuple[Card, Streams, Streams],
) -> None:
    card, *each = both
    for streams in each:
        tick = (np.arange(max_arrivals(card))[None, None] >= streams.first[:200, 1:, None]).sum(1)
        for row in range(200):
            count = streams.first[row, -1]
            pairs = list(zip(tick[row, :count].tolist(), streams.fact[row, :count].tolist(), strict=True))
            assert len(set(pairs)) == count
            assert (streams.fact[row, count:] == -1).all()
            first = list(dict.fromkeys(fact for _, fact in pairs))
            assert first == sorted(first) == list(range(len(first)))


def test_a_row_depends_on_its_own_key_alone() -> None:
    keys, card = keys_of(np.arange(30, dtype=np.uint64)), CARDS["mini"]
    together, alone = draw_streams(card, keys), draw_streams(card, keys[7:8])
    for name, value in vars(alone).items():
        assert np.array_equal(value[0], getattr(together, name)[7]), name


def test_a_real_stream_turns_into_arrays(world: World) -> None:
    card = CARDS["default"]
    stream = draw(card, world, 3)
    arrays = streams_of(card, [stream])
    by_clock = activity(card, arrays.night_start, arrays.night_ticks)[0]
    in_lull = np.minimum(by_clock, card.stream.night_traffic)
    lulls = np.isclose(in_lull, stream.traffic, rtol=1e-14) & (in_lull < by_clock)
    assert lulls.any()
    np.testing.assert_allclose(np.where(lulls, in_lull, by_clock), stream.traffic, rtol=1e-14)
    np.testing.assert_array_equal(arrays.traffic[0], stream.traffic)
    keys, current = facts_in_order(stream), {}
    for tick, arrivals in enumerate(stream.arrivals):
        places = range(arrays.first[0, tick], arrays.first[0, tick + 1])
        for place, arrival in zip(places, arrivals, strict=True):
            fact = arrays.fact[0, place]
            assert keys[fact] == arrival.fact.key
            assert arrays.popularity[0, fact] == arrival.popularity
            earlier = current.setdefault(fact, {}).setdefault(arrays.version[0, place], arrival.fact)
            assert earlier == arrival.fact


def test_a_stream_of_another_card_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="the card that it was drawn for"):
        streams_of(CARDS["mini"], [draw(CARDS["default"], world, 0)])
