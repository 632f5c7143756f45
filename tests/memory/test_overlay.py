import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from sleepgym.lm.architecture import features
from sleepgym.memory.overlay import Memory, Overlay, OverlayError, Term

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def overlay(request, base, small_llm):
    """A small random model with hooks: one with ``Linear`` and one with ``Conv1D``."""
    torch.manual_seed(0)
    vocabulary = len(base.lm.tokenizer)
    if request.param == "llama":
        config = LlamaConfig(**IDS, **SIZE, vocab_size=vocabulary)
    else:
        config = GPT2Config(**IDS, n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=vocabulary)
    return Overlay(small_llm(AutoModelForCausalLM.from_config(config)))


@pytest.fixture
def ids():
    return torch.randint(3, 90, (4, 9), generator=torch.Generator().manual_seed(1))


def factors(lm, seed, rank=2, layers=(0, 1), size=0.3):
    """Random factors on every linear of some blocks."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: features(lm.linear(name)) for i in layers for name in lm.blocks[i].linears}
    return {
        name: (
            size * torch.randn(rank, d_in, generator=generator),
            size * torch.randn(d_out, rank, generator=generator),
        )
        for name, (d_in, d_out) in shapes.items()
    }


@torch.no_grad()
def run(overlay, memory, ids):
    with overlay.use(memory):
        return overlay.lm.model(input_ids=ids).logits


@torch.no_grad()
def bare(overlay, ids):
    return overlay.lm.model(input_ids=ids).logits


def test_fresh_slot_is_the_bare_model_bitwise(overlay, ids):
    assert torch.equal(run(overlay, Memory(), ids), bare(overlay, ids))
    assert torch.equal(run(overlay, (), ids), bare(overlay, ids))


def test_revert_restores_logits_bitwise(overlay, ids):
    memory = Memory()
    memory.put("kept", factors(overlay.lm, 0), scale=0.7)
    before = run(overlay, memory, ids)
    memory.put("fact", factors(overlay.lm, 1))
    assert not torch.equal(run(overlay, memory, ids), before)
    memory.remove("fact")
    assert torch.equal(run(overlay, memory, ids), before)
    memory.clear()
    assert torch.equal(run(overlay, memory, ids), bare(overlay, ids))


def test_scale_zero_is_removal_bitwise(overlay, ids):
    memory = Memory()
    memory.put("kept", factors(overlay.lm, 0))
    before = run(overlay, memory, ids)
    memory.put("fact", factors(overlay.lm, 1))
    after = run(overlay, memory, ids)
    memory.scale("fact", 0.0)
    assert torch.equal(run(overlay, memory, ids), before)
    memory.scale("fact", 1.0)
    assert torch.equal(run(overlay, memory, ids), after)


def test_without_switches_terms_off_and_leaves_the_memory_alone(overlay, ids):
    memory = Memory()
    memory.put("kept", factors(overlay.lm, 0))
    before = run(overlay, memory, ids)
    memory.put("fact", factors(overlay.lm, 1))
    assert torch.equal(run(overlay, memory.without(["fact", "unknown"]), ids), before)
    assert list(memory.terms) == ["kept", "fact"]


def test_terms_equal_the_merged_dense_weights(overlay, ids, base, small_llm):
    memory = Memory()
    memory.put("one", factors(overlay.lm, 0, rank=1, size=0.1), scale=0.5)
    memory.put("two", factors(overlay.lm, 1, rank=3, layers=(1,), size=0.1))
    merged = small_llm(type(overlay.lm.model)(overlay.lm.model.config))
    merged.model.load_state_dict(overlay.lm.model.state_dict())
    with torch.no_grad():
        for term in memory.terms.values():
            for name, (a, b) in term.factors.items():
                linear, delta = merged.linear(name), term.scale * b @ a
                linear.weight += delta if isinstance(linear, torch.nn.Linear) else delta.T
        expected = merged.model(input_ids=ids).logits
    torch.testing.assert_close(run(overlay, memory, ids), expected, atol=1e-5, rtol=1e-5)


def test_each_row_goes_through_its_own_memory(overlay, ids):
    empty, narrow, wide = Memory(), Memory(), Memory()
    narrow.put("fact", factors(overlay.lm, 0, rank=1, layers=(0,)), scale=0.5)
    wide.put("fact", factors(overlay.lm, 1, rank=2))
    wide.put("adapter", factors(overlay.lm, 2, rank=5, layers=(1,)))
    rows = [wide, empty, narrow, wide]
    together = run(overlay, rows, ids)
    for row, memory in enumerate(rows):
        alone = run(overlay, memory, ids[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_rows_are_shared_out_among_memories_in_order(overlay, ids):
    one, other = Memory(), Memory()
    one.put("fact", factors(overlay.lm, 0, rank=1))
    other.put("fact", factors(overlay.lm, 1, rank=3))
    expected = run(overlay, [one, one, other, other], ids)
    torch.testing.assert_close(run(overlay, [one, other], ids), expected, atol=1e-5, rtol=1e-5)


def test_each_group_has_its_own_factors_in_training(overlay, ids):
    trained = [
        {n: (a.requires_grad_(), b.requires_grad_()) for n, (a, b) in factors(overlay.lm, seed).items()}
        for seed in range(2)
    ]
    with overlay.use((), [Term(each) for each in trained]):
        overlay.lm.model(input_ids=ids).logits[:2].square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for pair in trained[0].values() for p in pair)
    assert all(p.grad.abs().sum() == 0 for pair in trained[1].values() for p in pair)
    alone = []
    for memory_like in trained:
        memory = Memory()
        memory.put("fact", {n: (a.detach(), b.detach()) for n, (a, b) in memory_like.items()})
        alone.append(memory)
    with torch.no_grad(), overlay.use((), [Term(each) for each in trained]):
        together = overlay.lm.model(input_ids=ids).logits
    torch.testing.assert_close(together, run(overlay, alone, ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [3, 5])
def test_wrong_number_of_rows_is_refused(overlay, ids, count):
    memory = Memory()
    memory.put("fact", factors(overlay.lm, 0))
    with pytest.raises(OverlayError, match=r"expected batch rows that . memories can share out"):
        run(overlay, [memory] * count, ids)
    assert torch.equal(run(overlay, (), ids), bare(overlay, ids)), "the overlay must be usable after an error"


def test_model_is_bare_again_after_an_error(overlay, ids):
    memory = Memory()
    memory.put("fact", factors(overlay.lm, 0))
    expected = bare(overlay, ids)
    with pytest.raises(KeyError), overlay.use(memory):
        raise KeyError
    assert torch.equal(bare(overlay, ids), expected)


def test_uses_nest(overlay, ids):
    outer, inner = Memory(), Memory()
    outer.put("fact", factors(overlay.lm, 0))
    inner.put("fact", factors(overlay.lm, 1))
    with overlay.use(outer):
        before = bare(overlay, ids)
        run(overlay, inner, ids)
        assert torch.equal(bare(overlay, ids), before)


def test_training_factors_receive_gradients_and_the_model_none(overlay, ids):
    trained = {n: (a.requires_grad_(), b.requires_grad_()) for n, (a, b) in factors(overlay.lm, 0).items()}
    with overlay.use(Memory(), Term(trained)):
        overlay.lm.model(input_ids=ids).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for pair in trained.values() for p in pair)
    assert all(p.grad is None for p in overlay.lm.model.parameters())


def test_weights_of_the_base_never_change(overlay, ids):
    def digest():
        return hashlib.sha256(b"".join(p.numpy().tobytes() for p in overlay.lm.model.state_dict().values())).hexdigest()

    before = digest()
    memory = Memory()
    for seed in range(3):
        memory.put(f"fact {seed}", factors(overlay.lm, seed), scale=0.5)
    run(overlay, memory, ids)
    run(overlay, [memory, Memory(), memory, Memory()], ids)
    memory.clear()
    assert digest() == before


def hooks_of(lm):
    return sum(len(lm.linear(name)._forward_hooks) for block in lm.blocks for name in block.linears)


def test_a_model_has_hooks_only_while_a_memory_is_in_use(small_llm, ids):
    lm = small_llm(AutoModelForCausalLM.from_config(LlamaConfig(**IDS, **SIZE, vocab_size=99)))
    first, second = Overlay(lm), Overlay(lm)
    memory = Memory()
    memory.put("fact", factors(lm, 0))
    before = bare(first, ids)
    with first.use(memory):
        assert 0 < hooks_of(lm) <= len(factors(lm, 0))
    assert hooks_of(lm) == 0
    with pytest.raises(KeyError), first.use(memory):
        raise KeyError
    assert hooks_of(lm) == 0
    assert torch.equal(bare(second, ids), before)


def test_an_inner_use_takes_the_place_of_the_outer_one_until_it_ends(small_llm, ids):
    lm = small_llm(AutoModelForCausalLM.from_config(LlamaConfig(**IDS, **SIZE, vocab_size=99)))
    one, other = Overlay(lm), Overlay(lm)
    memory, another = Memory(), Memory()
    memory.put("fact", factors(lm, 0))
    another.put("fact", factors(lm, 1))
    alone = run(one, memory, ids), run(one, another, ids), bare(one, ids)
    with one.use(memory):
        # Two overlays on one model are as good as one.
        assert torch.equal(run(other, another, ids), alone[1])
        assert torch.equal(run(other, (), ids), alone[2])
        with torch.no_grad():
            assert torch.equal(lm.model(input_ids=ids).logits, alone[0])


# ------------------------------------------------------------------------------- memory alone, without a model


def pair(seed=0, rank=1, d_in=6, d_out=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, d_in, generator=generator), torch.randn(d_out, rank, generator=generator)


@pytest.mark.parametrize(
    "bad",
    [
        (torch.full((1, 6), torch.nan), torch.ones(4, 1)),
        (torch.ones(1, 6), torch.full((4, 1), torch.inf)),
        (torch.ones(2, 6), torch.ones(4, 1)),
        (torch.ones(6), torch.ones(4, 1)),
        (torch.ones(1, 6), torch.ones(4)),
    ],
    ids=["NaN", "infinity", "ranks disagree", "A is a vector", "B is a vector"],
)
@pytest.mark.parametrize("owner", ["new", "old"])
def test_bad_factors_are_refused_and_the_memory_is_unchanged(bad, owner):
    memory = Memory()
    memory.put("old", {"m": pair()})
    before, version = dict(memory.terms), memory.version
    with pytest.raises(OverlayError, match="expected"):
        memory.put(owner, {"n": pair(), "m": bad})
    assert dict(memory.terms) == before and memory.version == version


def test_copies_are_independent():
    memory = Memory()
    memory.put("fact", {"m": pair()})
    copy = memory.copy()
    copy.scale("fact", 0.5)
    copy.put("other", {"m": pair(1)})
    assert list(memory.terms) == ["fact"] and memory.terms["fact"].scale == 1.0
    memory.clear()
    assert list(copy.terms) == ["fact", "other"]


def test_version_changes_with_the_logits_and_only_then():
    memory = Memory()
    versions = [memory.version]
    memory.put("fact", {"m": pair()})
    versions.append(memory.version)
    memory.scale("fact", 0.5)
    versions.append(memory.version)
    memory.remove("fact")
    versions.append(memory.version)
    assert len(set(versions)) == 4
    memory.put("fact", {"m": pair()}, scale=0.5)
    version = memory.version
    memory.scale("fact", 0.5)
    memory.stacked("m")
    memory.copy().clear()
    assert memory.version == version


@pytest.mark.parametrize("change", [lambda m: m.remove("unknown"), lambda m: m.scale("unknown", 0.5)])
def test_unknown_owner_is_refused(change):
    with pytest.raises(KeyError):
        change(Memory())


operations = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 9), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    st.tuples(st.just("remove"), st.sampled_from("abc")),
    st.tuples(st.just("scale"), st.sampled_from("abc"), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    st.tuples(st.just("copy")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(operations, max_size=12))
def test_any_sequence_of_changes_behaves_like_a_dictionary(sequence):
    memory, model = Memory(), {}
    for operation, *arguments in sequence:
        if operation == "put":
            owner, seed, scale = arguments
            memory.put(owner, {"m": pair(seed, rank=1 + seed % 3)}, scale)
            model[owner] = seed, scale
        elif operation == "copy":
            memory = memory.copy()
        elif arguments[0] not in model:
            with pytest.raises(KeyError):
                getattr(memory, operation)(*arguments)
        elif operation == "remove":
            memory.remove(arguments[0])
            del model[arguments[0]]
        else:
            memory.scale(*arguments)
            model[arguments[0]] = model[arguments[0]][0], arguments[1]

        assert {owner: term.scale for owner, term in memory.terms.items()} == {o: s for o, (_, s) in model.items()}
        assert memory.rank("m") == sum(1 + seed % 3 for seed, _ in model.values())
        assert memory.parameters == sum(10 * (1 + seed % 3) for seed, _ in model.values())
        dense = torch.zeros(4, 6)
        for seed, scale in model.values():
            a, b = pair(seed, rank=1 + seed % 3)
            dense += scale * b @ a
        stacked = memory.stacked("m")
        if stacked is None:
            assert all(scale == 0 for _, scale in model.values())
        else:
            torch.testing.assert_close(stacked[1] @ stacked[0], dense, atol=1e-5, rtol=1e-5)
