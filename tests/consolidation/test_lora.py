from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from sleepgym.consolidation.lessons import lessons
from sleepgym.consolidation.lora import AdapterTraining, HeldQuestions, new_adapter, train_adapters
from sleepgym.consolidation.losses import AnswerRows, Texts
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.lm.continuation import Continuation
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import hooked
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.rehearsal import Rehearsal

SPEC = SleepSpec(steps=4, rehearsal_rows=4)
LOWEST = 1


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def course(base, facts, rng, spec=SPEC, adapter=None, memory=None):
    adapter = adapter or new_adapter(base.lm, spec, LOWEST, rng)
    return AdapterTraining(memory or Memory(), adapter, lessons(base.lm, facts), rng)


def train(base, facts, rng, spec=SPEC, adapter=None, memory=None, **options):
    (trained,) = train_adapters(base.rehearsal, [course(base, facts, rng, spec, adapter, memory)], spec, **options)
    return trained


def logits_of(base, trained):
    """Logits of held-out text with a trained adapter."""
    memory = Memory()
    memory.put("lora", trained.factors)
    with torch.no_grad(), base.overlay.use(memory):
        return base.lm.model(base.lm.pad(base.statistics.held_out[:4])).logits


@pytest.mark.parametrize("first_layer", [0, 1])
def test_new_adapter_sits_on_every_linear_above_the_first_layer_and_changes_nothing(base, rng, first_layer):
    adapter = new_adapter(base.lm, replace(SPEC, rank=3), first_layer, rng)
    assert set(adapter) == {name for block in base.lm.blocks[first_layer:] for name in block.linears}
    assert all(a.shape[0] == 3 and a.abs().sum() > 0 and b.count_nonzero() == 0 for a, b in adapter.values())
    memory = Memory()
    memory.put("lora", adapter)
    ids = torch.tensor([base.statistics.held_out[0]])
    with torch.no_grad():
        bare = base.lm.model(ids).logits
        with base.overlay.use(memory):
            assert torch.equal(base.lm.model(ids).logits, bare)


def test_training_lowers_the_nll_of_the_lessons(base, facts, rng):
    seen = train(base, facts[:3], np.random.default_rng(0), replace(SPEC, steps=1))
    trained = train(base, facts[:3], rng, replace(SPEC, steps=12))
    assert trained.nll < seen.nll


def test_adapters_can_be_limited_to_some_linears(base, rng):
    adapter = new_adapter(base.lm, replace(SPEC, targets=("q_proj", "down_proj")), 1, rng)
    assert {name.rpartition(".")[2] for name in adapter} == {"q_proj", "down_proj"} and len(adapter) == 2


@pytest.mark.parametrize(("first_layer", "targets"), [(2, ()), (0, ("c_fc",))])
def test_adapter_without_a_place_is_refused(base, rng, first_layer, targets):
    with pytest.raises(SleepError, match=r"expected linears named .* found 2 blocks with"):
        new_adapter(base.lm, replace(SPEC, targets=targets), first_layer, rng)


def test_start_is_not_modified(base, facts, rng):
    adapter = new_adapter(base.lm, SPEC, LOWEST, rng)
    before = {name: (a.clone(), b.clone()) for name, (a, b) in adapter.items()}
    trained = train(base, facts[:2], rng, adapter=adapter)
    assert all(torch.equal(m, n) for name in adapter for m, n in zip(adapter[name], before[name], strict=True))
    assert any(not torch.equal(trained.factors[name][1], adapter[name][1]) for name in adapter)
    assert not any(m.requires_grad for pair in trained.factors.values() for m in pair)


def test_same_seed_gives_the_same_adapter_bitwise(base, facts):
    one, two = (train(base, facts[:2], np.random.default_rng(3)) for _ in range(2))
    assert one.nll == two.nll
    for name, pair in one.factors.items():
        assert all(torch.equal(m, n) for m, n in zip(pair, two.factors[name], strict=True))


def test_training_stops_once_every_lesson_is_known(base, facts, rng):
    trained = train(base, facts[:2], rng, replace(SPEC, steps=40))
    assert trained.steps < 40
    assert trained.nll < SPEC.stop_nll


