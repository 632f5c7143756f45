import os
import signal
from dataclasses import replace

import pytest
import torch

from sleepgym.cli.signals import terminating_cleanly
from sleepgym.consolidation import night, seen
from sleepgym.consolidation.night import Night
from sleepgym.consolidation.spec import SleepError
from sleepgym.facts import Fact
from sleepgym.lm.language_model import hooked
from sleepgym.memory.owners import ADAPTER, owner_of
from sleepgym.sleeper import SleepingLM, sleep_together

STEPS = [step.__name__ for step in night.STEPS]


def quiet(what, done, total):
    """Reports nothing."""


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


# ------------------------------------------------------------------------------------------ one night


def test_gate_is_not_fooled_by_edits(awake):
    assert awake.audit().recall == 1.0, "the edits recall the facts"
    draft = Night(awake.base, awake.sleep_spec, awake.state)
    night.gate([draft], quiet)
    assert set(draft.passed) == set(awake.state.ledger)
    assert not any(draft.passed.values()), "slow weights know nothing yet"


def test_gate_of_a_whole_night_lets_all_pass_or_none(awake, facts):
    awake.sleep()
    awake.inject([facts[7]])
    for gate, passes in (("fact", 5), ("night", 0)):
        draft = Night(awake.base, replace(awake.sleep_spec, gate=gate), awake.state.copy())
        night.gate([draft], quiet)
        assert sum(draft.passed.values()) == passes


def test_facts_sink_night_by_night_and_edits_follow_the_schedule(awake):
    for count in range(1, 4):
        stages = {key: entry.stage for key, entry in awake.state.ledger.items()}
        report = awake.sleep()
        assert not report.rolled_back
        assert report.advanced, "facts advance"
        for key, entry in awake.state.ledger.items():
            assert entry.stage > stages[key] if key in report.advanced else entry.stage in (0, 3)
            scale = awake.sleep_spec.scales[entry.stage]
            assert awake.state.memory.terms[owner_of(entry.fact)].scale == awake.state.scale_of(key) == scale
        assert awake.state.nights == count
    assert report.recall_after == 1.0
    assert {entry.stage for entry in awake.state.ledger.values()} == {3}


def test_edit_that_spoils_what_slow_weights_know_is_dissolved_faster(awake):
    awake.sleep()
    draft = Night(awake.base, awake.sleep_spec, awake.state.copy())
    key = next(iter(draft.state.ledger))
    owner = owner_of(draft.state.ledger[key].fact)
    term = draft.state.memory.terms[owner]
    # An edit that says something else entirely, as loud as can be.
    loud = {module: (a, -1000 * b) for module, (a, b) in term.factors.items()}
    draft.state.memory.put(owner, loud, term.scale)
    night.gate([draft], quiet)
    assert draft.passed[key], "with edits switched off the fact is known"
    night.dissolve([draft], quiet)
    assert draft.state.ledger[key].stage == awake.sleep_spec.last_stage
    assert draft.state.memory.terms[owner].scale == 0.0
    assert draft.state.ledger[key].recalled


def test_facts_whose_turn_it_is_are_trained(awake):
    awake.sleep_spec = replace(awake.sleep_spec, facts=3)
    awake.state.nights = 5
    keys = list(awake.state.ledger)
    for key in keys[:2]:
        awake.state.ledger.update(key, stage=3, trained_at=1)
    awake.state.ledger.update(keys[0], trained_at=2)
    report = awake.sleep()
    assert set(report.trained) == set(keys[2:]), "what is not yet held by slow weights comes first"
    for key in keys:
        awake.state.ledger.update(key, stage=3)
    assert awake.sleep().trained[:2] == (keys[1], keys[0]), "then what was trained longest ago"


def test_nights_train_one_adapter_on_and_on(awake):
    awake.sleep()
    rank = awake.state.memory.terms[ADAPTER].rank
    awake.sleep()
    assert awake.state.memory.terms[ADAPTER].rank == rank == awake.sleep_spec.rank
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


def test_night_without_news_asks_nothing_twice(awake, monkeypatch):
    awake.sleep_spec = replace(awake.sleep_spec, scales=(1.0, 0.0))
    awake.sleep()
    asked, measured = [], []
    margins, perplexity = seen.margins, night.perplexity
    monkeypatch.setattr(
        seen, "margins", lambda overlay, memories, probes: asked.extend(*probes) or margins(overlay, memories, probes)
    )
    monkeypatch.setattr(night, "perplexity", lambda *args, **kwargs: measured.append(1) or perplexity(*args, **kwargs))
    report = awake.sleep()
    assert report.steps == 0 and report.perplexity_before == report.perplexity_after
    assert len(asked) == len(set(asked)) == 2 * len(awake.state.ledger) and len(measured) == 1


