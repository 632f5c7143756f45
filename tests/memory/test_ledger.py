import math

import pytest

from sleepgym.facts import Fact
from sleepgym.memory.ledger import Entry, Ledger, LedgerFullError


def fact(name, obj="Oslo"):
    return Fact(name, f"{name} lives in", obj, relation="city")


@pytest.fixture
def ledger():
    ledger = Ledger(capacity=4)
    for name, margin in (("Tom", 2.0), ("Mina", -1.0), ("Aria", -3.0)):
        ledger.put(Entry(fact(name), margin=margin, audited_at=5))
    return ledger


def test_facts_are_listed_oldest_first(ledger):
    assert [f.subject for f in ledger.facts] == ["Tom", "Mina", "Aria"]
    assert list(ledger) == [("Tom", "city"), ("Mina", "city"), ("Aria", "city")]


def test_degraded_facts_are_listed_worst_first(ledger):
    assert ledger.degraded == [("Aria", "city"), ("Mina", "city")]


def test_fact_that_was_never_audited_is_neither_recalled_nor_degraded():
    entry = Entry(fact("Tom"))
    assert entry.margin is None
    assert (entry.audited, entry.recalled, entry.degraded) == (False, False, False)


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_audited_fact_without_a_positive_margin_is_degraded(margin):
    assert Entry(fact("Tom"), margin=margin, audited_at=0).degraded


def test_new_object_replaces_the_entry_where_it_stands(ledger):
    ledger.put(Entry(fact("Mina", "Riga")))
    assert len(ledger) == 3
    assert [f.object for f in ledger.facts] == ["Oslo", "Riga", "Oslo"]


def test_full_ledger_refuses_new_facts_but_not_new_objects(ledger):
    ledger.put(Entry(fact("Omar")))
    with pytest.raises(LedgerFullError, match="4 of 4 places taken"):
        ledger.put(Entry(fact("Lena")))
    assert len(ledger) == 4
    ledger.put(Entry(fact("Omar", "Riga")))
    ledger.require_room([fact("Tom"), fact("Mina", "Riga")])
    with pytest.raises(LedgerFullError):
        ledger.require_room([fact("Tom"), fact("Lena")])


def test_removed_fact_makes_room(ledger):
    assert ledger.remove(("Mina", "city")).fact == fact("Mina")
    ledger.require_room([fact("Lena"), fact("Omar")])
    with pytest.raises(KeyError):
        ledger.remove(("Mina", "city"))


def test_update_changes_only_what_it_names(ledger):
    before = ledger["Tom", "city"]
    ledger.update(("Tom", "city"), stage=2)
    after = ledger["Tom", "city"]
    assert (after.stage, after.fact, after.margin, before.stage) == (2, before.fact, before.margin, 0)
    with pytest.raises(KeyError):
        ledger.update(("Lena", "city"), stage=1)


def test_copies_are_independent(ledger):
    copy = ledger.copy()
    copy.update(("Tom", "city"), stage=2)
    copy.remove(("Mina", "city"))
    assert ledger["Tom", "city"].stage == 0 and len(ledger) == 3
    assert copy.capacity == ledger.capacity
