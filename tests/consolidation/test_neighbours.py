"""Neighbours: subjects that are not taught, about which a night holds what the bare model answers."""

from dataclasses import replace

import pytest
import torch

from sleepgym.consolidation.answers import answered, questions
from sleepgym.consolidation.neighbours import neighbours_of
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.neighbourhood import Neighbourhood
from sleepgym.lm import score
from sleepgym.memory.ledger import Entry
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import ADAPTER
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State
from sleepgym.settings import SettingError
from sleepgym.sleeper import SleepingLM

SPEC = SleepSpec(steps=12, rehearsal_rows=0, neighbours=24, scales=(1.0, 0.0))


@pytest.fixture(scope="module")
def known(world):
    return world.known_facts()


def taught(facts):
    """A state whose ledger holds some facts."""
    state = State.fresh(16, 0)
    for fact in facts:
        state.ledger.put(Entry(fact))
    return state


@pytest.fixture
def beside(base):
    """The base with given neighbours."""

    def make(given):
        return replace(base, neighbourhood=Neighbourhood(base.overlay, given))

    return make


def test_given_facts_are_drawn_mostly_of_the_lessons_relations_and_never_about_what_is_taught(beside, facts, known):
    state = taught(facts[:2])
    about_taught = [
        replace(known[0], subject=facts[0].subject, prompt=f"{facts[0].subject} lives in", paraphrases=(), questions=())
    ]
    relations = {fact.relation for fact in facts[:2]}
    found = neighbours_of(beside([*about_taught, *known]), state, facts[:2], 16)
    assert len({each.key for each in found}) == 16
    assert not {each.subject for each in found} & {fact.subject for fact in facts[:2]}
    assert sum(each.relation in relations for each in found) == 12
    assert {each.key for each in neighbours_of(beside(known), state, facts[:2], 16)} != {each.key for each in found}
    only = [fact for fact in known if fact.relation in relations]
    assert len(neighbours_of(beside(only), state, facts[:2], 16)) == 16


def test_night_holds_answers_of_the_bare_model(base, beside, facts, known):
    """Without rehearsal of text, what is held is all that keeps answers about others."""
    rows = questions(base.lm, [Settled.of(fact) for fact in known[:24]])
    (asked,) = answered(base.overlay, [Memory()], [rows])
    bare, moved = score(base.lm, asked).nll, {}
    for count in (0, 24):
        learner = SleepingLM(beside(known[:24]), replace(SPEC, neighbours=count, stop_nll=0.0), seed=1)
        learner.inject(facts[:4])
        report = learner.sleep()
        assert report.steps == SPEC.steps and not report.rolled_back
        now = score(base.lm, asked, base.overlay.asked(learner.state.memory)).nll
        moved[count] = float((now - bare).abs().mean())
    assert moved[24] < 0.5 * moved[0]


def test_their_answers_are_those_without_any_memory(base, known):
    rows = questions(base.lm, [Settled.of(fact) for fact in known[:3]])
    (found,) = answered(base.overlay, [Memory()], [rows])
    written = [base.lm.tokenizer.decode(row.object_ids, skip_special_tokens=True).strip(" .") for row in found[::2]]
    assert written == [fact.object for fact in known[:3]]


def test_what_has_no_rows_or_no_weight_does_not_train(beside, facts, known):
    found = []
    for change in ({"neighbour_rows": 0}, {"neighbour_weight": 0.0}, {}):
        learner = SleepingLM(beside(known[:40]), replace(SPEC, steps=3, **change), seed=1)
        learner.inject(facts[:2])
        learner.sleep()
        found.append(learner.state.memory.terms[ADAPTER].factors)

    def same(one, two):
        return all(
            torch.equal(a, b)
            for pair in zip(one.values(), two.values(), strict=True)
            for a, b in zip(*pair, strict=True)
        )

    assert same(found[0], found[1]) and not same(found[0], found[2])


@pytest.mark.parametrize("name", ["neighbours", "neighbour_rows", "neighbour_weight"])
def test_impossible_numbers_are_refused(name):
    with pytest.raises(SettingError, match=f"{name}: expected"):
        SleepSpec(**{name: -1})
