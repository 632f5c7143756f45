"""Streams: reproducible, disjoint between splits, and with the rhythm that the card asks for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sleepgym.episode.card import Card, CardError, load_card
from sleepgym.episode.inbox import Inbox
from sleepgym.episode.stream import Arrival, Rhythm, Stream, draw_stream
from sleepgym.facts import Fact, World
from sleepgym.facts.real import RealFacts
from sleepgym.facts.world import SPLITS


@pytest.fixture(scope="module")
def card() -> Card:
    return load_card("SleepLLM-v0")


@pytest.fixture(scope="module")
def source() -> World:
    return World(seed=0)


def draw(card: Card, source: World, seed: int, split: str = "train") -> Stream:
    return draw_stream(card, source, split, np.random.default_rng(seed))  # type: ignore[arg-type]


def flat(stream: Stream) -> list[Arrival]:
    return [arrival for tick in stream.arrivals for arrival in tick]


def test_equal_seeds_give_equal_streams_and_others_do_not(card: Card, source: World) -> None:
    assert draw(card, source, 1) == draw(card, source, 1)
    assert draw(card, source, 1) != draw(card, source, 2)


def test_only_what_the_model_knows_is_asked_of_pretrained_facts(card: Card, source: World) -> None:
    everything = draw(card, source, 1)
    unknown = set(everything.known[::2])
    rng = np.random.default_rng(1)
    stream = draw_stream(card, source, "train", rng, lambda fact: fact not in unknown)
    assert len(stream.known) == card.stream.known_facts and not unknown & set(stream.known)
    assert stream.known[: len(everything.known) // 2] == everything.known[1::2]
    assert stream.arrivals == everything.arrivals
    assert draw_stream(card, source, "train", np.random.default_rng(1), lambda fact: False).known == ()


def test_what_the_stream_changes_is_not_asked_as_it_was() -> None:
    card, source = load_card("SleepLLM-Gemma-v0"), RealFacts.read()
    for seed in range(20):
        stream = draw_stream(card, source, "train", np.random.default_rng(seed))
        assert len(stream.known) == card.stream.known_facts
        changed = {arrival.fact.key for arrival in flat(stream)}
        assert changed and not changed & {fact.key for fact in stream.known}


def test_splits_are_about_different_people(card: Card, source: World) -> None:
    people = [{a.fact.subject for seed in range(5) for a in flat(draw(card, source, seed, split))} for split in SPLITS]
    assert all(people)
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]


def test_an_update_changes_the_object_of_a_fact_that_arrived_on_an_earlier_tick(card: Card, source: World) -> None:
    updates = 0
    for seed in range(10):
        current: dict[tuple[str, str], Arrival] = {}
        for arrival in flat(draw(card, source, seed)):
            old = current.get(arrival.fact.key)
            assert arrival.is_update == (old is not None)
            if old is not None:
                updates += 1
                assert old.tick < arrival.tick
                assert old.fact.object != arrival.fact.object
                assert old.popularity == arrival.popularity
            current[arrival.fact.key] = arrival
    assert updates > 10


def test_ranges_of_the_card_are_kept_and_used(card: Card, source: World) -> None:
    streams = [draw(card, source, seed) for seed in range(60)]
    for name in ("arrival_rate", "update_share", "night_start", "night_ticks"):
        low, high = getattr(card.stream, name)
        drawn = [getattr(stream.rhythm, name) for stream in streams]
        assert low <= min(drawn) < max(drawn) <= high
    counts = [len(flat(stream)) for stream in streams]
    expected = [stream.rhythm.arrival_rate * card.horizon for stream in streams]
    # 60 Poisson counts of about 50: their mean is within four standard errors.
    assert abs(np.mean(counts) - np.mean(expected)) < 4 * np.sqrt(np.mean(expected) / 60)
    for stream, count in zip(streams, expected, strict=True):
        low, high = card.budget.edits
        assert low * count - 1 <= stream.rhythm.edit_budget <= high * count + 1


def test_facts_and_questions_come_by_day(card: Card, source: World) -> None:
    day = night = 0
    for seed in range(30):
        stream = draw(card, source, seed)
        for tick, (level, arrivals) in enumerate(zip(stream.traffic, stream.arrivals, strict=True)):
            is_night = stream.rhythm.is_night(tick)
            assert level == card.stream.night_traffic or not is_night
            assert 0 < level <= 1
            night += len(arrivals) * is_night
            day += len(arrivals) * (not is_night)
    assert day > 8 * night


def test_lulls_come_at_any_hour_and_last_as_long_as_the_card_says(source: World) -> None:
    card = load_card("SleepLLM-v0", stream={"lull_share": 0.25, "lull_ticks": 4.0}, episode={"days": 60})
    level = card.stream.night_traffic
    lulls = []
    for seed in range(4):
        stream = draw(card, source, seed)
        by_day = [not stream.rhythm.is_night(tick) for tick in range(card.horizon)]
        lulls.append([low == level for low, day in zip(stream.traffic, by_day, strict=True) if day])
        clock = [stream.rhythm.activity(tick, level) for tick in range(card.horizon)]
        assert all(low in (level, usual) for low, usual in zip(stream.traffic, clock, strict=True))
    share = np.mean(np.concatenate(lulls))
    # About 2,700 ticks by day, in runs of 4: an effective sample of some 680 / 2.
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 340)
    begins = sum(now and not before for row in lulls for before, now in itertools.pairwise(row))
    assert 2.5 < sum(map(sum, lulls)) / begins < 5, "nights cut some short"


def test_facts_come_in_bursts(source: World) -> None:
    card = load_card("SleepLLM-v0", stream={"burst": 3, "update_share": [0.0, 0.0], "max_new_facts": 500})
    counts = [[len(arrivals) for arrivals in draw(card, source, seed).arrivals] for seed in range(40)]
    assert {count % 3 for row in counts for count in row} == {0}
    expected = np.mean(card.stream.arrival_rate) * card.horizon
    assert abs(np.mean(np.sum(counts, 1)) - expected) < 4 * np.sqrt(3 * expected / 40) + 0.1 * expected


@pytest.mark.parametrize("lulls", [{"lull_share": 0.8, "lull_ticks": 1.0}, {"lull_share": 1.0}, {"lull_ticks": 0.5}])
def test_impossible_lulls_are_refused(lulls: dict[str, float]) -> None:
    with pytest.raises(CardError, match="lull"):
        load_card("SleepLLM-v0", stream=lulls)


def test_night_wraps_around_midnight() -> None:
    rhythm = Rhythm(24, night_start=22, night_ticks=6, arrival_rate=1, update_share=0, edit_budget=1)
    assert [tick for tick in range(24) if rhythm.is_night(tick)] == [0, 1, 2, 3, 22, 23]


def arrival(name: str, obj: str = "Oslo", tick: int = 0) -> Arrival:
    return Arrival(Fact(subject=name, prompt=f"{name} lives in", object=obj, relation="city"), tick, 1.0)


def test_a_full_inbox_loses_the_oldest() -> None:
    inbox = Inbox(2)
    inbox.arrive([arrival("Ann"), arrival("Ben"), arrival("Cid")])
    assert [fact.subject for fact in inbox.batch(9, (), 9)] == ["Ben", "Cid"]
    assert inbox.lost == 1
    assert len(inbox.current) == 3


def test_a_newer_version_replaces_the_one_that_waits() -> None:
    inbox = Inbox(2)
    inbox.arrive([arrival("Ann"), arrival("Ben"), arrival("Ann", "Riga", 1)])
    assert [(f.subject, f.object) for f in inbox.batch(9, (), 9)] == [("Ben", "Oslo"), ("Ann", "Riga")]
    assert inbox.lost == 0


def test_a_batch_keeps_to_limit_and_room() -> None:
    inbox = Inbox(5)
    inbox.arrive([arrival("Ann"), arrival("Ben"), arrival("Cid")])
    held = {("Cid", "city")}
    assert [f.subject for f in inbox.batch(9, held, 1)] == ["Ann", "Cid"]
    assert [f.subject for f in inbox.batch(1, held, 1)] == ["Ann"]
    assert inbox.batch(0, held, 1) == []


def test_a_fact_is_answerable_only_in_its_written_version() -> None:
    inbox = Inbox(2)
    inbox.arrive([arrival("Ann")])
    key = ("Ann", "city")
    assert not inbox.is_answerable(key)
    inbox.mark_written(inbox.batch(1, (), 1))
    assert inbox.is_answerable(key)
    inbox.arrive([arrival("Ann", "Riga", 1)])
    assert not inbox.is_answerable(key)


def test_digest_of_streams_that_were_noted_before_facts_had_a_joiner_is_the_same() -> None:
    def stream(fact: Fact) -> Stream:
        return Stream(Rhythm(48, 32, 16, 1.0, 0.1, 5), ((Arrival(fact, 0, 0.5),),), (1.0,), (fact,))

    digest = stream(Fact("Tom", "Tom is in", "Oslo")).digest()
    assert digest == "4d915f75500c8aa1c5fa5d8101a8856d35ab84a292628d47e3b50a7289de0d54"
    assert stream(Fact("Tom", "Tom is in", "Oslo", joiner="")).digest() != digest
