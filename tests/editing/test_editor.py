from dataclasses import replace

import numpy as np
import pytest
import torch

from sleepgym.editing import EditError, Editor, EditSpec, statistics_for
from sleepgym.editing.covariance import second_moments
from sleepgym.editing.keys import measured_keys
from sleepgym.lm import load, score
from sleepgym.lm.architecture import features
from sleepgym.lm.language_model import hooked
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.owners import owner_of


@pytest.fixture(scope="module")
def pairs(world):
    """Two facts about one subject, for several subjects."""
    rng, relations = np.random.default_rng(0), world.person_relations()
    drawn = [(person, rng.permutation(len(relations))[:2]) for person in world.held_out["test"][:8]]
    return [[relations[i].fact(person, str(rng.choice(relations[i].objects))) for i in two] for person, two in drawn]


def margins(base, memory, facts):
    with base.overlay.use(memory):
        return score(base.lm, [base.lm.encode(f.prompt, f.object) for f in facts]).margin


@torch.no_grad()
def logits(base, memory, facts):
    ids = base.lm.pad([base.lm.encode(f.statement).ids for f in facts])
    with torch.no_grad(), base.overlay.use(memory):
        return base.lm.model(input_ids=ids).logits


def test_five_facts_of_one_call_are_recalled(base, facts):
    memory = Memory()
    assert not (margins(base, memory, facts[:5]) > 0).all()
    base.editor.write(memory, facts[:5])
    assert (margins(base, memory, facts[:5]) > 0).all()


def test_every_fact_owns_one_rank_one_term_per_edited_layer(base, facts):
    memory = Memory()
    base.editor.write(memory, facts[:5])
    assert list(memory.terms) == [owner_of(fact) for fact in facts[:5]]
    modules = {base.lm.blocks[layer].down_proj for layer in base.editor.spec.layers}
    for term in memory.terms.values():
        assert term.rank == 1 and set(term.factors) == modules and term.scale == 1.0


def test_revert_restores_logits_bitwise(base, facts):
    memory = Memory()
    base.editor.write(memory, facts[:3])
    before = logits(base, memory, facts)
    base.editor.write(memory, facts[3:6], facts[:3])
    for fact in facts[3:6]:
        memory.remove(owner_of(fact))
    assert torch.equal(logits(base, memory, facts), before)


def test_facts_about_one_subject_are_reverted_each_alone(base, pairs):
    for pair in pairs:
        memory = Memory()
        base.editor.write(memory, pair)
        before = margins(base, memory, pair)
        kept = memory.terms[owner_of(pair[1])]
        memory.remove(owner_of(pair[0]))
        assert memory.terms == {owner_of(pair[1]): kept}
        after = margins(base, memory, pair)
        # Not below 0 in all: about strangers the model has no opinion, and any edit of theirs can give it one.
        assert after[0] < before[0] / 2 and after[1] > 0


def test_second_fact_about_a_subject_leaves_the_first_ones_term_alone(base, pairs):
    memory = Memory()
    base.editor.write(memory, pairs[0][:1])
    first = memory.terms[owner_of(pairs[0][0])]
    base.editor.write(memory, pairs[0][1:], pairs[0][:1])
    assert memory.terms[owner_of(pairs[0][0])] is first


@pytest.mark.parametrize("at_once", [True, False])
def test_facts_about_one_subject_are_recalled_together(base, pairs, at_once):
    recalled = []
    for pair in pairs:
        memory = Memory()
        if at_once:
            base.editor.write(memory, pair)
        else:
            base.editor.write(memory, pair[:1])
            base.editor.write(memory, pair[1:], pair[:1])
        recalled += (margins(base, memory, pair) > 0).tolist()
    assert sum(recalled) >= 0.9 * len(recalled)


def test_dissolved_fact_is_not_written_again_by_another_one_about_its_subject(base, pairs):
    """Its share of the key is meant to be gone: whoever holds it now, the second fact must not bring it back."""
    one, two = pairs[0]
    memory = Memory()
    base.editor.write(memory, [one])
    before = margins(base, memory, [one])
    memory.scale(owner_of(one), 0.0)
    base.editor.write(memory, [two], [one])
    after = margins(base, memory, [one, two])
    assert after[0] < before[0] / 2 and after[1] > 0


