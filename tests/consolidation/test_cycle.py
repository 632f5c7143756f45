from dataclasses import replace

import pytest
import torch

from sleepgym.consolidation import cycle
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.editing import owner_of
from sleepgym.facts import Fact
from sleepgym.ledger import Entry
from sleepgym.lm.language_model import hooked
from sleepgym.sleeper import SleepingLM
from sleepgym.state import State

SCALES = (1.0, 0.5, 0.1, 0.0)


@pytest.fixture(scope="module")
def evening(base, facts):
    """The state of a learner with five facts, before its first night."""
    learner = SleepingLM(base)
    learner.inject(facts[:5])
    return learner.state


@pytest.fixture
def awake(learner, evening):
    """A learner with five facts, not yet slept."""
    learner.state = evening.copy()
    return learner


@pytest.fixture
def state():
    return State.fresh(capacity=8)


def put(state, name, stage=0):
    fact = Fact(name, f"{name} lives in", "Oslo", relation="city")
    state.ledger.put(Entry(fact, stage=stage, scale=SCALES[stage]))
    state.memory.put(owner_of(fact), {"m": (torch.ones(1, 3), torch.ones(2, 1))}, SCALES[stage])
    return fact


# ------------------------------------------------------------------------------------------ dissolving


@pytest.mark.parametrize(("stage", "after"), [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_fact_that_passes_rises_one_stage_and_its_edit_dissolves(state, stage, after):
    fact = put(state, "Tom Lork", stage)
    advanced, retreated, released = cycle.dissolve(state, {fact.key: True}, SleepSpec())
    assert (state.ledger[fact.key].stage, state.ledger[fact.key].scale) == (after, SCALES[after])
    assert state.memory.terms[owner_of(fact)].scale == SCALES[after]
    assert advanced == ([fact.key] if after > stage else [])
    assert retreated == []
    assert released == ([fact.key] if stage == 2 else [])


@pytest.mark.parametrize("stage", range(4))
def test_fact_that_fails_gets_its_edit_back_at_full_strength(state, stage):
    fact, other = put(state, "Tom Lork", stage), put(state, "Mina Trent", 1)
    advanced, retreated, released = cycle.dissolve(state, {fact.key: False, other.key: True}, SleepSpec())
    assert (state.ledger[fact.key].stage, state.memory.terms[owner_of(fact)].scale) == (0, 1.0)
    assert (advanced, retreated, released) == ([other.key], [fact.key], [])


def test_retreat_gives_facts_their_edits_back(state):
    fact, other = put(state, "Tom Lork", 2), put(state, "Mina Trent", 1)
    cycle.retreat(state, [fact.key], SleepSpec())
    assert (state.ledger[fact.key].stage, state.memory.terms[owner_of(fact)].scale) == (0, 1.0)
    assert state.ledger[other.key].stage == 1


# ------------------------------------------------------------------------------------------ one night


def test_lessons_are_each_fact_as_statement_and_as_answer(base, facts):
    bare = replace(facts[0], questions=())
    found = cycle.lessons(base.lm, [facts[1], bare])
    texts = [base.lm.tokenizer.decode(row.ids[: row.object_start], skip_special_tokens=True) for row in found]
    assert len(found) == 4
    for text, part in zip(texts, [facts[1].prompt, facts[1].questions[0], bare.prompt, bare.prompt], strict=True):
        assert part in text
    answers = [base.lm.tokenizer.decode(row.object_ids) for row in found]
    assert all(fact.object in answer for fact, answer in zip([facts[1], facts[1], bare, bare], answers, strict=True))
    assert all(answer.endswith(".") for answer in answers[::2])
    assert all(answer.endswith(base.lm.tokenizer.eos_token) for answer in answers[1::2]), "an answer has an end"


def test_gate_is_not_fooled_by_edits(awake):
    assert awake.audit().recall == 1.0, "the edits recall the facts"
    passed = cycle.gate(awake.base.overlay, awake.state)
    assert set(passed) == set(awake.state.ledger)
    assert not any(passed.values()), "slow weights know nothing yet"


def test_audit_judges_a_sunken_fact_in_chat_and_a_fresh_one_raw(base, facts):
    fresh, sunken = Entry(facts[0]), Entry(facts[0], stage=1)
    assert cycle.judged_probe(base.lm, fresh) == cycle.raw_probe(base.lm, facts[0])
    assert cycle.judged_probe(base.lm, sunken) == cycle.chat_probe(base.lm, facts[0])


def test_facts_sink_night_by_night_and_edits_follow_the_schedule(awake):
    for night in range(1, 4):
        stages = {key: entry.stage for key, entry in awake.state.ledger.items()}
        report = awake.sleep()
        assert not report.rolled_back
        assert report.advanced, "facts advance"
        for key, entry in awake.state.ledger.items():
            assert entry.stage == (stages[key] + 1 if key in report.advanced else 0)
            assert entry.scale == SCALES[entry.stage]
            assert awake.state.memory.terms[owner_of(entry.fact)].scale == SCALES[entry.stage]
        assert (len(report.released) > 0) == (night == 3)
    assert report.recall_after >= report.recall_before


def test_nights_train_one_adapter_on_and_on(awake):
    awake.sleep()
    rank = awake.state.memory.terms[cycle.ADAPTER].rank
    awake.sleep()
    assert awake.state.memory.terms[cycle.ADAPTER].rank == rank == awake.sleep_spec.rank
    assert len(awake.state.memory.terms) == 6


def test_night_without_facts_changes_nothing(learner, unchanged):
    with unchanged(learner):
        report = learner.sleep()
    assert (report.steps, report.advanced, report.rolled_back) == (0, (), False)


def test_degraded_facts_are_refreshed_before_they_are_consolidated(awake):
    key = next(iter(awake.state.ledger))
    awake.state.memory.remove(owner_of(awake.state.ledger[key].fact))
    report = awake.sleep()
    assert report.refreshed == (key,) and report.edits == 1
    assert awake.state.ledger[key].writes == 2


def test_refreshing_can_be_left_out(awake):
    key = next(iter(awake.state.ledger))
    awake.state.memory.remove(owner_of(awake.state.ledger[key].fact))
    awake.sleep_spec = replace(awake.sleep_spec, refresh=False)
    report = awake.sleep()
    assert report.edits == 0
    assert awake.state.ledger[key].writes == 1


# ------------------------------------------------------------------------------------------ failed nights


def test_harmful_night_is_rolled_back(awake, facts):
    awake.sleep_spec = replace(awake.sleep_spec, max_perplexity_ratio=0.5)
    before, terms = awake.state.copy(), dict(awake.state.memory.terms)
    probes = [cycle.raw_probe(awake.lm, fact) for fact in facts]
    margins = awake.score(probes).margin
    report = awake.sleep()
    assert report.rolled_back
    assert (report.advanced, report.retreated, report.released, report.refreshed) == ((), (), (), ())
    assert report.recall_after == report.recall_before
    assert all(awake.state.memory.terms[owner] is term for owner, term in terms.items())
    assert list(awake.state.memory.terms) == list(terms)
    assert dict(awake.state.ledger) == dict(before.ledger)
    assert torch.equal(awake.score(probes).margin, margins)


def test_repeated_night_does_not_fail_in_the_same_way(awake):
    awake.sleep_spec = replace(awake.sleep_spec, max_perplexity_ratio=0.5)
    assert awake.sleep().nll != awake.sleep().nll


def test_diverged_night_leaves_everything_as_it_was(awake, unchanged):
    def poison(module, args, output):
        return output * torch.nan if torch.is_grad_enabled() else output

    module = awake.lm.linear(awake.lm.blocks[-1].down_proj)
    with unchanged(awake), hooked(module.register_forward_hook(poison)), pytest.raises(SleepError, match="finite loss"):
        awake.sleep()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_night_leaves_everything_as_it_was(awake, unchanged, error):
    awake.sleep()

    def interrupt(what, done, total):
        raise error

    with unchanged(awake), pytest.raises(error):
        awake.sleep(progress=interrupt)
    assert awake.sleep().steps > 0, "the next night is as good as any"


def test_night_that_ends_in_weights_beyond_all_bounds_leaves_everything_as_it_was(awake, unchanged):
    awake.sleep_spec = replace(awake.sleep_spec, learning_rate=float("inf"))
    with unchanged(awake), pytest.raises((SleepError, ValueError)):
        awake.sleep()
