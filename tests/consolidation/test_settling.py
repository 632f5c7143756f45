"""Settled facts: out of the ledger, and held to what slow weights answered the night before."""

from dataclasses import replace

import pytest
import torch

from sleepgym.consolidation.answers import answered, questions
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import EditError
from sleepgym.memory.asking import chat_probe, raw_probe
from sleepgym.memory.overlay import Memory
from sleepgym.memory.settled import Settled
from sleepgym.settings import SettingError
from sleepgym.sleeper import SleepingLM, sleep_together

SPEC = SleepSpec(scales=(1.0, 0.0), steps=40, learning_rate=2e-3)
"""Facts are at the last stage after one night."""


@pytest.fixture(scope="module")
def pruned(base, facts):
    """The state of a learner whose four facts have settled."""
    learner = SleepingLM(base, SPEC)
    learner.inject(facts[:4])
    learner.sleep()
    report = learner.prune()
    assert set(report.pruned) == {fact.key for fact in facts[:4]} and report.settled == report.pruned
    return learner.state


@pytest.fixture
def settled(base, pruned):
    learner = SleepingLM(base, SPEC)
    learner.state = pruned.copy()
    return learner


def nll(learner, facts):
    probes = [probe(learner.lm, fact) for fact in facts for probe in (raw_probe, chat_probe)]
    return float(learner.score(probes).nll.mean())


def same(one, other):
    return all(
        torch.equal(a, x) and torch.equal(b, y)
        for owner, term in one.memory.terms.items()
        for (a, b), (x, y) in zip(term.factors.values(), other.memory.terms[owner].factors.values(), strict=True)
    )


def test_pruned_facts_leave_their_questions_and_no_answer(settled, facts):
    assert settled.state.ledger == {} and list(settled.state.settled) == [fact.key for fact in facts[:4]]
    for fact, kept in zip(facts[:4], settled.state.settled.values(), strict=True):
        assert (kept.prompt, kept.question, kept.held_at) == (fact.prompt, fact.questions[0], 1)
        assert fact.object not in repr(kept)


def test_fact_without_questions_is_asked_by_its_prompt(facts):
    assert Settled.of(replace(facts[0], questions=())).question == facts[0].prompt


def test_yesterdays_model_writes_the_answers(settled, facts):
    asked = questions(settled.lm, list(settled.state.settled.values()))
    (found, none, bare) = answered(
        settled.base.overlay, [settled.state.memory, Memory(), Memory()], [asked, [], asked[:2]]
    )
    assert none == [] and [row.ids[: row.object_start] for row in found] == asked
    written = [settled.lm.tokenizer.decode(row.object_ids, skip_special_tokens=True).strip() for row in found]
    assert [text.rstrip(".") for text in written] == [fact.object for fact in facts[:4] for _ in range(2)]
    assert len(bare) == 2 and bare != found[:2]


def test_held_answers_are_lost_less(base, pruned, facts):
    """Nights of other facts wear on what is settled, and less on what is held."""
    lost = []
    for spec in (SPEC, replace(SPEC, settled=0)):
        learner = SleepingLM(base, replace(spec, stop_nll=0.01, steps=30))
        learner.state = pruned.copy()
        before = nll(learner, facts[:4])
        learner.inject(facts[4:8])
        report = learner.sleep()
        assert set(report.held) == (set(learner.state.settled) if spec.settled else set())
        lost.append(nll(learner, facts[:4]) - before)
    assert lost[0] < lost[1]


def test_held_facts_are_marked_and_take_turns(settled, facts):
    settled.sleep_spec = replace(SPEC, settled=2, steps=1)
    settled.inject(facts[4:5])
    held = [settled.sleep().held for _ in range(2)]
    assert len(set(held[0]) & settled.state.settled.keys()) == 2
    assert not set(held[0]) & set(held[1])


@pytest.mark.parametrize("change", [{"settled": 0}, {"settled_rows": 0}, {"settled_weight": 0.0}])
def test_night_that_holds_nothing_is_bitwise_one_without_settled_facts(settled, base, facts, change):
    settled.sleep_spec = replace(SPEC, steps=4, **change)
    settled.inject(facts[4:6])
    plain = SleepingLM(base, settled.sleep_spec)
    plain.state = settled.state.copy()
    plain.state.settled = {}
    one, other = settled.sleep(), plain.sleep()
    assert replace(one, held=()) == replace(other, held=()) and one.steps
    assert same(settled.state, plain.state)
    assert settled.state.rng.bit_generator.state == plain.state.rng.bit_generator.state


def test_learners_hold_together_what_they_would_alone(base, pruned, facts):
    def learners():
        made = [SleepingLM(base, replace(SPEC, steps=3), seed=i) for i in range(2)]
        made[1].state = pruned.copy()
        for i, learner in enumerate(made):
            learner.inject(facts[4 + i : 6 + i])
        return made

    together, alone = learners(), learners()
    sleep_together(together)
    for one, other in zip(together, alone, strict=True):
        other.sleep()
        assert nll(one, facts[:8]) == pytest.approx(nll(other, facts[:8]), abs=1e-3)


def test_fact_that_is_taught_again_is_no_longer_settled(settled, facts):
    settled.inject([replace(facts[0], object="Lima")])
    assert facts[0].key in settled.state.ledger and facts[0].key not in settled.state.settled
    assert len(settled.state.settled) == 3


def test_forgotten_facts_are_not_held(settled, facts, unchanged):
    settled.inject(facts[4:5])
    assert settled.prune([facts[0].key, facts[4].key]).settled == ()
    assert not {facts[0].key, facts[4].key} & {*settled.state.settled, *settled.state.ledger}
    with unchanged(settled), pytest.raises(EditError, match="expected a key of the ledger"):
        settled.prune([facts[0].key])
    settled.reset()
    assert settled.state.settled == {}


def test_settled_facts_are_saved(settled, base, tmp_path):
    settled.save(tmp_path)
    other = SleepingLM(base)
    other.load(tmp_path)
    assert other.state.settled == settled.state.settled


@pytest.mark.parametrize(
    ("key", "value"),
    [("settled", -1), ("settled_rows", -1), ("settled_weight", -0.5), ("rehearsal_tokens", -1), ("spacing", 0)],
)
def test_impossible_settings_are_refused(key, value):
    with pytest.raises(SettingError, match=f"{key}: expected at least"):
        SleepSpec(**{key: value})
