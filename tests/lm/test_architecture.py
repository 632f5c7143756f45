import pytest
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2MoeConfig,
    Qwen3Config,
)

from sleepgym.lm import ArchitectureError, find_blocks
from sleepgym.lm.architecture import features, is_linear

IDS = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
CLASSIC = {"n_layer": 3, "n_head": 4}
MODELS = {
    "llama": (LlamaConfig(**IDS, **SIZE), "model.layers.{}.mlp.down_proj", 7),
    "gpt2": (GPT2Config(**IDS, **CLASSIC, n_embd=32, n_positions=64), "transformer.h.{}.mlp.c_proj", 4),
    "gpt_neox": (GPTNeoXConfig(**IDS, **SIZE), "gpt_neox.layers.{}.mlp.dense_4h_to_h", 4),
    "opt": (OPTConfig(**IDS, **SIZE, ffn_dim=64, word_embed_proj_dim=32), "model.decoder.layers.{}.fc2", 6),
    "bloom": (BloomConfig(**IDS, **CLASSIC, hidden_size=32), "transformer.h.{}.mlp.dense_4h_to_h", 4),
    "gemma3": (Gemma3TextConfig(**IDS, **SIZE, head_dim=8), "model.layers.{}.mlp.down_proj", 7),
    "phi": (PhiConfig(**IDS, **SIZE), "model.layers.{}.mlp.fc2", 6),
    "qwen3": (Qwen3Config(**IDS, **SIZE, head_dim=8), "model.layers.{}.mlp.down_proj", 7),
}


@pytest.mark.parametrize("name", MODELS)
def test_down_projection_of_every_block_is_found_by_structure(name):
    config, down_proj, linears = MODELS[name]
    model = AutoModelForCausalLM.from_config(config)
    blocks = find_blocks(model)
    assert [block.down_proj for block in blocks] == [down_proj.format(i) for i in range(3)]
    for block in blocks:
        assert len(block.linears) == linears
        assert block.down_proj in block.linears
        assert all(is_linear(model.get_submodule(linear)) for linear in block.linears)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_features_are_read_in_the_same_order_for_linear_and_conv1d(name):
    model = AutoModelForCausalLM.from_config(MODELS[name][0])
    d_in, d_out = features(model.get_submodule(find_blocks(model)[0].down_proj))
    assert (d_in, d_out) == ({"llama": 64, "gpt2": 128}[name], 32)


def test_bundled_model_has_one_block_per_layer(base):
    assert len(base.lm.blocks) == base.lm.model.config.num_hidden_layers
    for block in base.lm.blocks:
        assert features(base.lm.linear(block.down_proj))[1] == base.lm.model.config.hidden_size


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**IDS, **SIZE, num_key_value_heads=2, num_local_experts=4),
        Qwen2MoeConfig(**IDS, **SIZE, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=24),
    ],
    ids=["experts", "shared expert"],
)
def test_mixture_of_experts_is_named_in_the_error(config):
    with pytest.raises(ArchitectureError, match="mixture of experts"):
        find_blocks(AutoModelForCausalLM.from_config(config))


def test_model_without_mlp_is_refused_with_what_was_looked_for():
    model = AutoModelForCausalLM.from_config(MODELS["llama"][0])
    for layer in model.model.layers:
        layer.mlp = nn.Identity()
    with pytest.raises(ArchitectureError, match=r"expected a linear outside attention .* found no linear at all"):
        find_blocks(model)


def test_model_without_block_list_is_refused():
    model = AutoModelForCausalLM.from_config(MODELS["llama"][0])
    model.config.num_hidden_layers = 5
    with pytest.raises(ArchitectureError, match="expected a ModuleList of 5 blocks"):
        find_blocks(model)
