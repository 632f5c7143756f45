"""Norm-anchor scaling: the last edited down-projection's output at a fact's key has the length that was asked for."""

import pytest
import torch

from sleepgym.editing import Editor, optimize_targets, preset
from sleepgym.editing.anchoring import anchored
from sleepgym.lm.language_model import hooked
from sleepgym.memory.asking import in_context
from sleepgym.memory.overlay import Memory


@pytest.fixture(scope="module")
def spec():
    """A recipe whose system of one block has an exact solution: no text, hardly any ridge, the bare prompt alone."""
    return preset("nas", (0,), null_space=None, ridge=1e-9, prefixes=0, clamp=1.5)


@pytest.fixture(scope="module")
def written(base, facts, spec):
    """A memory with one fact."""
    memory = Memory()
    Editor(base.overlay, base.statistics, spec).write(memory, facts[:1])
    return memory


def seen(base, memory, fact):
    """Output of the down-projection and residual stream after its block, at the subject of a bare prompt."""
    lm, row, caught = base.lm, in_context(base.lm, fact), []

    def catch(module, args, out):
        caught.append((out if torch.is_tensor(out) else out[0])[0, row.subject_last].double())

    with base.overlay.use(memory), torch.no_grad():
        modules = [lm.linear(lm.blocks[0].down_proj), lm.linear(lm.blocks[0].name)]
        with hooked(*(module.register_forward_hook(catch) for module in modules)):
            lm.model(input_ids=torch.tensor([row.ids]))
    return caught


def solved_value(base, memory, fact, spec):
    """``v* = v0 + delta`` of a fact on the edited model."""
    output, state = seen(base, memory, fact)
    with base.overlay.use(memory):
        (target,) = optimize_targets(base.lm, [fact], (), spec)
    return target, output + target.value[0].double() - state


@pytest.mark.parametrize("anchor", [0.6, 1.0, 1.7])
def test_written_value_has_the_anchors_length_and_keeps_its_direction(base, facts, spec, written, anchor):
    fact, memory = facts[1], written.copy()
    _, wanted = solved_value(base, memory, fact, spec)
    editor = Editor(base.overlay, base.statistics, preset("nas", (0,), **changes_of(spec), anchor=anchor))
    editor.write(memory, [fact], facts[:1])
    base_output, _ = seen(base, (), fact)
    value, _ = seen(base, memory, fact)
    assert abs(wanted.norm() / base_output.norm() - anchor) > 0.05, "the length should have to change"
    torch.testing.assert_close(value.norm(), anchor * base_output.norm(), rtol=1e-4, atol=0)
    torch.testing.assert_close(value / value.norm(), wanted / wanted.norm(), rtol=0, atol=1e-4)


def changes_of(spec):
    return {name: getattr(spec, name) for name in ("null_space", "ridge", "prefixes", "clamp")}


def test_length_is_that_of_the_bare_model_however_long_values_have_become(base, facts, spec, written):
    longer = written.copy()
    for owner in written.terms:
        longer.scale(owner, 40.0)
    (before, _), (after, _) = seen(base, written, facts[1]), seen(base, longer, facts[1])
    assert after.norm() > 1.05 * before.norm()
    for memory in (written, longer):
        target, _ = solved_value(base, memory, facts[1], spec)
        (found,) = anchored(base.overlay, memory, facts[1:2], [target], spec, 1.25)
        output, state = seen(base, memory, facts[1])
        value = found.value[0].double() - state + output
        torch.testing.assert_close(value.norm(), 1.25 * seen(base, (), facts[1])[0].norm(), rtol=1e-4, atol=0)


def test_target_that_has_the_length_already_is_left_alone(base, facts, spec, written):
    target, value = solved_value(base, written, facts[1], spec)
    own = float(value.norm() / seen(base, (), facts[1])[0].norm())
    (found,) = anchored(base.overlay, written, facts[1:2], [target], spec, own)
    torch.testing.assert_close(found.value, target.value, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.keys, target.keys)


def test_facts_of_one_call_are_scaled_as_if_each_were_alone(base, facts, spec, written):
    targets = [solved_value(base, written, fact, spec)[0] for fact in facts[1:4]]
    together = anchored(base.overlay, written, facts[1:4], targets, spec, 1.25)
    for fact, target, found in zip(facts[1:4], targets, together, strict=True):
        (alone,) = anchored(base.overlay, written, [fact], [target], spec, 1.25)
        torch.testing.assert_close(found.value, alone.value, rtol=1e-4, atol=1e-4)
