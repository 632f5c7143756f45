import json
import pickle
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from sleepgym.editing import EditError
from sleepgym.lm import ArchitectureError, ModelLoadError, load, wrap
from sleepgym.sleeper import SleepingLM

TINY = Path(str(resources.files("sleepgym.lm"))) / "tiny"
WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    """A copy of the bundled model that a test may damage."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_local_folder_is_the_same_model_as_its_name(base, folder):
    lm = load(folder)
    assert lm.fingerprint == base.lm.fingerprint
    assert lm.blocks == base.lm.blocks


def test_other_weights_have_another_fingerprint(base, folder):
    weights = load_file(folder / WEIGHTS)
    name = base.lm.blocks[0].down_proj + ".weight"
    save_file({**weights, name: weights[name] + 1e-3}, folder / WEIGHTS, metadata={"format": "pt"})
    assert load(folder).fingerprint != base.lm.fingerprint


def test_fingerprint_does_not_depend_on_the_version_of_transformers(base, monkeypatch):
    # Else statistics that ship with the model, targets and checkpoints are lost with every upgrade.
    monkeypatch.setattr("transformers.configuration_utils.__version__", "5.99.0")
    assert load("tiny").fingerprint == base.lm.fingerprint


def test_model_is_frozen_and_in_eval_mode(base):
    assert not base.lm.model.training
    assert not any(p.requires_grad for p in base.lm.model.parameters())


@pytest.mark.parametrize("name", ["no-such-model", "no/such-model", "/no/such/folder", ""])
def test_unknown_name_is_refused(name):
    with pytest.raises(ModelLoadError):
        load(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")], ids=str)
def test_absent_device_is_refused_with_those_there_are(device):
    with pytest.raises(ModelLoadError, match=r"expected a device that torch can use \(here: cpu\), found 'cuda"):
        load("tiny", device=device)


def test_misspelt_device_is_refused():
    with pytest.raises(ModelLoadError, match="found 'gpu'"):
        load("tiny", device="gpu")


def test_missing_gguf_file_is_refused(tmp_path):
    with pytest.raises(ModelLoadError, match=r"expected a GGUF file at .*absent\.gguf"):
        load(tmp_path / "absent.gguf")


def test_damaged_gguf_file_is_refused(tmp_path):
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelLoadError):
        load(tmp_path / "damaged.gguf")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" * 64 + data[64:],
        lambda data: b"",
    ],
    ids=["truncated", "broken header", "empty"],
)
def test_corrupt_weights_are_refused(folder, damage):
    path = folder / WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelLoadError, match="failed to load"):
        load(folder)


def test_folder_without_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelLoadError):
        load(folder)


class _Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_weights_are_refused_and_never_opened(folder, tmp_path):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelLoadError):
        load(folder)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(ModelLoadError):
        load(folder)
    assert not (tmp_path / "sprung").exists()


def test_code_in_a_model_folder_is_never_run(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {k: f"evil.{k}" for k in ("AutoConfig", "AutoModelForCausalLM")}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n")
    with pytest.raises(ModelLoadError):
        load(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_code_of_a_tokenizer_is_neither_run_nor_offered(kind, adapter, folder, tmp_path, monkeypatch):
    of = folder if kind == "model" else Path(shutil.copytree(adapter, tmp_path / "adapter"))
    about = {"tokenizer_class": "Unheard", "auto_map": {"AutoTokenizer": ["evil.Unheard", None]}}
    (of / "tokenizer_config.json").write_text(json.dumps(about))
    (of / "config.json").write_bytes((folder / "config.json").read_bytes())
    (of / "evil.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()\n")
    monkeypatch.setattr("builtins.input", lambda prompt="": "y")
    with pytest.raises(ModelLoadError):
        load(of)
    assert not (tmp_path / "sprung").exists()


def test_model_that_cannot_be_edited_is_refused(tmp_path, base):
    from transformers import AutoModelForCausalLM, MixtralConfig

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MixtralConfig(vocab_size=99, num_key_value_heads=2, num_local_experts=2, **size)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    base.lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ArchitectureError, match="mixture of experts"):
        load(tmp_path)


def test_encoder_is_refused(tmp_path, base):
    from transformers import AutoModelForCausalLM, BertConfig

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    AutoModelForCausalLM.from_config(BertConfig(vocab_size=99, **size)).save_pretrained(tmp_path)
    base.lm.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ArchitectureError, match="expected a causal model"):
        load(tmp_path)


def test_one_model_has_one_fingerprint_whatever_its_dtype(base) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        lm = load("tiny", dtype=dtype)
        assert lm.dtype == dtype
        assert lm.fingerprint == base.lm.fingerprint


@pytest.fixture(scope="module")
def adapter(base, world, tmp_path_factory) -> Path:
    """An exported adapter that holds three facts."""
    learner = SleepingLM(base)
    learner.inject(world.new_facts(np.random.default_rng(5), 4)[:3])
    folder = tmp_path_factory.mktemp("adapter")
    learner.export_adapter(folder)
    return folder


@pytest.mark.slow
def test_the_folder_of_an_adapter_is_its_base_with_the_adapter_merged(
    base, world, adapter: Path, tmp_path: Path
) -> None:
    facts = world.new_facts(np.random.default_rng(5), 4)
    learner = SleepingLM.from_pretrained(str(adapter), edit=base.editor.spec)
    assert learner.lm.fingerprint != base.lm.fingerprint
    assert load(adapter).fingerprint == learner.lm.fingerprint
    questions = [fact.questions[0] for fact in facts]
    taught = SleepingLM(base)
    taught.inject(facts[:3])
    assert learner.ask(questions[:3]) == taught.ask(questions[:3])
    assert learner.ask(questions[0]) == facts[0].object
    learner.inject(facts[3:])
    learner.export_merged(tmp_path / "merged")
    again = SleepingLM.from_pretrained(tmp_path / "merged")
    assert again.ask(questions) == learner.ask(questions)
    assert learner.ask(questions[3]) == facts[3].object
    # What is exported on top names linears that PEFT finds in the base.
    learner.export_adapter(tmp_path / "adapter")
    names = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert not any("base_layer" in name for name in names)


def test_adapters_that_cannot_be_merged_are_refused_by_name(adapter: Path, tmp_path: Path, base) -> None:
    with pytest.raises(ModelLoadError, match="expected a base with floating-point weights for the adapter"):
        load(adapter, quantization="4bit")
    shutil.copytree(adapter, tmp_path / "pickled")
    (tmp_path / "pickled" / "adapter_model.safetensors").rename(tmp_path / "pickled" / "adapter_model.bin")
    with pytest.raises(ModelLoadError, match=r"expected adapter_model\.safetensors beside adapter_config\.json"):
        load(tmp_path / "pickled")
    peft_model = PeftModel.from_pretrained(load("tiny").model, str(adapter))
    with pytest.raises(ModelLoadError, match="expected a model of transformers, found PeftModel"):
        wrap(peft_model, base.lm.tokenizer)
    with pytest.raises(ModelLoadError, match="expected a model without adapters on it, found layers of PEFT"):
        wrap(peft_model.base_model.model, base.lm.tokenizer)


def test_a_learner_starts_from_a_model_and_tokenizer_in_memory(base, world) -> None:
    lm = load("tiny")
    learner = SleepingLM.from_model(lm.model, lm.tokenizer, "mine", edit=base.editor.spec)
    assert learner.lm.name == "mine" and learner.lm.fingerprint == base.lm.fingerprint
    facts = world.new_facts(np.random.default_rng(5), 2)
    assert learner.inject(facts).recall == 1.0


@pytest.mark.slow
def test_a_merged_export_keeps_what_its_base_was_calibrated_to(base, world, tmp_path: Path) -> None:
    learner = SleepingLM.from_pretrained("tiny")
    learner.inject(world.new_facts(np.random.default_rng(5), 4))
    learner.export_merged(tmp_path)
    again = SleepingLM.from_pretrained(tmp_path)
    assert again.base.editor.spec == learner.base.editor.spec
    for seed in range(3):
        again.reset()
        assert again.inject(world.new_facts(np.random.default_rng(100 + seed), 5)).recall == 1.0
    (tmp_path / "sleepgym_edit.json").write_text('{"edit": 3}')
    with pytest.raises(EditError, match="expected the recipe of an exported model"):
        SleepingLM.from_pretrained(tmp_path)
