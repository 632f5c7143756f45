from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, GPT2Config, LlamaConfig

from sleepgym.lm.architecture import features
from sleepgym.memory.export.merged import export_merged
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.owners import owner_of

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 99, "num_hidden_layers": 2}
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
CONFIGS = {
    "gpt2": GPT2Config(**IDS, n_embd=32, n_head=4, n_positions=32),
    "gemma3": Gemma3TextConfig(**IDS, **SIZE, num_key_value_heads=2, head_dim=8),
    "llama": LlamaConfig(**IDS, **SIZE),
}
TOKENS = torch.arange(3, 15)[None]


@torch.no_grad()
def stock_logits(folder, ids=TOKENS):
    """What transformers alone makes of a folder."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(input_ids=ids).logits


@torch.no_grad()
def logits(lm, memory, ids=TOKENS):
    with Overlay(lm).use(memory):
        return lm.model(input_ids=ids).logits


@pytest.fixture(params=CONFIGS)
def lm(request, small_llm):
    torch.manual_seed(0)
    return small_llm(AutoModelForCausalLM.from_config(CONFIGS[request.param]))


@pytest.fixture
def memory(lm):
    """Terms of several ranks and scales on every linear of both blocks, one of them switched off."""
    memory = Memory()
    for rank, scale in ((1, 0.5), (2, 1.0), (3, 0.0)):
        shapes = {name: features(lm.linear(name)) for block in lm.blocks for name in block.linears}
        factors = {n: (torch.randn(rank, d_in), 0.1 * torch.randn(d_out, rank)) for n, (d_in, d_out) in shapes.items()}
        memory.put(f"term {rank}", factors, scale)
    return memory


def test_merged_model_has_the_overlays_logits_in_stock_transformers(learner, facts, tmp_path):
    learner.inject(facts[:4])
    learner.state.memory.scale(owner_of(facts[0]), 0.5)
    learner.export_merged(tmp_path)
    ids = learner.lm.pad([learner.lm.encode(f.statement).ids for f in facts])
    with torch.no_grad(), learner.base.overlay.use(learner.state.memory):
        expected = learner.lm.model(input_ids=ids).logits
    torch.testing.assert_close(stock_logits(tmp_path, ids), expected, atol=1e-4, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(facts[0].statement)["input_ids"] == learner.lm.tokenizer(facts[0].statement)["input_ids"]
    assert tokenizer.chat_template == learner.lm.tokenizer.chat_template


def test_every_term_is_merged_at_its_scale_whatever_the_layout(lm, memory, tmp_path):
    export_merged(lm, memory, tmp_path)
    expected = logits(lm, memory)
    assert not torch.allclose(expected, logits(lm, Memory()), atol=1e-2)
    torch.testing.assert_close(stock_logits(tmp_path), expected, atol=1e-4, rtol=0)


def test_base_is_never_written(lm, memory, tmp_path):
    before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    export_merged(lm, memory, tmp_path)
    assert all(torch.equal(weight, before[name]) for name, weight in lm.model.state_dict().items())


def test_empty_memory_gives_the_base_bitwise(lm, tmp_path):
    export_merged(lm, Memory(), tmp_path)
    assert torch.equal(stock_logits(tmp_path), logits(lm, Memory()))


def test_tied_weights_are_stored_once(lm, memory, tmp_path):
    export_merged(lm, memory, tmp_path)
    tied = lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in set(file.keys())) is not tied


def test_weights_keep_their_type(small_llm, tmp_path):
    lm = small_llm(AutoModelForCausalLM.from_config(CONFIGS["llama"]).to(torch.bfloat16))
    name = lm.blocks[0].down_proj
    memory = Memory()
    memory.put("fact", {name: (torch.ones(1, 64), torch.ones(32, 1))})
    export_merged(lm, memory, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        merged = file.get_tensor(f"{name}.weight")
    assert torch.equal(merged, (lm.linear(name).weight.double() + 1).to(torch.bfloat16))


def test_quantized_base_is_refused_before_anything_is_written(lm, memory, tmp_path):
    lm.model.is_quantized = True
    with pytest.raises(ValueError, match=r"floating-point weights .* 'random' quantized; load the base unquantized"):
        export_merged(lm, memory, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_weight_that_is_packed_into_integers_is_refused(base, small_llm, tmp_path):
    lm = small_llm(AutoModelForCausalLM.from_config(CONFIGS["llama"]))
    packed = torch.nn.Parameter(torch.zeros(64, 16, dtype=torch.uint8), requires_grad=False)
    lm.linear(lm.blocks[0].down_proj).weight = packed
    with pytest.raises(ValueError, match="quantized"):
        export_merged(replace(lm, name="packed"), Memory(), tmp_path)
