"""Measures the statistics that ship with the bundled model: second moments of keys, rehearsal and held-out text.

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
    """number of documents for the second moments (about 40 tokens each)"""
    rehearsal_rows: int = 400
    """number of documents for rehearsal"""
    held_out_rows: int = 128
    """number of documents for perplexity"""


def encode_rows(lm: LanguageModel, texts: list[str]) -> Rows:
    """Tokenises texts and keeps the first 64 tokens of each."""
    return tuple(tuple(ids[:64]) for ids in lm.tokenizer(texts)["input_ids"])


def main(args: Args) -> None:
    lm, world = load(args.model), World(seed=0)
    # Seeds that training did not use: the model has not seen these texts, only facts about the same people.
    moments = second_moments(lm, encode_rows(lm, world.text(seed=1, rows=args.rows)), args.layers)
    rehearsal = encode_rows(lm, world.text(seed=2, rows=args.rehearsal_rows))
    held_out = encode_rows(lm, world.text(seed=3, rows=args.held_out_rows))
    statistics = ModelStatistics(moments, rehearsal, held_out, prefixes_from(lm, rehearsal))
    statistics.save(args.model / "statistics.safetensors", lm.fingerprint)
    print(f"layers {list(moments)}, {len(rehearsal)} rehearsal rows, {len(held_out)} held-out rows")
    print("prefixes:", *statistics.prefixes, sep="\n  ")


if __name__ == "__main__":
    main(tyro.cli(Args))