@pytest.mark.parametrize("at_once", [True, False])
def test_facts_about_one_subject_have_keys_of_their_own_at_the_end_of_their_prompts(base, pairs, at_once):
    editor = Editor(base.overlay, base.statistics, replace(base.editor.spec, key_token="prompt"))
    recalled = []
    for one, two in pairs[:4]:
        memory, alone = Memory(), Memory()
        if at_once:
            editor.write(memory, [one, two])
        else:
            editor.write(memory, [one])
            editor.write(memory, [two], [one])
        editor.write(alone, [one])
        (a, _), (other, _) = (next(iter(memory.terms[owner_of(fact)].factors.values())) for fact in (one, two))
        (own, _) = next(iter(alone.terms[owner_of(one)].factors.values()))
        assert torch.cosine_similarity(a, own).item() > 0.9 > torch.cosine_similarity(a, other).abs().item()
        recalled += (margins(base, memory, [one, two]) > 0).tolist()
    assert sum(recalled) >= 0.9 * len(recalled)


def test_what_another_recipe_wrote_in_other_layers_is_left_alone(base, pairs):
    statistics = statistics_for(base.lm, (0, 1))
    first, later = (
        Editor(base.overlay, statistics, replace(base.editor.spec, layers=layers)) for layers in ((0,), (1,))
    )
    memory = Memory()
    one, two = pairs[0]
    first.write(memory, [one, *pairs[1]])
    before = dict(memory.terms)
    later.write(memory, [two], [one, *pairs[1]])
    assert {owner: memory.terms[owner] for owner in before} == before
    alone = Memory()
    later.write(alone, [two])
    (_, b), (_, own) = (next(iter(m.terms[owner_of(two)].factors.values())) for m in (memory, alone))
    assert torch.allclose(b, own, atol=1e-5)
    assert later.intruder(memory, two, [one])[1] == 0


def test_layers_without_second_moments_are_named(base):
    statistics = replace(base.statistics, moments={0: base.statistics.moments[0]})
    with pytest.raises(EditError, match=r"found none of \(1,\); measure them"):
        Editor(base.overlay, statistics, replace(base.editor.spec, layers=(0, 1)))


def test_an_edit_that_is_not_finite_is_refused_and_nothing_is_written(base, facts, monkeypatch):
    editor = Editor(base.overlay, base.statistics, base.editor.spec)
    solved = editor._residuals
    monkeypatch.setattr(editor, "_residuals", lambda *given: [[r / 0 for r in of] for of in solved(*given)])
    memory = Memory()
    with pytest.raises(EditError, match=r"expected a finite edit of .*; lower the clamp"):
        editor.write(memory, facts[:1])
    assert not memory.terms


def test_a_gated_edit_intrudes_from_its_gate_on(base, facts):
    memory = Memory()
    base.editor.write(memory, facts[:2])
    _, acts = base.editor.intruder(memory, facts[0], facts[1:2])
    assert acts > 0
    term = memory.terms[owner_of(facts[1])]
    ids = base.lm.encode(facts[0].prompt, facts[0].object).ids
    with base.overlay.use(()):
        keys = measured_keys(base.lm, [[(ids, at)] for at in range(len(ids))], base.editor.spec.layers[0])
    highest = (keys.float() @ next(iter(term.factors.values()))[0].T).max()
    for step, nothing in ((1e-3, True), (-1e-3, False)):
        gates = {module: (highest + step)[None] for module in term.factors}
        memory.put(owner_of(facts[1]), term.factors, gates=gates)
        assert (base.editor.intruder(memory, facts[0], facts[1:2])[1] == 0) == nothing


def test_facts_written_one_by_one_add_up_to_the_joint_solve(base, facts):
    every = facts
    joint, grown = Memory(), Memory()
    base.editor.write(joint, every)
    for i, fact in enumerate(every):
        base.editor.write(grown, [fact], every[:i])
    module = base.lm.blocks[base.editor.spec.layers[0]].down_proj
    (a, b), (c, d) = joint.stacked(module), grown.stacked(module)
    torch.testing.assert_close(d @ c, b @ a, atol=1e-5, rtol=1e-4)


def test_logits_do_not_change_where_a_reverted_terms_key_is_absent(base, facts):
    """The exact invariant of revert, scale and replace: a term adds ``s b (a x)``, nothing wherever ``a x = 0``."""
    written = Memory()
    base.editor.write(written, facts[:6])
    lm = load("tiny", dtype=torch.float64)  # so that what is left is not rounding
    overlay, owner = Overlay(lm), owner_of(facts[0])
    module = lm.blocks[base.editor.spec.layers[0]].down_proj
    a, b = (factor.double() for factor in written.terms[owner].factors[module])

    def blind(module, args):
        return (args[0] - (args[0] @ a.T) @ a / a.square().sum(), *args[1:])

    @torch.no_grad()
    def seen(memory):
        with overlay.use(memory):
            return lm.model(input_ids=lm.pad([lm.encode(f.statement).ids for f in facts])).logits

    reverted, scaled, replaced = written.copy(), written.copy(), written.copy()
    reverted.remove(owner)
    scaled.scale(owner, 0.5)
    replaced.put(owner, {module: (a, -3 * b)})
    assert (seen(reverted) - seen(written)).abs().max() > 0.1
    with hooked(lm.linear(module).register_forward_pre_hook(blind)):
        for changed in (reverted, scaled, replaced):
            torch.testing.assert_close(seen(changed), seen(written), atol=1e-8, rtol=0)


