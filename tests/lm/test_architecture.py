import pytest
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    JambaConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    XLMConfig,
)

from sleepgym.lm import ArchitectureError, find_blocks
from sleepgym.lm.architecture import features, is_linear, require_causal

IDS = {"vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = LlamaConfig(**IDS, **SIZE)
# Where tests/editing/test_architectures.py teaches facts to every family, this is about what a block is said to be.
MODELS = {
    "llama": (LLAMA, "model.layers.{}.mlp.down_proj", 7),
    "gpt2": (GPT2Config(**IDS, n_layer=3, n_head=4, n_embd=32, n_positions=64), "transformer.h.{}.mlp.c_proj", 4),
    "opt": (OPTConfig(**IDS, **SIZE, ffn_dim=64, word_embed_proj_dim=32), "model.decoder.layers.{}.fc2", 6),
    "phi": (PhiConfig(**IDS, **SIZE), "model.layers.{}.mlp.fc2", 6),
}


def llama(**changes):
    return AutoModelForCausalLM.from_config(LlamaConfig(**IDS, **(SIZE | changes)))


@pytest.mark.parametrize("name", MODELS)
def test_blocks_name_their_down_projection_and_every_linear(name):
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


@pytest.mark.parametrize("inner", [16, 32, 64], ids=["narrower", "as wide", "wider"])
def test_down_projection_is_found_however_wide_the_mlp_is(inner):
    blocks = find_blocks(llama(intermediate_size=inner))
    assert [block.down_proj for block in blocks] == [f"model.layers.{i}.mlp.down_proj" for i in range(3)]


def test_bottleneck_beside_the_mlp_is_not_taken_for_it():
    model = llama()
    for layer in model.model.layers:
        layer.adapter = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 32))
    blocks = find_blocks(model)
    assert blocks[0].down_proj == "model.layers.0.mlp.down_proj"
    assert "model.layers.0.adapter.1" in blocks[0].linears


def test_second_mlp_is_refused_with_both_names():
    model = llama()
    model.model.layers[1].other = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32))
    with pytest.raises(
        ArchitectureError, match=r"one MLP in model\.layers\.1, found 2 .* \(mlp\.down_proj, other\.1\)"
    ):
        find_blocks(model)


def test_linear_that_is_no_part_of_the_mlp_is_refused():
    model = llama()
    model.model.layers[2].gate = nn.Linear(32, 5)
    with pytest.raises(ArchitectureError, match=r"model\.layers\.2 .* and nothing else; found .*gate 32 -> 5"):
        find_blocks(model)


def test_model_without_mlp_is_refused_with_what_was_looked_for():
    model = llama()
    for layer in model.model.layers:
        layer.mlp = nn.Identity()
    with pytest.raises(ArchitectureError, match=r"expected an MLP outside attention .* found no linear at all"):
        find_blocks(model)


def test_block_without_attention_is_refused_even_among_others():
    layers = {"attn_layer_period": 3, "attn_layer_offset": 0, "num_experts": 1, "mamba_dt_rank": 4}
    model = AutoModelForCausalLM.from_config(JambaConfig(**IDS, **SIZE, **layers))
    with pytest.raises(ArchitectureError, match=r"attention in every block, found none in model\.layers\.1 \(.*Mamba"):
        find_blocks(model)


def test_attention_and_mlps_in_lists_of_their_own_are_refused_in_these_words():
    config = XLMConfig(vocab_size=99, emb_dim=32, n_layers=3, n_heads=4)
    with pytest.raises(
        ArchitectureError, match=r"transformer\.ffns\.0 .* or models that list attention and MLPs apart"
    ):
        find_blocks(AutoModelForCausalLM.from_config(config))


def test_model_without_block_list_is_refused():
    model = llama()
    model.config.num_hidden_layers = 5
    with pytest.raises(ArchitectureError, match="expected a ModuleList of 5 blocks"):
        find_blocks(model)


def test_bidirectional_attention_is_refused_and_the_same_modules_as_decoder_are_not():
    for is_decoder in (True, False):
        model = AutoModelForCausalLM.from_config(BertConfig(**IDS, **SIZE, is_decoder=is_decoder)).eval()
        if is_decoder:
            require_causal(model)
        else:
            with pytest.raises(ArchitectureError, match="expected a causal model, found that BertLMHeadModel"):
                require_causal(model)
