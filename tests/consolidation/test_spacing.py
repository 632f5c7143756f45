from dataclasses import replace
from itertools import pairwise

import pytest

from sleepgym.consolidation.spacing import due, to_hold, to_train
from sleepgym.facts import Fact
from sleepgym.memory.ledger import Entry
from sleepgym.memory.settled import Settled


def entry(name, **numbers):
    return Entry(Fact(name, f"{name} lives in", "Oslo", "city"), **numbers)


def nights_of(spacing, nights):
    """Nights that train a fact which passes every gate."""
    found, each = [], entry("Tom")
    for night in range(1, nights + 1):
        if due(each, night, spacing):
            found.append(night)
            each = replace(each, trained_at=night)
        each = replace(each, held=each.held + 1)
    return found


def test_a_fact_that_holds_is_trained_less_and_less_often():
    trained = nights_of(8, 60)
    gaps = [b - a for a, b in pairwise(trained)]
    assert trained[:2] == [1, 2] and gaps == sorted(gaps) and set(gaps[3:]) == {8}


@pytest.mark.parametrize("spacing", [1, 2, 4, 7])
def test_no_fact_waits_longer_than_the_spacing(spacing):
    trained = nights_of(spacing, 40)
    assert max(b - a for a, b in pairwise(trained)) == spacing


@pytest.mark.parametrize("trained_at", range(10))
def test_new_and_failed_facts_are_always_trained(trained_at):
    assert due(entry("Tom", held=0, trained_at=trained_at), 10, 64)


def test_what_is_not_held_comes_first_and_then_the_longest_untrained():
    entries = [
        entry("Ada", held=5, trained_at=3),
        entry("Bea", held=0, trained_at=9),
        entry("Cid", held=5, trained_at=1),
        entry("Dan", held=1, trained_at=9),
        entry("Eve", held=5, trained_at=9),
    ]
    chosen = to_train({each.fact.key: each for each in entries}, 10, 4, 9)
    assert [subject for subject, _ in chosen] == ["Bea", "Cid", "Ada", "Dan"]
    assert to_train({each.fact.key: each for each in entries}, 10, 4, 2) == chosen[:2]
    assert len(to_train({each.fact.key: each for each in entries}, 10, 1, 9)) == 5


def test_settled_facts_take_turns():
    settled = {name: Settled(name, "city", f"{name} lives in", f"Where does {name} live?") for name in "ABCDEFG"}
    for night in range(1, 30):
        chosen = to_hold(settled.values(), 3)
        assert len(chosen) == 3
        settled |= {each.subject: replace(each, held_at=night) for each in chosen}
        assert min(each.held_at for each in settled.values()) >= night - 2, "seven take turns in three nights"
    assert to_hold(settled.values(), 0) == []
