"""Gated adapters: a row per fact is solved for, a night trains its output, and others are left alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from sleepgym.consolidation.adapters import joined_terms, put_adapter, rows_in
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import Editor, spec_for
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory, Term
from sleepgym.memory.owners import ADAPTER, EDIT, row_of
from sleepgym.settings import SettingError
from sleepgym.sleeper import SleepingLM, sleep_together

SPEC = SleepSpec(adapter="gated", steps=6, stop_nll=0.0, learning_rate=5e-3, rehearsal_rows=0, scales=(1.0, 0.0))


@pytest.fixture(scope="module")
def slept(base, facts):
    """A learner after two nights, of three facts and of two more, and its rows after each."""
    learner, rows = SleepingLM(base, SPEC, seed=0), []
    for taught in (facts[:3], facts[3:5]):
        learner.inject(taught)
        report = learner.sleep()
        assert not report.rolled_back and set(report.advanced) >= {fact.key for fact in taught}
        rows.append(rows_in(learner.state.memory))
        assert report.rank == len(rows[-1])
    return learner, rows


def test_slow_weights_are_a_gated_row_per_fact_on_every_edited_layer(base, slept, facts):
    learner, (first, second) = slept
    modules = {base.lm.blocks[layer].down_proj for layer in base.editor.spec.layers}
    assert list(first) == [row_of(fact.key) for fact in facts[:3]] and ADAPTER not in learner.state.memory.terms
    assert set(second) == {row_of(fact.key) for fact in facts[:5]}
    for term in second.values():
        assert set(term.factors) == set(term.gates) == modules and term.rank == 1
        assert all(gate.tolist() == [SPEC.row_gate] for gate in term.gates.values())


def test_rows_stay_and_outputs_are_trained(slept):
    _, (first, second) = slept
    for owner, term in first.items():
        for module, (a, b) in term.factors.items():
            assert second[owner].factors[module][0] is a
            assert not torch.equal(second[owner].factors[module][1], b), "held facts are trained on with the new ones"


def test_a_forgotten_fact_leaves_nothing_behind(base, slept, facts):
    learner = copy.copy(slept[0])
    asked = [raw_probe(base.lm, facts[0])]
    assert learner.score(asked).correct.all()
    learner.prune([facts[0].key])
    assert torch.equal(learner.score(asked).nll, SleepingLM(base).score(asked).nll)
    learner.prune()
    learner.prune([facts[1].key])
    assert row_of(facts[1].key) not in learner.state.memory.terms, "once settled as well"


def test_facts_are_recalled_without_their_edits_and_others_answer_as_ever(base, slept, facts, world):
    learner, _ = slept
    assert not any(t.scale for owner, t in learner.state.memory.terms.items() if owner.startswith(EDIT))
    assert learner.audit().recall == 1
    asked = [raw_probe(base.lm, fact) for fact in world.known_facts()[:200]]
    bare = SleepingLM(base).score(asked)
    now = learner.score(asked)
    same = (now.nll - bare.nll).abs() < 1e-5
    assert same.float().mean() > 0.5 and now.correct[bare.correct].float().mean() > 0.98


def test_rows_hold_facts_before_any_training(base, facts):
    learner = SleepingLM(base, replace(SPEC, stop_nll=0.3), seed=0)
    for count, taught in ((2, facts[:2]), (3, facts[2:3])):
        learner.inject(taught)
        report = learner.sleep()
        assert report.steps == 0 and report.rank == count and {fact.key for fact in taught} <= set(report.advanced)
    assert learner.audit().recall == 1


def test_plain_night_moves_the_answers_about_all_others(base, facts, world):
    learner = SleepingLM(base, replace(SPEC, adapter="continued"), seed=0)
    learner.inject(facts[:3])
    learner.sleep()
    asked = [raw_probe(base.lm, fact) for fact in world.known_facts()[:200]]
    assert ((learner.score(asked).nll - SleepingLM(base).score(asked).nll).abs() > 1e-5).all()


def test_learners_sleep_together_as_they_would_alone(base, facts):
    def learners():
        pair = [SleepingLM(base, SPEC, seed=seed) for seed in (1, 2)]
        pair[0].inject(facts[:2])
        pair[1].inject(facts[2:6])
        return pair

    together, alone = learners(), learners()
    for one, other in zip(sleep_together(together), [learner.sleep() for learner in alone], strict=True):
        assert (one.steps, one.advanced) == (other.steps, other.advanced)
    for one, other in zip(together, alone, strict=True):
        theirs = joined_terms(list(rows_in(other.state.memory).values())).factors
        for module, (_, b) in joined_terms(list(rows_in(one.state.memory).values())).factors.items():
            torch.testing.assert_close(b, theirs[module][1], atol=2e-3, rtol=2e-2)


def test_rem_goes_on_with_the_same_rows(base, facts):
    learner = SleepingLM(base, replace(SPEC, rem_steps=2), seed=0)
    learner.inject(facts[:2])
    learner.sleep()
    rows = rows_in(learner.state.memory)
    assert list(rows) == [row_of(fact.key) for fact in facts[:2]] and all(term.gates for term in rows.values())


def test_a_checkpoint_goes_on_as_the_learner_would(base, slept, facts, tmp_path):
    learner, _ = slept
    learner.save(tmp_path)
    again = SleepingLM(base, SPEC)
    again.load(tmp_path)
    original = copy.copy(learner)
    for each in (again, original):
        each.inject(facts[5:6])
        each.sleep()
    rows, found = rows_in(original.state.memory), rows_in(again.state.memory)
    assert list(rows) == list(found) and len(rows) == 6
    for owner, term in rows.items():
        for module, (a, b) in term.factors.items():
            assert torch.equal(found[owner].factors[module][0], a) and torch.equal(found[owner].factors[module][1], b)


def test_joined_terms_add_up_and_rows_without_gates_always_act():
    def term(rank, **gates):
        return Term({"m": (torch.ones(rank, 4), torch.ones(3, rank))}, gates=gates)

    found = joined_terms([term(1), term(2, m=torch.tensor([0.5, 0.7]))])
    assert found.gates["m"].tolist() == pytest.approx([-torch.inf, 0.5, 0.7])
    assert found.factors["m"][0].shape == (3, 4) and found.factors["m"][1].shape == (3, 3)
    assert joined_terms([term(1), term(1)]).gates == {} and joined_terms([]).factors == {}


def test_each_row_gets_its_own_outputs_also_where_rows_are_on_different_modules():
    """As after an edit recipe with other layers."""
    memory, one = Memory(), torch.ones(1, 3)
    memory.put(row_of(("a", "r")), {"m": (one, torch.zeros(2, 1))})
    memory.put(row_of(("b", "r")), {"n": (one, torch.zeros(2, 1))})
    memory.put(row_of(("c", "r")), {"m": (one, torch.zeros(2, 1)), "n": (one, torch.zeros(2, 1))})
    both = one.repeat(2, 1)
    trained = {"m": (both, torch.tensor([[1.0, 3.0]] * 2)), "n": (both, torch.tensor([[2.0, 4.0]] * 2))}
    put_adapter(memory, trained, SleepSpec(adapter="gated"))
    found = [{name: b[0, 0].item() for name, (_, b) in term.factors.items()} for term in memory.terms.values()]
    assert found == [{"m": 1.0}, {"n": 2.0}, {"m": 3.0, "n": 4.0}]


def test_a_fact_that_changes_is_learned_anew(base, facts, world):
    learner = SleepingLM(base, replace(SPEC, steps=20), seed=0)
    learner.inject(facts[:2])
    learner.sleep()
    changed = world.update(np.random.default_rng(0), facts[0])
    learner.inject([changed])
    report = learner.sleep()
    assert changed.key in report.advanced and report.rank == 2
    assert learner.score([raw_probe(base.lm, changed), raw_probe(base.lm, facts[1])]).correct.all()


@pytest.mark.parametrize("gate", [-0.1, 1.0])
def test_impossible_gates_are_refused(gate):
    with pytest.raises(SettingError, match="row_gate: expected"):
        SleepSpec(row_gate=gate)


def test_nights_are_gated_where_edits_are(base):
    gated = replace(base, editor=Editor(base.overlay, base.statistics, replace(base.editor.spec, gate=0.4)))
    assert SleepingLM(base).sleep_spec == SleepSpec()
    assert (SleepingLM(gated).sleep_spec.adapter, SleepingLM(gated).sleep_spec.row_gate) == ("gated", 0.4)
    assert SleepingLM(gated, SPEC).sleep_spec == SPEC


def test_gate_of_a_pretrained_model_is_that_of_its_edits():
    learner = SleepingLM.from_pretrained("tiny", gate=0.5)
    assert learner.base.editor.spec == replace(spec_for(learner.lm), gate=0.5)
    with pytest.raises(SettingError, match="gate: expected below 1"):
        SleepingLM.from_pretrained("tiny", gate=1.0)