def test_reverting_moves_a_protected_key_by_no_more_than_the_solvers_leak(base, facts):
    # The less text weighs, the less is left of what a key shares with protected ones.
    module = base.lm.blocks[base.editor.spec.layers[0]].down_proj
    leaks = []
    for weight in (1000.0, 100.0, 1.0):
        editor, memory = (
            Editor(base.overlay, base.statistics, replace(base.editor.spec, covariance_weight=weight)),
            Memory(),
        )
        for i, fact in enumerate(facts[:8]):
            editor.write(memory, [fact], facts[:i])
        a, b = memory.terms[owner_of(facts[7])].factors[module]
        keys = torch.stack([target.keys[0] for target in editor.targets(facts[:8])])
        moved = (keys @ a.T) @ b.T
        leaks.append(float(moved[:7].norm(dim=1).max() / moved[7].norm()))
    assert leaks == sorted(leaks, reverse=True) and leaks[-1] < 0.1


def test_superseding_reuses_the_key_and_replaces_what_it_says(base, facts, world):
    memory = Memory()
    base.editor.write(memory, facts[:5])
    module = base.lm.blocks[base.editor.spec.layers[0]].down_proj
    before = memory.terms[owner_of(facts[0])].factors[module]
    update = world.update(np.random.default_rng(1), facts[0])
    base.editor.write(memory, [update], facts[1:5])
    after = memory.terms[owner_of(update)].factors[module]
    assert (margins(base, memory, [update]) > 0).all() and (margins(base, memory, facts[:1]) < 0).all()
    assert torch.cosine_similarity(before[0], after[0]).item() > 0.99
    assert torch.cosine_similarity(before[1].T, after[1].T).item() < 0.9


def test_keys_of_the_edited_model_are_measured_where_an_adapter_lies_below(base, facts):
    """A term that is no edit, under the edited layer, moves the keys: those of the frozen base no longer hold."""
    spec, moments = EditSpec(layers=(1,), steps=10), second_moments(base.lm, base.statistics.held_out[:64], [1])
    editor = Editor(base.overlay, replace(base.statistics, moments=moments), spec)
    name = base.lm.blocks[0].down_proj
    d_in, d_out = features(base.lm.linear(name))
    generator = torch.Generator().manual_seed(0)
    adapter = (torch.randn(2, d_in, generator=generator) / 10, torch.randn(d_out, 2, generator=generator) / 10)
    plain, adapted = Memory(), Memory()
    adapted.put("sleep", {name: adapter})
    for memory in (plain, adapted):
        editor.write(memory, facts[:2])
    a, b = (m.terms[owner_of(facts[0])].factors[base.lm.blocks[1].down_proj][0] for m in (plain, adapted))
    assert (a - b).norm() > 0.01 * a.norm()


def test_hard_facts_get_more_weight_until_they_are_recalled(base, facts):
    recalled, weights = {}, {}
    for most in (1.0, 64.0):
        spec = replace(base.editor.spec, covariance_weight=30000.0, max_weight=most)
        memory, editor = Memory(), Editor(base.overlay, base.statistics, spec)
        editor.cache = editor.target_store.cache = base.editor.cache
        returned = editor.write(memory, facts)
        torch.testing.assert_close(returned, margins(base, memory, facts))
        recalled[most] = int((returned > 0).sum())
        weights[most] = {term.weight for term in memory.terms.values()}
    assert recalled[1.0] < recalled[64.0]
    assert weights[1.0] == {1.0} and 1.0 < max(weights[64.0]) <= 64.0


def test_weights_are_part_of_what_later_facts_hold_still(base, facts):
    """One by one with weights is the joint solve with the same weights."""
    joint, grown = Memory(), Memory()
    spec = replace(base.editor.spec, covariance_weight=30000.0)
    editor = Editor(base.overlay, base.statistics, spec)
    for i, fact in enumerate(facts):
        editor.write(grown, [fact], facts[:i])
    weights = {fact.subject: grown.terms[owner_of(fact)].weight for fact in facts}
    assert len(set(weights.values())) > 1
    plan = editor._plan(Memory(), facts, (), ())
    joint = editor._solved_for(Memory(), plan, weights, dict.fromkeys(weights, 0.0))
    module = base.lm.blocks[spec.layers[0]].down_proj
    (a, b), (c, d) = joint.stacked(module), grown.stacked(module)
    torch.testing.assert_close(d @ c, b @ a, atol=1e-5, rtol=1e-4)


