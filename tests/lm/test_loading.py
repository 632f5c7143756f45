import json
import pickle
import shutil
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sleepgym.lm import ArchitectureError, ModelLoadError, load

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
