"""Questions that are resumed at the lowest linear with a term are answered as by a plain pass."""

from functools import partial

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    Qwen2Config,
)

from sleepgym.lm import score
from sleepgym.lm.architecture import features
from sleepgym.lm.continuation import Continuation, Start, start_at
from sleepgym.lm.language_model import hooked
from sleepgym.lm.probes import perplexity
from sleepgym.memory import kept as kept_module
from sleepgym.memory.kept import Kept
from sleepgym.memory.overlay import Memory, Overlay, Term

TEXTS = ("Tom works as a plumber", "It was Monday. The old mill stood by the river and Tom works as a nurse", "Tom is")
TOKENS = {"vocab_size": 8192, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}

CONFIGS = {
    "llama": LlamaConfig(**TOKENS, **SIZE),
    "grouped queries": LlamaConfig(**TOKENS, **SIZE, num_key_value_heads=2),
    "biases": Qwen2Config(**TOKENS, **SIZE, num_key_value_heads=2),
    "norms around": Gemma3TextConfig(**TOKENS, **SIZE, num_key_value_heads=2, head_dim=8, sliding_window=8),
    "post-norm": Olmo2Config(**TOKENS, **SIZE, num_key_value_heads=2),
    "fused": Phi3Config(**TOKENS, **SIZE, num_key_value_heads=2),
    "Conv1D": GPT2Config(**TOKENS, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    "parallel": GPTNeoXConfig(**TOKENS, **SIZE),
    "parallel, one norm": GPTJConfig(**TOKENS, n_embd=32, n_layer=3, n_head=4, n_positions=64, rotary_dim=4),
    "multi-query": FalconConfig(**TOKENS, hidden_size=32, num_hidden_layers=3, num_attention_heads=4),
    "parallel, grouped": CohereConfig(**TOKENS, **SIZE, num_key_value_heads=2),
    "ALiBi": BloomConfig(**TOKENS, hidden_size=32, n_layer=3, n_head=4),
    "no MLP module": OPTConfig(
        **TOKENS, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32
    ),
}
WITHOUT_MLP = {"no MLP module", "ALiBi"}
"""Architectures whose MLP is no module that takes hidden states alone: they start with the whole block."""


@pytest.fixture(scope="module", params=CONFIGS)
def overlay(request, small_llm):
    torch.manual_seed(0)
    overlay = Overlay(small_llm(AutoModelForCausalLM.from_config(CONFIGS[request.param])))
    overlay.architecture = request.param
    return overlay


@pytest.fixture
def probes(overlay):
    return [overlay.lm.encode(text.rpartition(" ")[0], text.rpartition(" ")[2]) for text in TEXTS]


def memory_of(lm, edits=3, block=1, adapter=2, size=0.5, seed=0):
    """A memory of edits of rank one on a down-projection and an adapter on every linear of a later block."""
    generator, memory = torch.Generator().manual_seed(seed), Memory()

    def factors(name, rank):
        d_in, d_out = features(lm.linear(name))
        shapes = (rank, d_in), (d_out, rank)
        return tuple(size * torch.randn(shape, generator=generator) for shape in shapes)

    for number in range(edits):
        memory.put(f"edit:{number}", {lm.blocks[block].down_proj: factors(lm.blocks[block].down_proj, 1)})
    if adapter is not None:
        memory.put("lora", {name: factors(name, 4) for name in lm.blocks[adapter].linears})
    return memory


def record(outputs, module, args, output):
    outputs.append(output)


def plain_margins(overlay, memory, probes):
    with overlay.use(memory):
        return score(overlay.lm, probes).margin


def resumed_margins(overlay, memory, probes):
    return score(overlay.lm, probes, lambda rows, at: overlay.logits([memory], rows, at)).margin


@pytest.mark.parametrize("block", [0, 1, 2])
def test_answers_are_those_of_a_plain_pass(overlay, probes, block):
    memory = memory_of(overlay.lm, block=block)
    torch.testing.assert_close(
        resumed_margins(overlay, memory, probes), plain_margins(overlay, memory, probes), atol=1e-4, rtol=1e-4
    )


def test_a_pass_starts_as_high_as_it_can(overlay, probes):
    memory = memory_of(overlay.lm)
    resumed_margins(overlay, memory, probes)
    names = {name for term in memory.terms.values() for name in term.factors}
    wanted = start_at(overlay.lm, names)
    assert overlay._usable[wanted] == Start(1, inside=overlay.architecture not in WITHOUT_MLP)


def test_the_adapter_alone_starts_at_its_block(overlay, probes):
    memory = memory_of(overlay.lm, edits=0)
    torch.testing.assert_close(
        resumed_margins(overlay, memory, probes), plain_margins(overlay, memory, probes), atol=1e-4, rtol=1e-4
    )
    assert overlay._usable[Start(2)] == Start(2)


FUSED = {"fused", "Conv1D", "parallel", "multi-query", "ALiBi"}
"""Architectures that compute queries, keys and values in one linear."""


def behind_keys(lm, size=0.5):
    """A memory with an adapter on what the keys and values of the last block do not depend on."""
    memory = memory_of(lm, edits=0, adapter=2, size=size)
    factors = {
        name: pair
        for name, pair in memory.terms["lora"].factors.items()
        if name.rpartition(".")[2] not in ("k_proj", "v_proj", "qkv_proj", "c_attn", "query_key_value")
    }
    memory.put("lora", factors)
    return memory


def test_an_adapter_behind_keys_and_values_runs_the_tails_of_rows_only(overlay, probes):
    memory = behind_keys(overlay.lm)
    torch.testing.assert_close(
        resumed_margins(overlay, memory, probes), plain_margins(overlay, memory, probes), atol=1e-4, rtol=1e-4
    )
    wanted = start_at(overlay.lm, memory.terms["lora"].factors)
    if overlay.architecture not in WITHOUT_MLP | FUSED:
        assert wanted == Start(2, tails=True)
    assert overlay._usable[wanted] == wanted
    with_keys = memory_of(overlay.lm, edits=0, adapter=2)
    assert not start_at(overlay.lm, with_keys.terms["lora"].factors).tails


def test_a_continuation_of_tails_gives_the_logits_and_gradients_of_a_plain_pass(overlay):
    lm, memory = overlay.lm, behind_keys(overlay.lm)
    rows = [lm.encode(text).ids for text in TEXTS]
    starts = [len(row) - 2 for row in rows]
    at = torch.tensor([0, 1, 2, 1]), torch.tensor([starts[0], starts[1], starts[2] + 1, starts[1] + 1])
    found = []
    for run in (overlay.continuation(rows, memory.terms["lora"].factors, starts), None):
        factors = {n: (a.clone().requires_grad_(), b) for n, (a, b) in memory.terms["lora"].factors.items()}
        with overlay.use(Memory(), Term(factors)):
            logits = lm.logits_at(lm.pad(rows), *at) if run is None else run.logits(*at, narrow=True)
        logits.square().mean().backward()
        found.append([logits.detach(), *(a.grad for a, _ in factors.values())])
    for kept, plain in zip(*found, strict=True):
        torch.testing.assert_close(kept, plain, atol=1e-4, rtol=1e-3)


def test_tails_of_some_rows_and_of_several_learners(base):
    overlay, lm = Overlay(base.lm), base.lm
    memories = [memory_of(lm, edits=0, adapter=1, size=0.05, seed=seed) for seed in (1, 2)]
    for memory in memories:
        kept = {n: pair for n, pair in memory.terms["lora"].factors.items() if n.rpartition(".")[2][0] not in "kv"}
        memory.put("lora", kept)
    probes = [
        lm.encode(prompt, word) for prompt, word in (("Tom works as a", "nurse"), ("The home of Tom is in", "Rome"))
    ]
    together = score(lm, probes * 2, lambda rows, at: overlay.logits(memories, rows, at)).margin
    alone = torch.cat([plain_margins(overlay, memory, probes) for memory in memories])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    rows, starts = [probe.ids for probe in probes], [probe.object_start - 1 for probe in probes]
    run = overlay.continuation(rows, memories[0].terms["lora"].factors, starts)
    with torch.no_grad(), overlay.use(memories[0]):
        whole = run.logits(torch.tensor([0, 1]), torch.tensor(starts))
        some = run.select(torch.tensor([1])).logits(torch.tensor([0]), torch.tensor(starts[1:]))
    torch.testing.assert_close(some, whole[1:], atol=1e-4, rtol=1e-4)


def test_the_bare_model_runs_its_head_only(overlay, probes):
    torch.testing.assert_close(
        resumed_margins(overlay, Memory(), probes), plain_margins(overlay, Memory(), probes), atol=1e-4, rtol=1e-4
    )


def test_a_continuation_starts_inside_a_block_as_well(overlay):
    lm = overlay.lm
    rows = [lm.encode(text).ids for text in TEXTS]
    at = torch.arange(3), torch.tensor([len(row) - 1 for row in rows])
    memory = memory_of(lm)
    run = Continuation(lm, rows, [1, 5, 0], start_at(lm, [lm.blocks[1].down_proj]))
    assert run.start == Start(1, inside=overlay.architecture not in WITHOUT_MLP)
    with torch.no_grad(), overlay.use(memory):
        # Terms act on what is kept of earlier tokens too, so nothing may be kept of them here.
        run = Continuation(lm, rows, [0, 0, 0], run.start)
        torch.testing.assert_close(run.logits(*at), lm.logits_at(lm.pad(rows), *at), atol=1e-3, rtol=1e-3)


def test_memories_of_several_learners_share_a_pass(base, small_llm):
    torch.manual_seed(0)
    overlay = Overlay(small_llm(AutoModelForCausalLM.from_config(CONFIGS["llama"])))
    memories = [memory_of(overlay.lm, edits, seed=edits) for edits in (3, 0, 5)]
    probes = [overlay.lm.encode("Tom works as a", word) for word in ("nurse", "poet")]
    together = score(overlay.lm, probes * 3, lambda rows, at: overlay.logits(memories, rows, at)).margin
    alone = torch.cat([plain_margins(overlay, memory, probes) for memory in memories])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_terms_change_and_the_answers_with_them(small_llm):
    torch.manual_seed(0)
    overlay = Overlay(small_llm(AutoModelForCausalLM.from_config(CONFIGS["llama"])))
    probes = [overlay.lm.encode("Tom works as a", word) for word in ("nurse", "poet", "pilot")]
    memory = memory_of(overlay.lm)
    for change in (
        lambda: memory.scale("edit:1", 0.5),
        lambda: memory.remove("edit:0"),
        lambda: memory.put("edit:9", dict(memory_of(overlay.lm, 1, seed=5).terms["edit:0"].factors)),
        lambda: memory.put("edit:1", dict(memory_of(overlay.lm, 1, seed=6).terms["edit:0"].factors)),
        lambda: memory.remove("lora"),
        memory.clear,
    ):
        change()
        torch.testing.assert_close(
            resumed_margins(overlay, memory, probes), plain_margins(overlay, memory, probes), atol=1e-4, rtol=1e-4
        )


def test_terms_of_higher_rank_are_added_too(small_llm):
    torch.manual_seed(0)
    overlay = Overlay(small_llm(AutoModelForCausalLM.from_config(CONFIGS["llama"])))
    memory, name = memory_of(overlay.lm), overlay.lm.blocks[1].down_proj
    memory.put("other", {name: (torch.randn(3, 64), torch.randn(32, 3))})
    probes = [overlay.lm.encode("Tom works as a", "nurse")]
    torch.testing.assert_close(
        resumed_margins(overlay, memory, probes), plain_margins(overlay, memory, probes), atol=1e-4, rtol=1e-4
    )


def test_what_was_used_longest_ago_makes_room(base, monkeypatch):
    lm = base.lm
    rows = [lm.encode(f"{name} works as a").ids for name in ("Tom", "Mina", "Oscar", "Lena", "Hugo", "Clara")]
    kept = Kept(lm, Start(0, inside=True), 8)
    kept.capacity = 4
    first = kept.places(rows[:3])
    kept.places(rows[:1])
    kept.places(rows[3:5])
    assert rows[1] not in kept._places and rows[0] in kept._places and len(kept._places) == 4
    again = kept.places([rows[5], rows[0], rows[5]])
    assert again[0] == again[2] and again[1] == first[0]
    memory, term = Memory(), torch.randn(1, 2048)
    memory.put("edit", {kept.module: (term, torch.randn(128, 1))})
    for group in (rows[:4], rows[2:6], rows[:4], [rows[5], rows[0]]):
        places = kept.places(group)
        with base.overlay.use(memory):
            outputs = []
            with hooked(lm.linear(kept.module).register_forward_hook(partial(record, outputs))):
                lm.model(input_ids=lm.pad(group))
        tokens = max(map(len, group))
        torch.testing.assert_close(kept.below([memory], places, tokens).down, outputs[0], atol=1e-4, rtol=1e-4)


def test_more_terms_than_are_kept(base, monkeypatch):
    monkeypatch.setattr(kept_module, "_TERMS", 2)
    overlay, memory = Overlay(base.lm), memory_of(base.lm, edits=4, block=0, adapter=None, size=0.05)
    probes = [base.lm.encode("Tom works as a", word) for word in ("nurse", "poet")]
    for owners in ((), ("edit:0",), ("edit:0", "edit:1"), ("edit:2", "edit:3")):
        part = memory.without(owners)
        torch.testing.assert_close(
            resumed_margins(overlay, part, probes), plain_margins(overlay, part, probes), atol=1e-4, rtol=1e-4
        )


def test_perplexity_is_that_of_a_plain_pass(base):
    texts = base.statistics.held_out[:5]
    memory = memory_of(base.lm, edits=4, block=0, adapter=None, size=0.05)
    with base.overlay.use(memory):
        plain = perplexity(base.lm, texts)
    found = perplexity(base.lm, texts, logits=lambda rows, at: base.overlay.logits([memory], rows, at))
    assert found == pytest.approx(plain, rel=1e-4)


def test_perplexity_of_some_positions(base):
    texts = base.statistics.held_out[:3]
    columns = [[0, 3], [], [2]]
    logits = base.lm.logits_at(base.lm.pad(texts), torch.tensor([0, 0, 2]), torch.tensor([0, 3, 2]))
    targets = torch.tensor([texts[0][1], texts[0][4], texts[2][3]])
    expected = torch.nn.functional.cross_entropy(logits, targets).exp()
    assert perplexity(base.lm, texts, columns=columns) == pytest.approx(float(expected), rel=1e-4)


def test_the_last_bits_do_not_depend_on_what_was_asked_before(base):
    lm, memory = base.lm, memory_of(base.lm, edits=6, block=0, adapter=None, size=0.05)
    names = ("Tom", "Mina", "Oscar", "Lena", "Hugo", "Clara", "Ivan", "Nora", "Felix")
    rows = [lm.encode(f"The home of {name} is in").ids for name in names]
    at = torch.arange(9), torch.tensor([len(row) - 1 for row in rows])
    fresh = Overlay(lm).logits([memory], rows, at)
    used = Overlay(lm)
    for owners, some in ((("edit:0", "edit:4"), rows[7:]), ((), rows[2:5]), (("edit:1",), rows[::-2])):
        where = torch.arange(len(some)), torch.tensor([len(row) - 1 for row in some])
        used.logits([memory.without(owners)], some, where)
    assert torch.equal(used.logits([memory], rows, at), fresh)


def test_a_first_question_while_a_memory_is_in_use_starts_as_high(base):
    overlay, memory = Overlay(base.lm), memory_of(base.lm, edits=2, block=0, adapter=None, size=0.5)
    probes = [base.lm.encode("Tom works as a", "nurse")]
    with overlay.use(memory):
        resumed_margins(overlay, memory, probes)
    assert set(overlay._usable.values()) == {Start(0, inside=True)}
