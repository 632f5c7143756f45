"""Export of a memory merged into the weights of a standalone model, which runs without sleepgym."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sleepgym import files
from sleepgym.lm.generation import plain_configuration
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.export.gates import warn_of_gates
from sleepgym.memory.overlay import Memory


def export_merged(lm: LanguageModel, memory: Memory, folder: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Writes the model with every term added to its weights, and its tokenizer, as transformers saves them.

    The loaded base is unchanged: merged tensors replace its own in the saved state only, so that no more than the
    edited weights are held twice. Unlike in an adapter, terms can no longer be separated or reverted. Gates are lost:
    weights add all terms everywhere.

    Args:
        lm: The model that the memory belongs to.
        memory: Terms to merge; empty, the base is saved as it is.
        folder: Made if needed.
        beside: Further files for it, by name, such as what the base was calibrated to.

    Raises:
        ValueError: The base is quantized, and its weights cannot represent the sum.
    """
    _require_unquantized(lm)
    warn_of_gates(memory)
    tensors = dict(lm.model.state_dict())
    for block in lm.blocks:
        for name in block.linears:
            pair = memory.stacked(name)
            if pair is not None:
                tensors[f"{name}.weight"] = _merged(lm.linear(name), *pair)
    # Without penalties and the like: greedy decoding is to say what it said here.
    with lm.guard.exclusive(), plain_configuration(lm):
        lm.model.save_pretrained(folder, state_dict=tensors)
    lm.tokenizer.save_pretrained(folder)
    files.write_all(folder, beside or {})


def _merged(module: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """Returns ``W + B A`` in the layout and dtype of the weight, summed in float64."""
    weight = module.get_parameter("weight").detach()
    term = b.to(weight.device, torch.float64) @ a.to(weight.device, torch.float64)
    # Conv1D stores its weight as [d_in, d_out].
    return (weight.double() + (term.T if isinstance(module, Conv1D) else term)).to(weight.dtype)


def _require_unquantized(lm: LanguageModel) -> None:
    edited = [lm.linear(name) for block in lm.blocks for name in block.linears]
    floating = all(m.get_parameter("weight").is_floating_point() for m in edited)
    if getattr(lm.model, "is_quantized", False) or not floating:
        raise ValueError(
            f"expected a base with floating-point weights to merge into, found {lm.name!r} quantized; "
            "load the base unquantized (without `quantization`) and export its memory from there, "
            "or publish an adapter with export_adapter"
        )
