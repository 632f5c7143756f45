"""Gated adapters: a row per fact is solved for, a night trains its output, and others are left alone."""

from dataclasses import replace

import pytest
import torch

from sleepgym.consolidation.adapters import joined_terms
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import Editor, spec_for
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Term
from sleepgym.memory.owners import ADAPTER
from sleepgym.settings import SettingError
from sleepgym.sleeper import SleepingLM, sleep_together

SPEC = SleepSpec(adapter="gated", steps=6, stop_nll=0.0, learning_rate=5e-3, rehearsal_rows=0, scales=(1.0, 0.0))


@pytest.fixture(scope="module")
def slept(base, facts):
    """A learner after two nights, of three facts and of two more, and its adapters after each."""
    learner, adapters = SleepingLM(base, SPEC, seed=0), []
    for taught in (facts[:3], facts[3:5]):
        learner.inject(taught)
        report = learner.sleep()
        assert not report.rolled_back and set(report.advanced) >= {fact.key for fact in taught}
        adapters.append(learner.state.memory.terms[ADAPTER])
    return learner, adapters


def test_slow_weights_have_a_gated_row_per_fact_on_every_edited_layer(base, slept):
    _, (first, second) = slept
    modules = {base.lm.blocks[layer].down_proj for layer in base.editor.spec.layers}
    assert set(first.factors) == set(second.factors) == set(second.gates) == modules
    for module in modules:
        assert [len(term.factors[module][0]) for term in (first, second)] == [3, 5]
        assert second.gates[module].tolist() == [SPEC.row_gate] * 5


def test_rows_stay_and_outputs_are_trained(base, slept, facts):
    _, (first, second) = slept
    for module, (a, b) in first.factors.items():
        assert torch.equal(second.factors[module][0][:3], a)
        assert not torch.equal(second.factors[module][1][:, :3], b), "held facts are trained on with the new ones"


def test_facts_are_recalled_without_their_edits_and_others_answer_as_ever(base, slept, facts, world):
    learner, _ = slept
    assert all(not term.scale for owner, term in learner.state.memory.terms.items() if owner != ADAPTER)
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
        theirs = other.state.memory.terms[ADAPTER].factors
        for module, (_, b) in one.state.memory.terms[ADAPTER].factors.items():
            torch.testing.assert_close(b, theirs[module][1], atol=2e-3, rtol=2e-2)


def test_rem_goes_on_with_the_same_rows(base, facts):
    learner = SleepingLM(base, replace(SPEC, rem_steps=2), seed=0)
    learner.inject(facts[:2])
    learner.sleep()
    adapter = learner.state.memory.terms[ADAPTER]
    assert all(gates.tolist() == [SPEC.row_gate] * 2 for gates in adapter.gates.values())


def test_a_checkpoint_goes_on_as_the_learner_would(base, slept, facts, tmp_path):
    learner, _ = slept
    learner.save(tmp_path)
    again = SleepingLM(base, SPEC)
    again.load(tmp_path)
    original = learner.__copy__()
    for each in (again, original):
        each.inject(facts[5:6])
        each.sleep()
    for module, (a, b) in original.state.memory.terms[ADAPTER].factors.items():
        found = again.state.memory.terms[ADAPTER].factors[module]
        assert torch.equal(found[0], a) and torch.equal(found[1], b)


def test_joined_terms_add_up_and_rows_without_gates_always_act():
    def term(rank, **gates):
        return Term({"m": (torch.ones(rank, 4), torch.ones(3, rank))}, gates=gates)

    found = joined_terms([term(1), term(2, m=torch.tensor([0.5, 0.7]))])
    assert found.gates["m"].tolist() == pytest.approx([-torch.inf, 0.5, 0.7])
    assert found.factors["m"][0].shape == (3, 4) and found.factors["m"][1].shape == (3, 3)
    assert joined_terms([term(1), term(1)]).gates == {} and joined_terms([]).factors == {}


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
