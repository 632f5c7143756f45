import json

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GPT2Config

from sleepgym.consolidation.adapter_io import export_adapter
from sleepgym.editing import owner_of
from sleepgym.lm import load
from sleepgym.lm.architecture import features
from sleepgym.overlay import Memory, Overlay


@torch.no_grad()
def with_peft(model, folder, ids):
    return PeftModel.from_pretrained(model, str(folder))(input_ids=ids).logits


def test_exported_memory_gives_the_same_logits_in_stock_peft(learner, facts, tmp_path):
    learner.inject(facts[:4])
    learner.sleep()
    for fact, scale in zip(facts[:3], (1.0, 0.5, 0.0), strict=True):
        learner.state.memory.scale(owner_of(fact), scale)
    learner.export_adapter(tmp_path / "adapter")

    ids = learner.lm.pad([learner.lm.encode(f.statement).ids for f in facts])
    with torch.no_grad(), learner.base.overlay.use(learner.state.memory):
        expected = learner.lm.model(input_ids=ids).logits
    torch.testing.assert_close(with_peft(load("tiny").model, tmp_path / "adapter", ids), expected, atol=1e-4, rtol=0)


def test_conv1d_models_are_exported_too(small_llm, tmp_path):
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 99}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(**ids, n_embd=32, n_layer=2, n_head=4, n_positions=32))
    lm, memory = small_llm(model), Memory()
    for seed, layer in ((1, 0), (2, 1)):
        name = lm.blocks[layer].down_proj
        d_in, d_out = features(lm.linear(name))
        memory.put(f"fact {seed}", {name: (torch.randn(seed, d_in), 0.2 * torch.randn(d_out, seed))}, scale=0.5)
    export_adapter(lm, memory, tmp_path)
    fresh = AutoModelForCausalLM.from_config(model.config)
    fresh.load_state_dict(model.state_dict())
    overlay, tokens = Overlay(lm), torch.arange(3, 15)[None]
    with torch.no_grad(), overlay.use(memory):
        expected = lm.model(input_ids=tokens).logits
    assert not torch.allclose(expected, fresh.eval()(input_ids=tokens).logits)
    torch.testing.assert_close(with_peft(fresh.eval(), tmp_path, tokens), expected, atol=1e-4, rtol=0)


def test_adapter_is_safetensors_and_json_alone(learner, facts, tmp_path):
    learner.inject(facts[:1])
    learner.export_adapter(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert len(list(file.keys())) == 2 * len(learner.base.editor.spec.layers)


@pytest.mark.parametrize("prepare", [lambda m: None, lambda m: m.put("off", {}, 0.0)], ids=["empty", "switched off"])
def test_empty_memory_cannot_be_exported(base, tmp_path, prepare):
    memory = Memory()
    prepare(memory)
    with pytest.raises(ValueError, match="expected a memory with at least one term"):
        export_adapter(base.lm, memory, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
