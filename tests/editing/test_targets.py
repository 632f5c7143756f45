from dataclasses import replace

import pytest
import torch

from sleepgym.editing import EditError, Editor, EditSpec, optimize_targets
from sleepgym.editing.keys import measured_keys
from sleepgym.editing.targets import contexts
from sleepgym.facts import Fact, FactError
from sleepgym.lm import score
from sleepgym.lm.language_model import hooked

PREFIXES = ("It was Monday.", "The old mill stands between the river and the church.")


def optimized(lm, facts, prefixes, spec, beside=()):
    """Values only, ``[facts, layers, d_out]``."""
    return torch.stack([target.value for target in optimize_targets(lm, facts, prefixes, spec, beside)])


@pytest.fixture(scope="module")
def spec():
    return EditSpec(layers=(0, 1), steps=15)


@pytest.fixture(scope="module")
def targets(base, facts, spec):
    return optimized(base.lm, facts[:4], PREFIXES, spec)


def test_targets_have_one_vector_per_fact_and_layer(base, targets):
    assert targets.shape == (4, 2, base.lm.model.config.hidden_size)
    assert targets.dtype == torch.float32 and torch.isfinite(targets).all()
    assert not targets.requires_grad


def test_batch_finds_the_same_targets_as_one_at_a_time(base, facts, spec, targets):
    alone = torch.cat([optimized(base.lm, [fact], PREFIXES, spec) for fact in facts[:4]])
    # Per vector, not per number: Adam divides by the gradient's size, so rounding shows where a gradient is near zero.
    assert ((alone - targets).norm(dim=-1) <= 1e-3 * targets.norm(dim=-1)).all()


def output_norm(lm, fact, layer):
    """Norm of the bare down-projection's output at the subject, in the bare prompt."""
    caught = []
    encoded = lm.encode(fact.prompt, fact.object, fact.subject)
    module = lm.linear(lm.blocks[layer].down_proj)
    with hooked(module.register_forward_hook(lambda m, a, out: caught.append(out[0, encoded.subject_last]))):
        lm.model(input_ids=torch.tensor([encoded.ids]))
    return caught[0].norm()


@pytest.mark.parametrize("clamp", [0.3, 1.5])
def test_norm_stays_within_the_clamp(base, facts, spec, clamp):
    found = optimized(base.lm, facts[:3], PREFIXES, replace(spec, clamp=clamp, learning_rate=1.0))
    limits = torch.stack([torch.stack([output_norm(base.lm, f, layer) for layer in (0, 1)]) for f in facts[:3]])
    assert (found.norm(dim=-1) <= clamp * limits * 1.001).all()
    if clamp == 0.3:
        assert (found.norm(dim=-1) > 0.9 * clamp * limits).any(), "a tight clamp should bind"


def test_target_makes_the_object_likelier_when_added_at_the_subject(base, facts, spec, targets):
    for fact, target in zip(facts[:4], targets, strict=True):
        probe = base.lm.encode(fact.prompt, fact.object, fact.subject)

        def add(module, args, output, target=target, probe=probe):
            output = output.clone()
            output[:, probe.subject_last] += target[0]
            return output

        before = score(base.lm, [probe]).nll
        with hooked(base.lm.linear(base.lm.blocks[0].down_proj).register_forward_hook(add)):
            after = score(base.lm, [probe]).nll
        assert after < before - 1


def test_fact_that_is_already_known_needs_no_target(base, world, facts, spec):
    known = next(
        f
        for f in world.known_facts()
        if score(base.lm, [base.lm.encode(f.prompt, f.object)]).nll.item() < spec.stop_nll / 2
        and len(base.lm.encode(f.prompt, f.object).object_ids) == 1
    )
    found = optimized(base.lm, [known, facts[0]], (), spec)
    assert found[0].count_nonzero() == 0
    assert found[1].count_nonzero() > 0


def test_nan_in_the_forward_pass_is_an_error_that_names_the_fact_and_nothing_is_cached(base, facts, spec, tmp_path):
    editor = Editor(base.overlay, base.statistics, EditSpec(), tmp_path)
    poison = base.lm.linear(base.lm.blocks[-1].down_proj).register_forward_hook(lambda m, a, out: out * torch.nan)
    with hooked(poison), pytest.raises(EditError, match=f"expected finite losses.*{facts[0].subject}"):
        editor.targets(facts[:2])
    assert not list(tmp_path.rglob("*.safetensors"))
    assert all(torch.isfinite(target.value).all() for target in editor.targets(facts[:2]))