def test_facts_that_hold_rest_and_are_held(awake):
    reports = [awake.sleep() for _ in range(3)]
    keys = set(awake.state.ledger)
    assert [set(report.trained) for report in reports] == [keys, keys, set()]
    assert [set(report.held) for report in reports] == [set(), set(), keys]
    assert {entry.held for entry in awake.state.ledger.values()} == {3}


# ------------------------------------------------------------------------------------------ failed nights


def test_harmful_night_is_rolled_back_bitwise(awake, unchanged):
    awake.audit()
    awake.sleep_spec = replace(awake.sleep_spec, max_perplexity_ratio=0.5)
    with unchanged(awake):
        report = awake.sleep()
    assert report.rolled_back
    assert report.edits == 0 and report.refreshed == ()
    assert (report.advanced, report.retreated, report.released, report.refreshed) == ((), (), (), ())
    assert report.recall_after == report.recall_before


def test_night_after_an_undone_one_does_not_fail_in_the_same_way(awake):
    spec = awake.sleep_spec
    awake.sleep_spec = replace(spec, max_perplexity_ratio=0.5)
    first, second = awake.sleep(), awake.sleep()
    assert first.rolled_back and second.rolled_back and first.nll != second.nll
    assert awake.state.undone == 2 and awake.state.nights == 0
    awake.sleep_spec = spec
    assert not awake.sleep().rolled_back
    assert awake.state.undone == 0 and awake.state.nights == 1


def test_night_that_wipes_known_facts_is_rolled_back(awake, world, unchanged):
    awake.known = tuple(world.known_facts()[:8])
    awake.sleep_spec = replace(awake.sleep_spec, max_recall_drop=0.0)
    assert not awake.sleep().rolled_back

    def spoil(nights, progress):
        for one in nights:
            one.known_recall["before"] = 1.1

    steps = list(night.STEPS)
    steps.insert(-1, spoil)
    with unchanged(awake), pytest.MonkeyPatch.context() as patch:
        patch.setattr(night.sleep, "__defaults__", (tuple(steps),))
        assert awake.sleep().rolled_back


def test_diverged_night_leaves_everything_as_it_was(awake, unchanged):
    def poison(module, args, output):
        return output * torch.nan if torch.is_grad_enabled() else output

    module = awake.lm.linear(awake.lm.blocks[-1].down_proj)
    with unchanged(awake), hooked(module.register_forward_hook(poison)), pytest.raises(SleepError, match="finite loss"):
        awake.sleep()


