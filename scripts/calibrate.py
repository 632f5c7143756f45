"""Calibrates the editor for a model, and saves the settings beside its statistics.

    python scripts/calibrate.py --model gemma-3-270m

``SleepingLM.from_pretrained`` and the benchmarks use the saved settings from then on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console

from sleepgym.editing import EditSpec, calibrate
from sleepgym.editing.calibrate import calibration_path
from sleepgym.facts.source import with_neighbours
from sleepgym.lm import facts_for, load
from sleepgym.memory.overlay import Overlay


@dataclass
class Args:
    model: str = "tiny"
    """model, as for sleepgym.lm.load"""
    facts: int = 20
    """number of facts per trial"""
    seed: int = 2000
    """seed of the choice of facts"""
    dtype: str = "float32"
    """float32 or bfloat16"""
    layers: tuple[int, ...] = ()
    """blocks to edit; by default several runs of blocks are searched"""
    clamps: tuple[float, ...] = (0.5, 0.8, 1.5)
    """clamps to try"""
    start: EditSpec = field(default_factory=EditSpec)
    """initial settings; those that are not searched, such as the number of prefixes, are kept"""
    out: Path | None = None
    """JSON file of the settings; by default beside the model's statistics in the cache"""


def main(args: Args) -> None:
    console = Console(width=150)
    lm = load(args.model, dtype=getattr(torch, args.dtype))
    source = facts_for(args.model)
    rng = np.random.default_rng(args.seed)
    facts = source.new_facts(rng, args.facts, "train")
    taught_facts = with_neighbours(rng, facts, source.known_facts(), count=4)
    layers = [args.layers] if args.layers else None
    found = calibrate(Overlay(lm), taught_facts, args.start, layers, args.clamps, progress=console.print)
    path = args.out or calibration_path(lm)
    found.save(path)
    console.print(found.spec, f"written to {path}")


if __name__ == "__main__":
    main(tyro.cli(Args))
