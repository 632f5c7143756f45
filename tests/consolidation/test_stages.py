import pytest
import torch

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.consolidation.stages import dissolve, dissolve_further
from sleepgym.facts import Fact
from sleepgym.memory.ledger import Entry
from sleepgym.memory.owners import owner_of
from sleepgym.memory.state import State

SCALES = (1.0, 0.5, 0.1, 0.0)


@pytest.fixture
def state():
    return State.fresh(capacity=8)


def put(state, name, stage=0):
    fact = Fact(name, f"{name} lives in", "Oslo", relation="city")
    state.ledger.put(Entry(fact, stage=stage))
    state.memory.put(owner_of(fact), {"m": (torch.ones(1, 3), torch.ones(2, 1))}, SCALES[stage])
    return fact


def at(state, fact):
    """Stage in the ledger; the scale of the edit must go with it."""
    entry = state.ledger[fact.key]
    assert state.scale_of(fact.key) == state.memory.terms[owner_of(fact)].scale == SCALES[entry.stage]
    return entry.stage


@pytest.mark.parametrize(("stage", "after"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_fact_that_passes_rises_one_stage_and_its_edit_dissolves(state, stage, after):
    fact = put(state, "Tom Lork", stage)
    dissolve(state, {fact.key: True}, SleepSpec())
    assert at(state, fact) == after


@pytest.mark.parametrize("stage", range(4))
def test_fact_that_fails_gets_its_edit_back_at_full_strength(state, stage):
    fact, other = put(state, "Tom Lork", stage), put(state, "Mina Trent", 1)
    dissolve(state, {fact.key: False, other.key: True}, SleepSpec())
    assert (at(state, fact), at(state, other)) == (0, 2)


@pytest.mark.parametrize(("stage", "after"), [(1, 2), (2, 3)])
def test_edit_that_stands_in_the_way_of_its_own_fact_goes_on(state, stage, after):
    fact, other = put(state, "Tom Lork", stage), put(state, "Mina Trent", 1)
    assert dissolve_further(state, [fact.key], {fact.key: True, other.key: True}, SleepSpec())
    assert (at(state, fact), at(state, other)) == (after, 1)


def test_edits_of_all_that_passed_give_way_to_a_fact_that_needs_no_edit(state):
    fact, other, failed = put(state, "Tom Lork", 3), put(state, "Mina Trent", 1), put(state, "Ann Vey", 0)
    passed = {fact.key: True, other.key: True, failed.key: False}
    assert dissolve_further(state, [fact.key], passed, SleepSpec())
    assert (at(state, fact), at(state, other), at(state, failed)) == (3, 2, 0)


def test_edit_that_spoils_more_than_it_holds_is_switched_off(state):
    facts, failed = [put(state, name, 3) for name in ("Tom Lork", "Mina Trent")], put(state, "Ann Vey", 0)
    passed = {fact.key: fact is not failed for fact in (*facts, failed)}
    assert dissolve_further(state, [fact.key for fact in facts], passed, SleepSpec())
    assert (state.ledger[failed.key].stage, state.scale_of(failed.key)) == (0, 0.0)
    assert [at(state, fact) for fact in facts] == [3, 3]
    # Nothing is left to give way: a second call ends it.
    assert not dissolve_further(state, [fact.key for fact in facts], passed, SleepSpec())


def test_edits_of_facts_that_failed_give_way_last(state):
    facts, failed = [put(state, name, 2) for name in ("Tom Lork", "Mina Trent")], put(state, "Ann Vey", 0)
    passed = {fact.key: fact is not failed for fact in (*facts, failed)}
    assert dissolve_further(state, [fact.key for fact in facts], passed, SleepSpec())
    assert [at(state, fact) for fact in (*facts, failed)] == [3, 3, 0]


def test_when_no_edit_can_give_way_nothing_does(state):
    fact, failed = put(state, "Tom Lork", 3), put(state, "Ann Vey", 0)
    assert not dissolve_further(state, [fact.key], {fact.key: True, failed.key: False}, SleepSpec())
    assert not dissolve_further(state, [], {fact.key: True, failed.key: False}, SleepSpec())
    assert (at(state, fact), at(state, failed)) == (3, 0)