def test_progress_counts_steps(base, facts, rng):
    seen = []
    train(base, facts[:2], rng, progress=lambda step, steps: seen.append((step, steps)))
    assert seen == [(i, 4) for i in range(1, 5)]


def test_rehearsal_holds_the_model_to_what_it_said(base, facts):
    def drift(weight):
        spec = replace(SPEC, steps=15, stop_nll=0.0, rehearsal_rows=8, rehearsal_weight=weight)
        memory, ids = Memory(), base.lm.pad(base.statistics.held_out[:8])
        memory.put("lora", train(base, facts[:3], np.random.default_rng(0), spec).factors)
        with torch.no_grad():
            before = base.lm.model(ids).logits.log_softmax(-1)
            with base.overlay.use(memory):
                after = base.lm.model(ids).logits.log_softmax(-1)
        return float((before.exp() * (before - after)).sum(-1).mean())

    assert drift(5.0) < 0.5 * drift(0.0)


def test_nothing_is_trained_when_everything_is_known(base, facts, rng):
    first = train(base, facts[:2], rng, replace(SPEC, steps=40))
    again = train(base, facts[:2], rng, replace(SPEC, steps=40), adapter=first.factors)
    assert again.steps == 0 and again.nll < SPEC.stop_nll
    for name, pair in first.factors.items():
        assert all(torch.equal(m, n) for m, n in zip(pair, again.factors[name], strict=True))


def test_more_lessons_than_a_step_takes_are_all_learnt(base, facts, rng):
    trained = train(base, facts[:4], rng, replace(SPEC, steps=60, lessons=3))
    memory = Memory()
    memory.put("lora", trained.factors)
    assert trained.steps < 60
    assert trained.nll < SPEC.stop_nll


def test_what_is_kept_of_the_lower_blocks_changes_nothing(base, facts, monkeypatch):
    kept = train(base, facts[:3], np.random.default_rng(0))
    monkeypatch.setattr(Continuation, "_agrees", lambda run, rows: False)
    fresh = replace(base, rehearsal=Rehearsal(base.overlay, base.rehearsal.rows[:64]))
    small = replace(base, rehearsal=Rehearsal(base.overlay, base.rehearsal.rows[:64]))
    whole = train(fresh, facts[:3], np.random.default_rng(0))
    monkeypatch.undo()
    partly = train(small, facts[:3], np.random.default_rng(0))
    assert whole.steps == partly.steps == kept.steps
    for name, (a, b) in whole.factors.items():
        torch.testing.assert_close(b @ a, partly.factors[name][1] @ partly.factors[name][0], atol=1e-4, rtol=1e-2)


def test_memory_in_force_is_trained_on_top_of(base, facts):
    memory = Memory()
    memory.put("lora", train(base, facts[:2], np.random.default_rng(0), replace(SPEC, steps=40)).factors)
    spec = replace(SPEC, steps=40)
    again = train(base, facts[:2], np.random.default_rng(1), spec, memory=memory)
    assert again.steps == 0, "what the memory in force knows need not be learnt"
    more = train(base, facts[:3], np.random.default_rng(1), spec, memory=memory)
    assert 0 < more.steps < 40


def test_courses_in_one_loop_end_up_as_they_would_alone(base, facts):
    def courses():
        return [course(base, facts[i : 2 * i + 2], np.random.default_rng(i)) for i in range(3)]

    spec = replace(SPEC, steps=25)
    together = train_adapters(base.rehearsal, courses(), spec)
    alone = [train_adapters(base.rehearsal, [one], spec)[0] for one in courses()]
    assert [t.steps for t in together] == [t.steps for t in alone]
    assert len({t.steps for t in together}) > 1, "they finish at different times"
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(logits_of(base, one), logits_of(base, other), atol=1e-4, rtol=0)


