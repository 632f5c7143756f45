"""Copies of GGUF files are the file's weights and tokenizer, and are made anew when they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sleepgym.files import PART, cache_dir
from sleepgym.lm import LanguageModel, load, unpacked

gguf = pytest.importorskip("gguf", reason="needs the extra gemma")

WIDTH, HEADS, INNER = 32, 2, 48
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
WORDS = ["▁", "▁▁", *"abcdefghijklmnopqrstuvwxyz.ABC", "ab", "▁a", "▁ab", "the", "th", "▁th", "▁the", "▁t"]


def write_gguf(path: Path, seed: int = 0) -> Path:
    """Writes a small random Gemma with a small vocabulary."""
    rng, writer = np.random.default_rng(seed), gguf.GGUFWriter(path, "gemma3")
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([token.replace("▁▁", "  ") for token in tokens])
    writer.add_token_scores([float(-index) for index in range(len(tokens))])
    writer.add_token_types([3] * len(SPECIAL) + [6] * 256 + [4 if word == "▁▁" else 1 for word in WORDS])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", rng.normal(scale=0.1, size=shape).astype(np.float32))

    add("token_embd", len(tokens), WIDTH)
    add("output_norm", WIDTH)
    for block in ("blk.0", "blk.1"):
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            add(f"{block}.{norm}", WIDTH)
        for norm in ("attn_q_norm", "attn_k_norm"):
            add(f"{block}.{norm}", 16)
        for linear, shape in {
            "attn_q": (32, 32),
            "attn_k": (16, 32),
            "attn_v": (16, 32),
            "attn_output": (32, 32),
        }.items():
            add(f"{block}.{linear}", *shape)
        add(f"{block}.ffn_gate", INNER, WIDTH)
        add(f"{block}.ffn_up", INNER, WIDTH)
        add(f"{block}.ffn_down", WIDTH, INNER)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLEEPGYM_CACHE", str(tmp_path / "cache"))
    return write_gguf(tmp_path / "small.gguf")


def copied_weights() -> Path:
    (found,) = cache_dir("unpacked").glob("*/model.safetensors")
    return found


def weights_of(lm: LanguageModel) -> dict[str, torch.Tensor]:
    """A copy: what is loaded lies in the file itself, which tests damage."""
    return {name: weight.clone() for name, weight in lm.model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def directly(file: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=dtype, local_files_only=True)
    return model.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_copy_has_the_weights_of_its_file_bit_for_bit(file: Path, dtype: torch.dtype) -> None:
    expected = directly(file, dtype)
    for _ in ("the first load", "a later one"):
        found = weights_of(load(file, dtype=dtype))
        assert same(found, expected) and {weight.dtype for weight in found.values()} == {dtype}


def test_half_precision_is_rounded_from_what_the_file_says(file: Path) -> None:
    expected, lm = directly(file, torch.float32), load(file, dtype=torch.float16)
    assert all(torch.equal(lm.model.state_dict()[name], expected[name].half()) for name in expected)
    assert lm.fingerprint == load(file).fingerprint


def test_a_copy_can_be_spread_over_all_devices(file: Path) -> None:
    pytest.importorskip("accelerate")
    expected = weights_of(load(file))
    assert same(weights_of(load(file, device="auto", dtype=torch.float32)), expected)


def test_later_loads_do_not_read_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(file)
    monkeypatch.setattr(gguf.GGUFReader, "__init__", lambda *_: pytest.fail("the file was read again"))
    again = load(file)
    assert same(weights_of(first), weights_of(again)) and first.fingerprint == again.fingerprint
    assert first.tokenizer("the ab  ab").input_ids == again.tokenizer("the ab  ab").input_ids
    assert again.folder is None  # it is the file's model, wherever its copy lies


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: save_file(
            {name: torch.zeros_like(weight) for name, weight in load_file(path).items()}, path, metadata_of(path)
        ),
        lambda path: path.with_name("config.json").write_text("{"),
    ],
    ids=["truncated", "empty", "other weights", "no configuration"],
)
def test_a_damaged_copy_is_made_anew(file: Path, damage: Callable[[Path], object]) -> None:
    lm = load(file)
    expected, fingerprint = weights_of(lm), lm.fingerprint
    damage(copied_weights())
    assert same(weights_of(load(file)), expected)
    assert metadata_of(copied_weights())["fingerprint"] == fingerprint
    assert not list(cache_dir("unpacked").rglob(f"*{PART}"))


def test_a_damaged_tokenizer_is_built_anew(file: Path) -> None:
    expected = load(file).tokenizer("the ab").input_ids
    (vocabulary,) = cache_dir("tokenizers").glob("*/tokenizer.json")
    vocabulary.write_bytes(vocabulary.read_bytes()[:100])
    assert load(file).tokenizer("the ab").input_ids == expected


def test_a_copy_by_another_version_of_transformers_is_made_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(file)
    monkeypatch.setattr(unpacked.transformers, "__version__", "5.99.0")
    load(file)
    assert metadata_of(copied_weights())["transformers"] == "5.99.0"


def test_another_file_has_a_copy_of_its_own(file: Path) -> None:
    first = load(file)
    assert load(write_gguf(file.with_name("other.gguf"), seed=1)).fingerprint != first.fingerprint
    assert load(file).fingerprint == first.fingerprint


def test_a_file_that_is_too_large_for_a_copy_is_loaded_without_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = weights_of(load(file))
    copied_weights().unlink()
    monkeypatch.setattr(unpacked, "LARGEST_COPY_GIB", 1e-9)
    assert same(weights_of(load(file)), expected)
    assert not list(cache_dir("unpacked").glob("*/model.safetensors"))


def test_a_full_disk_is_no_reason_not_to_load(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacked.files, "write_with", full)
    assert load(file).fingerprint
    assert not list(cache_dir("unpacked").glob("*/model.safetensors"))


def test_others_may_read_a_copy_as_they_may_read_other_files(file: Path) -> None:
    load(file)
    usual = file.with_name("usual")
    usual.touch()
    assert copied_weights().stat().st_mode == usual.stat().st_mode


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as weights:
        return dict(weights.metadata())
