"""Publishes a memory as a standard PEFT adapter for the untouched base model."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

from sleepgym.lm.language_model import LanguageModel
from sleepgym.overlay import Memory


def export_adapter(lm: LanguageModel, memory: Memory, folder: Path) -> None:
    """Writes ``adapter_config.json`` and ``adapter_model.safetensors``.

    Every term, edits and sleep's adapter alike, is a low-rank term on a linear: stacked per module they are
    one LoRA whose rank is the sum of theirs. ``PeftModel.from_pretrained(base, folder)`` gives the same logits.

    Args:
        lm: The model that the memory belongs to.
        memory: Terms to publish.
        folder: Made if needed.

    Raises:
        ValueError: The memory is empty: PEFT has no adapter without a target.
    """
    stacked = {name: memory.stacked(name) for block in lm.blocks for name in block.linears}
    pairs = {name: pair for name, pair in stacked.items() if pair is not None}
    if not pairs:
        raise ValueError("expected a memory with at least one term to export, found none; inject or sleep first")
    ranks = {name: a.shape[0] for name, (a, _) in pairs.items()}
    largest = max(ranks.values())
    # alpha equals the rank module by module, so that PEFT's scaling alpha / r is 1 everywhere.
    config = LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=sorted(pairs),
        lora_dropout=0.0,
        fan_in_fan_out=isinstance(lm.linear(next(iter(pairs))), Conv1D),
        inference_mode=True,
        task_type="CAUSAL_LM",
        base_model_name_or_path=lm.name,
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.detach().cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