def test_passes_of_a_large_vocabulary_are_small_and_teach_the_same(base, facts, monkeypatch):
    spec = replace(SPEC, stop_nll=0.0)  # all steps are taken
    probes = [raw_probe(base.lm, fact) for fact in facts[4:7]]
    known = [probe.ids[: probe.object_start] for probe in probes]
    held = [HeldQuestions(known[:size], Memory(), 2, 4.0) for size in (3, 1)]

    def courses():
        return [
            replace(course(base, facts[:size], np.random.default_rng(size), spec), held=(each,))
            for size, each in zip((4, 1), held, strict=True)
        ]

    at_once = train_adapters(base.rehearsal, courses(), spec)
    most, room = [], 5
    log_probs = AnswerRows.log_probs

    def counted(rows, chosen, *arguments):
        found = log_probs(rows, chosen, *arguments)
        most.append(len(found[0]) / len(chosen))
        return found

    monkeypatch.setattr(AnswerRows, "log_probs", counted)
    monkeypatch.setattr("sleepgym.consolidation.losses._NUMBERS", room * base.lm.vocabulary)
    in_parts = train_adapters(base.rehearsal, courses(), spec)
    assert max(most) <= room
    for one, other in zip(at_once, in_parts, strict=True):
        assert one.steps == other.steps == spec.steps
        assert one.nll == pytest.approx(other.nll, rel=1e-3)
        torch.testing.assert_close(logits_of(base, one), logits_of(base, other), atol=1e-3, rtol=0)


def test_without_rehearsal_there_is_nothing_to_be_held_to(base, facts):
    for spec in (replace(SPEC, rehearsal_rows=0), replace(SPEC, rehearsal_weight=0.0)):
        assert train(base, facts[:1], np.random.default_rng(0), spec).steps == 4


def test_nan_loss_is_an_error_that_says_what_to_do(base, facts, rng):
    poison = base.lm.linear(base.lm.blocks[-1].down_proj).register_forward_hook(lambda m, a, out: out * torch.nan)
    with hooked(poison), pytest.raises(SleepError, match=r"expected a finite loss .* at step 1; .*learning_rate"):
        train(base, facts[:2], rng)


@pytest.mark.parametrize("count", [0, 3, 10_000])
def test_rehearsal_reads_as_many_tokens_of_each_row_as_it_is_told(base, facts, monkeypatch, count):
    drawn = []
    monkeypatch.setattr(Texts, "divergence", _noted(Texts.divergence, drawn))
    train(base, facts[:1], np.random.default_rng(0), replace(SPEC, steps=2, rehearsal_tokens=count))
    assert len(drawn) == 2
    for (texts,) in drawn:
        assert len(texts) == SPEC.rehearsal_rows
        for row, columns in texts.items():
            every = list(range(len(base.rehearsal.rows[row]) - 1))
            assert columns == every if count != 3 else len(columns) == 3 and set(columns) <= set(every)
    assert drawn[0] != drawn[1], "others at every step"


def test_without_lessons_nothing_is_trained(base, facts, rng):
    nothing, something = course(base, [], rng), course(base, facts[:1], rng)
    trained, other = train_adapters(base.rehearsal, [nothing, something], SPEC)
    assert (trained.steps, trained.nll) == (0, 0.0) and other.steps == 4
    assert all(
        torch.equal(m, n) for name, p in trained.factors.items() for m, n in zip(p, nothing.adapter[name], strict=True)
    )


def _noted(function, calls):
    def noted(self, drawn, *args):
        calls.append(drawn)
        return function(self, drawn, *args)

    return noted


def test_model_keeps_no_gradients(base, facts, rng):
    train(base, facts[:2], rng)
    assert all(p.grad is None for p in base.lm.model.parameters())


def test_adapters_of_a_half_precision_model_are_trained_in_single_precision(small_llm, rng):
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    lm = small_llm(AutoModelForCausalLM.from_config(config).to(torch.bfloat16))
    adapter = new_adapter(lm, SPEC, 1, rng)
    assert {m.dtype for pair in adapter.values() for m in pair} == {torch.float32}
    overlay = Overlay(lm)
    rows = [Encoded((3, 4, 5, 6 + i), 3) for i in range(3)]
    rehearsal = Rehearsal(overlay, [(7, 8, 9), (10, 11, 12, 13)])
    (trained,) = train_adapters(rehearsal, [AdapterTraining(Memory(), adapter, rows, rng)], SPEC)
    assert trained.steps == 4 and np.isfinite(trained.nll)
    assert {m.dtype for pair in trained.factors.values() for m in pair} == {torch.float32}
