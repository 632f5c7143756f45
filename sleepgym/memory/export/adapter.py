"""Export of a memory as a standard PEFT adapter for the unchanged base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save
from transformers.pytorch_utils import Conv1D

from sleepgym import files
from sleepgym.facts.fact import Fact
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.export.gates import warn_of_gates
from sleepgym.memory.export.readme import model_card
from sleepgym.memory.overlay import Memory

_CONFIG, _TENSORS, _CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


def export_adapter(lm: LanguageModel, memory: Memory, folder: Path, facts: Sequence[Fact] = ()) -> None:
    """Writes ``adapter_config.json``, ``adapter_model.safetensors`` and a ``README.md`` that describes them.

    Every term, edits and sleep's adapter alike, is a low-rank term on a linear: stacked per module they are one LoRA
    whose rank is the sum of theirs. ``PeftModel.from_pretrained(base, folder)`` gives the same logits, unless terms are
    gated: PEFT has no gates and adds them everywhere, as the README then says.

    Args:
        lm: Model that the memory belongs to.
        memory: Terms to export.
        folder: Folder of the adapter; created if needed, and an earlier adapter in it is replaced atomically.
        facts: Facts that the memory was taught, listed in the README.

    Raises:
        ValueError: The memory has no terms, and PEFT has no adapter without targets.
        FileExistsError: The folder has a README that is not of an adapter.
    """
    warn_of_gates(memory)
    # Imported here, since it takes long to load and episodes do not need it.
    from peft import LoraConfig

    stacked = {name: memory.stacked(name) for block in lm.blocks for name in block.linears}
    pairs = {name: pair for name, pair in stacked.items() if pair is not None}
    if not pairs:
        raise ValueError("expected a memory with at least one term to export, found none; inject or sleep first")
    if (folder / _CARD).exists() and not (folder / _CONFIG).exists():
        raise FileExistsError(
            f"expected a new folder or one with an adapter, found {folder} with a {_CARD} of something else; "
            "export into a folder of its own"
        )
    ranks = {name: a.shape[0] for name, (a, _) in pairs.items()}
    largest = max(ranks.values())
    # alpha equals the rank of each module, so that PEFT's scaling alpha / r is 1.
    config = LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        lora_dropout=0.0,
        fan_in_fan_out=isinstance(lm.linear(next(iter(pairs))), Conv1D),
        inference_mode=True,
        task_type="CAUSAL_LM",
        base_model_name_or_path=lm.name,
    )
    # PEFT converts targets to a set, whose order differs between processes.
    config.target_modules = sorted(pairs)
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.detach().cpu().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.detach().cpu().contiguous()
    card = model_card(lm, memory, pairs, facts).encode()
    with TemporaryDirectory() as temporary:
        config.save_pretrained(temporary)
        settings = (Path(temporary) / _CONFIG).read_bytes()
    files.write_all(folder, {_TENSORS: save(tensors, metadata={"format": "pt"}), _CONFIG: settings, _CARD: card})