def test_torch_random_state_is_left_alone(base, facts, spec):
    before = torch.random.get_rng_state()
    optimize_targets(base.lm, facts[:1], (), replace(spec, steps=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_object_the_tokenizer_cannot_write_is_refused(base, spec):
    # The dataclass lets it pass: the subject is in the prompt, and the object is not blank for Python.
    with pytest.raises(FactError):
        base.lm.encode("Tom lives in", "\n")
    with pytest.raises(FactError):
        optimize_targets(base.lm, [Fact("Tom", "Tom lives in", "Oslo"), Fact("Tom", "Tom lives in", " ")], (), spec)


def added(lm, layers, values, column):
    """Hooks that add a target at one column."""

    def adder(vector):
        def add(module, args, output):
            output = output.clone()
            output[:, column] += vector
            return output

        return add

    modules = [lm.linear(lm.blocks[layer].down_proj) for layer in layers]
    return [module.register_forward_hook(adder(v)) for module, v in zip(modules, values, strict=True)]


def test_keys_are_those_read_with_the_target_in_place(base, facts, spec):
    (target,) = optimize_targets(base.lm, facts[:1], (), spec)
    (row,) = contexts(base.lm, facts[0], ())
    with hooked(*added(base.lm, spec.layers, target.value, row.subject_last)):
        seen = torch.cat([measured_keys(base.lm, [[(row.ids, row.subject_last)]], layer) for layer in spec.layers])
    torch.testing.assert_close(target.keys.double(), seen, atol=1e-4, rtol=1e-4)


def test_target_beside_another_serves_alone_and_leaves_the_other_true(base, world):
    spec = EditSpec()
    person, relations = world.held_out["test"][3], world.person_relations()
    one, two = (relation.fact(person, relation.objects[2]) for relation in relations[:2])
    (first,) = optimize_targets(base.lm, [one], PREFIXES, spec)
    (second,) = optimize_targets(base.lm, [two], PREFIXES, spec, [((one, first),)])
    for values, true in ((first.value, [one]), (second.value, [two]), (first.value + second.value, [one, two])):
        for fact in true:
            probe = base.lm.encode(fact.prompt, fact.object, fact.subject)
            with hooked(*added(base.lm, spec.layers, values, probe.subject_last)):
                assert score(base.lm, [probe]).correct.all()


def test_first_object_token_alone_can_be_taught(base, facts, spec):
    fact = next(f for f in facts if len(base.lm.encode(f.prompt, f.object).object_ids) > 1)
    whole, first = (optimized(base.lm, [fact], (), replace(spec, object_tokens=tokens)) for tokens in ("all", "first"))
    assert not torch.equal(whole, first)


def test_argmax_stops_before_a_small_nll_does(base, facts, spec):
    early = optimized(base.lm, facts[:4], (), replace(spec, stop="argmax"))
    late = optimized(base.lm, facts[:4], (), replace(spec, stop_nll=0.01))
    # In the last block, a perturbation at the subject reaches nothing that is read.
    assert (early[:, 0].norm(dim=-1) < late[:, 0].norm(dim=-1)).all()


def test_residual_target_is_the_state_that_makes_the_object_likely(base, facts, spec):
    spec = replace(spec, site="residual", layers=(0,), frozen=False)
    (target,) = optimize_targets(base.lm, facts[:1], (), spec)
    probe = base.lm.encode(facts[0].prompt, facts[0].object, facts[0].subject)

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[:, probe.subject_last] = target.value[0]
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    before = score(base.lm, [probe]).nll
    with hooked(base.lm.linear(base.lm.blocks[spec.layers[-1]].name).register_forward_hook(put)):
        assert score(base.lm, [probe]).nll < before - 1


def test_key_of_the_last_prompt_token_is_read_there(base, facts, spec):
    (target,) = optimize_targets(base.lm, facts[:1], (), replace(spec, key_token="prompt", layers=(0,), steps=1))
    (row,) = contexts(base.lm, facts[0], ())
    seen = measured_keys(base.lm, [[(row.ids, row.object_start - 1)]], 0)
    torch.testing.assert_close(target.keys.double(), seen, atol=1e-4, rtol=1e-4)
