"""``sleepgym inspect``: what sleepgym finds in a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sleepgym.lm import LanguageModel

FOUND, UNUSABLE = 0, 2


@dataclass(frozen=True)
class Args:
    """Look into a model: its blocks, where facts would be written, and what a memory takes. Nothing is changed.

    Status 0 if facts can be written into it, 2 if not, or if it cannot be loaded. An example: `sleepgym inspect tiny`.
    """

    model: tyro.conf.Positional[str]
    """"tiny", "gemma-3-270m" (extra: gemma), a folder, a GGUF file or a hub id"""
    device: str | None = None
    """where the model is loaded; by default a GPU if there is one"""
    json: bool = False
    """one object, for scripts"""

    def run(self) -> int:
        """Loads the model and prints what was found."""
        console = Console(highlight=False, soft_wrap=True)
        from transformers.utils import logging

        from sleepgym.cli.views import one_line, shown
        from sleepgym.lm import load

        logging.disable_progress_bar()
        try:
            with Console(stderr=True).status("loading"):
                found = facts_of(load(self.model, device=self.device))
        except Exception as error:  # whatever is in a folder that is said to be a model
            (Console(stderr=True, highlight=False, soft_wrap=True) if self.json else console).print(one_line(error))
            return UNUSABLE
        if self.json:
            console.print_json(json.dumps(found), indent=None)
            return FOUND
        table = Table(show_header=False)
        for name, value in found.items():
            table.add_row(name, shown(", ".join(map(str, value)) if isinstance(value, list) else str(value)))
        console.print(table)
        return FOUND


def facts_of(lm: LanguageModel) -> dict[str, Any]:
    """What is known of a loaded model, by name.

    Args:
        lm: The model.
    """
    from sleepgym.editing import spec_for
    from sleepgym.editing.calibration import calibrated
    from sleepgym.lm.architecture import features

    spec = spec_for(lm)
    d_in, d_out = features(lm.linear(lm.blocks[spec.layers[0]].down_proj))
    weights = {tensor.data_ptr(): tensor.nbytes for tensor in (*lm.model.parameters(), *lm.model.buffers())}
    return {
        "model": lm.name,
        "architecture": type(lm.model).__name__,
        "fingerprint": lm.fingerprint[:16],
        "parameters": sum(weight.numel() for weight in lm.model.parameters()),
        "blocks": len(lm.blocks),
        "type": str(lm.dtype).removeprefix("torch."),
        "device": str(lm.device),
        "weights, MB": round(sum(weights.values()) / 2**20, 1),
        "chat template": bool(lm.tokenizer.chat_template),
        "edited blocks": list(spec.layers),
        "edited linears": [lm.blocks[layer].down_proj for layer in spec.layers],
        "settings": "default" if calibrated(lm) is None else "calibrated",
        "gate": spec.gate,
        "a fact, kB": round(len(spec.layers) * (d_in + d_out) * lm.dtype.itemsize / 1000, 1),
        "statistics, MB": round(len(spec.layers) * d_in**2 * 4 / 2**20, 1),
    }