@pytest.mark.parametrize("when", [0, 1], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_is_raised_around_a_step_leaves_everything_as_it_was(awake, unchanged, step, when):
    errors = [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError, SystemExit]
    error = errors[STEPS.index(step) % len(errors)]

    def interrupt(what, done, total):
        if (what, done, total) == (step, when, 1):
            raise error

    with unchanged(awake), pytest.raises(error):
        awake.sleep(progress=interrupt)


@pytest.mark.parametrize("passes", [1, 9, 25])
@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_whatever_is_raised_in_the_middle_of_a_pass_leaves_everything_as_it_was(awake, unchanged, error, passes):
    count = 0

    def fail(module, args, output):
        nonlocal count
        count += 1
        if count == passes:
            raise error

    awake.sleep_spec = replace(awake.sleep_spec, rem_steps=1, steps=4)
    module = awake.lm.linear(awake.lm.blocks[-1].down_proj)
    with unchanged(awake):
        handle = module.register_forward_hook(fail)
        with hooked(handle), pytest.raises(error):
            awake.sleep()
    assert awake.sleep().steps > 0, "the next night is as good as any"


def test_sigterm_in_a_night_leaves_everything_as_it_was(awake, unchanged):
    def terminate(what, done, total):
        if what == "consolidate" and done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with unchanged(awake), terminating_cleanly(), pytest.raises(SystemExit):
        awake.sleep(progress=terminate)


def test_model_that_is_ill_is_not_put_to_sleep(awake, unchanged):
    module = awake.lm.linear(awake.lm.blocks[0].down_proj)
    with (
        unchanged(awake),
        hooked(module.register_forward_hook(lambda m, a, out: out * torch.nan)),
        pytest.raises(SleepError, match="expected a model with a finite perplexity"),
    ):
        awake.sleep()


def test_night_that_ends_in_weights_beyond_all_bounds_leaves_everything_as_it_was(awake, unchanged):
    awake.sleep_spec = replace(awake.sleep_spec, learning_rate=float("inf"))
    with unchanged(awake), pytest.raises((SleepError, ValueError)):
        awake.sleep()


def test_steps_report_their_beginning_and_their_end(awake):
    seen = []
    awake.sleep(progress=lambda *call: seen.append(call))
    assert [what for what, done, total in seen if (done, total) == (0, 1)] == STEPS
    assert [what for what, done, total in seen if (done, total) == (1, 1)] == STEPS
    training = [call for call in seen if call[0] == "consolidate" and call[2] > 1]
    assert [done for _, done, _ in training] == list(range(1, len(training) + 1))


# ------------------------------------------------------------------------------------------ variants of a night


def test_dreams_are_measured_and_counted(awake):
    plain = SleepingLM(awake.base, awake.sleep_spec)
    plain.state = awake.state.copy()
    without = plain.sleep()
    awake.sleep_spec = replace(awake.sleep_spec, rem_steps=3)
    report = awake.sleep()
    assert report.steps == without.steps + 3
    assert report.perplexity_before_rem > 0 and without.perplexity_before_rem is None
    assert report.nll == without.nll, "the night before the dream is the same"


def test_nobody_dreams_in_a_night_that_trains_nothing(awake):
    awake.sleep()
    awake.sleep_spec = replace(awake.sleep_spec, rem_steps=3)
    reports = [awake.sleep() for _ in range(3)]
    rested = [report for report in reports if not report.trained]
    assert rested and all(report.held and not report.steps for report in rested)


def test_fresh_adapters_are_joined_and_kept_below_the_largest_rank(awake, facts):
    awake.sleep_spec = replace(awake.sleep_spec, adapter="fresh", rank=4, max_rank=8)
    ranks, lost = [], []
    for fact in facts[5:8]:
        report = awake.sleep()
        assert report.rank == awake.state.memory.terms[ADAPTER].rank
        ranks.append(report.rank)
        lost.append(report.truncation)
        awake.inject([fact])
    assert ranks == [4, 8, 8]
    assert lost[:2] == [0.0, 0.0] and 0 < lost[2] < 1


def test_edits_of_a_night_are_limited_to_the_worst_facts(awake):
    for key in list(awake.state.ledger)[:2]:
        awake.state.memory.remove(owner_of(awake.state.ledger[key].fact))
    worst = awake.audit().degraded[0]
    report = awake.sleep(edits=1)
    assert report.refreshed == (worst,)


# ------------------------------------------------------------------------------------------ several learners


def test_learners_sleep_together_as_they_would_alone(base, facts):
    def learners():
        made = [SleepingLM(base, seed=i) for i in range(3)]
        for i, learner in enumerate(made):
            learner.inject(facts[i : 2 * i + 3])
        return made

    together, alone = learners(), learners()
    reports = sleep_together(together)
    for one, other, report in zip(together, alone, reports, strict=True):
        single = other.sleep()
        assert (report.advanced, report.retreated, report.steps) == (single.advanced, single.retreated, single.steps)
        assert one.state.rng.bit_generator.state == other.state.rng.bit_generator.state
        ids = base.lm.pad([base.lm.encode(f.statement).ids for f in facts])
        with torch.no_grad():
            with base.overlay.use(one.state.memory):
                logits = base.lm.model(input_ids=ids).logits
            with base.overlay.use(other.state.memory):
                torch.testing.assert_close(logits, base.lm.model(input_ids=ids).logits, atol=1e-4, rtol=0)


def test_learner_without_facts_may_sleep_beside_others(base, facts, unchanged):
    empty, taught = SleepingLM(base), SleepingLM(base)
    taught.inject(facts[:2])
    with unchanged(empty):
        reports = sleep_together([empty, taught])
    assert (reports[0].steps, reports[0].advanced) == (0, ()) and reports[1].steps > 0


def test_learners_of_different_nights_do_not_sleep_together(base, facts, awake):
    other = SleepingLM(base, replace(awake.sleep_spec, rank=3))
    other.inject(facts[:1])
    with pytest.raises(SleepError, match="expected nights of one base and one spec"):
        sleep_together([awake, other])


def test_fact_without_questions_sinks_too(learner):
    learner.inject([Fact("Odette Kurvaline", "Odette Kurvaline lives in", "Oslo", relation="city")])
    assert learner.sleep().advanced
