"""Measures what ships beside the bundled model: second moments of its keys, rehearsal and held-out text.

python scripts/tiny_statistics.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sleepgym.editing import EditSpec, ModelStatistics
from sleepgym.editing.covariance import second_moments
from sleepgym.editing.statistics import Rows, prefixes_from
from sleepgym.facts.world import World
from sleepgym.lm import LanguageModel, load


@dataclass
class Args:
    model: Path = Path("sleepgym/lm/tiny")
    """folder of the trained model; the statistics are written into it"""
    layers: tuple[int, ...] = field(default_factory=lambda: EditSpec().layers)
    """blocks whose keys are measured"""
    rows: int = 1500
    """documents for the second moments (about 40 tokens each)"""
    rehearsal_rows: int = 400
    """documents that sleep replays"""
    held_out_rows: int = 128
    """documents that perplexity is measured on"""


def encode_rows(lm: LanguageModel, texts: list[str]) -> Rows:
    """Token rows, cut to the length that the model was trained on."""
    return tuple(tuple(ids[:64]) for ids in lm.tokenizer(texts)["input_ids"])


def main(args: Args) -> None:
    lm, world = load(args.model), World(seed=0)
    # Seeds the training never used: none of this text was trained on (its facts about trained people were).
    moments = second_moments(lm, encode_rows(lm, world.text(seed=1, rows=args.rows)), args.layers)
    rehearsal = encode_rows(lm, world.text(seed=2, rows=args.rehearsal_rows))
    held_out = encode_rows(lm, world.text(seed=3, rows=args.held_out_rows))
    statistics = ModelStatistics(moments, rehearsal, held_out, prefixes_from(lm, rehearsal))
    statistics.save(args.model / "statistics.safetensors", lm.fingerprint)
    print(f"layers {list(moments)}, {len(rehearsal)} rehearsal rows, {len(held_out)} held-out rows")
    print("prefixes:", *statistics.prefixes, sep="\n  ")


if __name__ == "__main__":
    main(tyro.cli(Args))
