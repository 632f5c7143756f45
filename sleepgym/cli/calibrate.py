"""``sleepgym calibrate``: finds the settings of edits for a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

WRITTEN, UNUSABLE = 0, 2


@dataclass(frozen=True)
class Args:
    """Find the settings of edits that suit a model, by writing facts with many, and keep them beside its statistics.

    `sleepgym chat`, `SleepingLM.from_pretrained` and the benchmarks use them from then on. Takes minutes for tiny, and
    hours for large models without a GPU. Status 2 if the model cannot be loaded or edited. An example:
    `sleepgym calibrate gemma-3-270m --facts 10`.
    """

    model: tyro.conf.Positional[str]
    """"tiny", "gemma-3-270m" (extra: gemma), a folder, a GGUF file or a hub id"""
    facts: int = 20
    """facts that are written with each setting"""
    seed: int = 2000
    """seed of the choice of facts"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """type of the model's weights"""
    layers: tuple[int, ...] = ()
    """blocks to edit; by default several runs of blocks are tried"""
    clamps: tuple[float, ...] = (0.5, 0.8, 1.5)
    """lengths of targets to try"""
    prefixes: int = 3
    """contexts of a target"""
    gate: float = 0.5
    """gate of edits, which is not searched for"""
    neighbours: int = 0
    """others of a relation that edits leave alone; not searched for"""
    out: Path | None = None
    """JSON file of the settings; by default beside the model's statistics in the cache"""

    def run(self) -> int:
        """Prints a line per trial, and writes the best settings."""
        console = Console(width=150, highlight=False)
        import numpy as np
        import torch
        from transformers.utils import logging

        from sleepgym.cli.views import one_line, shown
        from sleepgym.editing import EditSpec, calibrate
        from sleepgym.editing.calibration import calibration_path
        from sleepgym.errors import SleepGymError
        from sleepgym.facts.source import with_neighbours
        from sleepgym.lm import facts_for, load
        from sleepgym.memory.overlay import Overlay

        logging.disable_progress_bar()
        try:
            start = EditSpec(prefixes=self.prefixes, gate=self.gate, neighbours=self.neighbours)
            lm = load(self.model, dtype=getattr(torch, self.dtype))
            source, rng = facts_for(self.model), np.random.default_rng(self.seed)
            facts = with_neighbours(rng, source.new_facts(rng, self.facts, "train"), source.known_facts(), count=4)
            layers = [self.layers] if self.layers else None
            found = calibrate(
                Overlay(lm), facts, start, layers, self.clamps, progress=lambda line: console.print(shown(line))
            )
            path = self.out or calibration_path(lm)
            found.save(path)
        except (SleepGymError, OSError) as error:
            console.print(one_line(error))
            return UNUSABLE
        console.print(found.spec)
        console.print(shown(f"written to {path}"))
        return WRITTEN