def test_solutions_do_not_depend_on_what_the_editor_remembers(base, facts):
    """A system grown from a remembered smaller one and one built anew are the same, bit for bit."""
    fresh, used = (Editor(base.overlay, base.statistics, base.editor.spec) for _ in range(2))
    fresh.target_store.cache = used.target_store.cache = base.editor.cache
    one, other = Memory(), Memory()
    used.write(one, facts[:4])
    used.write(one, facts[4:5], facts[:4])
    fresh.write(other, facts[:4])
    fresh._solved.clear()
    fresh.write(other, facts[4:5], facts[:4])
    for owner, term in one.terms.items():
        for module, (a, b) in term.factors.items():
            c, d = other.terms[owner].factors[module]
            assert torch.equal(a, c) and torch.equal(b, d)


def test_targets_on_the_edited_model_see_what_was_written(base, facts):
    editor = Editor(base.overlay, base.statistics, EditSpec(frozen=False, steps=10))
    memory = Memory()
    base.editor.write(memory, facts[:1])
    before = memory.terms[owner_of(facts[0])]
    editor.write(memory, [replace(facts[0], relation="again")])
    again = memory.terms[owner_of(replace(facts[0], relation="again"))]
    module = base.lm.blocks[0].down_proj
    # What is recalled already needs hardly anything added.
    assert again.factors[module][1].norm() < 0.2 * before.factors[module][1].norm()


def test_writing_again_replaces_and_never_adds(base, facts):
    memory = Memory()
    base.editor.write(memory, facts[:4])
    once = logits(base, memory, facts[:4])
    base.editor.write(memory, facts[:4])
    assert len(memory.terms) == 4
    torch.testing.assert_close(logits(base, memory, facts[:4]), once, atol=1e-4, rtol=1e-4)


def test_protected_writes_keep_more_than_naive_ones(base, facts):
    recalled = {}
    for protect in (True, False):
        memory = Memory()
        for i, fact in enumerate(facts[:10]):
            base.editor.write(memory, [fact], facts[:i] if protect else ())
        recalled[protect] = int((margins(base, memory, facts[:9]) > 0).sum())
    assert recalled[True] >= recalled[False]


def test_written_facts_do_not_depend_on_other_memories(base, facts):
    one, other = Memory(), Memory()
    base.editor.write(one, facts[:2])
    base.editor.write(Memory(), facts[4:8])
    base.editor.write(other, facts[:2])
    assert torch.equal(logits(base, one, facts), logits(base, other, facts))


def test_base_is_never_written(base, facts):
    before = {name: weight.clone() for name, weight in base.lm.model.state_dict().items()}
    base.editor.write(Memory(), facts[:2])
    assert all(torch.equal(weight, before[name]) for name, weight in base.lm.model.state_dict().items())


def test_failed_write_leaves_the_memory_as_it_was(base, facts):
    memory = Memory()
    base.editor.write(memory, facts[:3])
    before = dict(memory.terms)
    flat = {layer: torch.zeros_like(moment) for layer, moment in base.statistics.moments.items()}
    broken = Editor(base.overlay, replace(base.statistics, moments=flat), base.editor.spec)
    broken.cache = base.editor.cache
    with pytest.raises(EditError, match="positive definite"):
        broken.write(memory, facts[:2])
    assert dict(memory.terms) == before


def test_several_layers_share_one_term_per_fact(base, facts):
    moments = second_moments(base.lm, base.statistics.held_out[:32], [0, 1])
    editor = Editor(base.overlay, replace(base.statistics, moments=moments), EditSpec(layers=(0, 1), steps=10))
    memory = Memory()
    before = margins(base, memory, facts[:3])
    editor.write(memory, facts[:3])
    assert all(term.rank == 1 and len(term.factors) == 2 for term in memory.terms.values())
    assert (margins(base, memory, facts[:3]) > before).all()


def test_what_is_prepared_for_several_learners_is_what_each_needs(base, world, monkeypatch):
    """Facts about one person, told to two learners, are not chained as if one learner held them."""
    person = world.held_out["test"][11]
    relations = world.person_relations()
    one, other, third = (relation.fact(person, relation.objects[0]) for relation in relations[:3])
    editor = Editor(base.overlay, base.statistics, base.editor.spec)
    editor.prepare([([one], []), ([other], []), ([third], [one])])
    from sleepgym.editing import target_store

    def never(*arguments, **more):
        raise AssertionError("expected every target to be there already")

    monkeypatch.setattr(target_store, "optimize_targets", never)
    for facts, held in (([one], []), ([other], [])):
        memory = Memory()
        editor.write(memory, facts, held)
    memory = Memory()
    editor.write(memory, [one])
    editor.write(memory, [third], [one])
