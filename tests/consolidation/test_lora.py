from dataclasses import replace

import numpy as np
import pytest
import torch

from sleepgym.consolidation.cycle import lessons
from sleepgym.consolidation.lora import new_adapter, train_adapter
from sleepgym.consolidation.spec import SleepError, SleepSpec
from sleepgym.lm.language_model import hooked
from sleepgym.overlay import Memory

SPEC = SleepSpec(steps=4, rehearsal_rows=4)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def train(base, facts, rng, spec=SPEC, adapter=None, **options):
    return train_adapter(
        base.overlay,
        Memory(),
        adapter or new_adapter(base.lm, spec, rng),
        lessons(base.lm, facts),
        base.statistics.rehearsal,
        spec,
        rng,
        **options,
    )


@pytest.mark.parametrize("first_layer", [0, 1, 3])
def test_new_adapter_sits_on_every_linear_above_the_first_layer_and_changes_nothing(base, rng, first_layer):
    adapter = new_adapter(base.lm, replace(SPEC, first_layer=first_layer, rank=3), rng)
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


def test_start_is_not_modified(base, facts, rng):
    adapter = new_adapter(base.lm, SPEC, rng)
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
        spec = replace(SPEC, steps=15, stop_nll=0.0, rehearsal_rows=16, rehearsal_weight=weight)
        memory, ids = Memory(), base.lm.pad(base.statistics.held_out[:8])
        memory.put("lora", train(base, facts[:3], np.random.default_rng(0), spec).factors)
        with torch.no_grad():
            before = base.lm.model(ids).logits.log_softmax(-1)
            with base.overlay.use(memory):
                after = base.lm.model(ids).logits.log_softmax(-1)
        return float((before.exp() * (before - after)).sum(-1).mean())

    assert drift(5.0) < 0.5 * drift(0.0)


def test_nan_loss_is_an_error_that_says_what_to_do(base, facts, rng):
    poison = base.lm.linear(base.lm.blocks[-1].down_proj).register_forward_hook(lambda m, a, out: out * torch.nan)
    with hooked(poison), pytest.raises(SleepError, match=r"expected a finite loss .* at step 1; .*learning_rate"):
        train(base, facts[:2], rng)


def test_model_keeps_no_gradients(base, facts, rng):
    train(base, facts[:2], rng)
    assert all(p.grad is None for p in base.lm.model.parameters())
