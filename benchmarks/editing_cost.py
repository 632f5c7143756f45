"""Seconds that one more fact costs with each recipe, with its target known and with its target still to be optimised.

    python benchmarks/editing_cost.py --out docs/editing/cost.tiny.json

Every recipe writes the same facts one by one, with the settings of its record in docs/editing, and recipes take turns
round by round; ratios are those within a round. Recipes that optimise targets on the edited model cannot know them
beforehand and are timed once. What is done once for a model (text statistics, factor of the normal matrix) is done
before the clock starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.common import markdown, records, timing
from benchmarks.common.records import Record
from sleepgym.editing import Editor, EditSpec, preset, statistics_for
from sleepgym.editing.calibration import spec_for
from sleepgym.facts import Fact, World
from sleepgym.lm import load
from sleepgym.memory.overlay import Memory, Overlay

WAYS = ("cached", "uncached")


@dataclass
class Args:
    recipes: tuple[str, ...] = ("sleepgym", "memit-prev", "memit", "alphaedit")
    """presets that are timed; the first one is compared with the others"""
    facts: int = 15
    """facts that each writes in a round, one by one"""
    repeats: int = 3
    """rounds, each with a draw of facts of its own"""
    threads: int = 1
    """threads of torch"""
    settings: Path = Path("docs/editing")
    """folder of the records whose settings are taken; presets without one run as published"""
    out: Path | None = None
    """JSON with every timing"""


class Bench:
    """The bundled model and an editor for every recipe and way."""

    def __init__(self, args: Args) -> None:
        self.args = args
        self.lm = load("tiny", device="cpu")
        self.overlay = Overlay(self.lm)
        self.specs = {name: self.spec(name) for name in args.recipes}

    def spec(self, name: str) -> EditSpec:
        """Settings of a recipe: those of its record, or the published ones."""
        path = self.args.settings / f"tiny.world.{name}.json"
        if path.exists():
            numbers: dict[str, Any] = records.read(path)["spec"]
            return EditSpec(**numbers | {"layers": tuple(numbers["layers"])})
        usual = spec_for(self.lm)
        return usual if name == "sleepgym" else preset(name, usual.layers)

    def editor(self, spec: EditSpec, folder: Path) -> Editor:
        """An editor that has factored its normal matrix, with a cache of targets in a folder."""
        editor = Editor(self.overlay, statistics_for(self.lm, spec.layers), spec, folder)
        editor.write(Memory(), World().new_facts(np.random.default_rng(999), 1))
        return editor

    def ways(self, folder: Path, facts: Sequence[Fact]) -> dict[tuple[str, str], timing.Call]:
        """Calls that write all facts one by one, by recipe and way."""
        found: dict[tuple[str, str], timing.Call] = {}
        for name, spec in self.specs.items():
            for way in WAYS if spec.frozen else WAYS[1:]:
                editor = self.editor(spec, folder / f"{name}.{way}")
                if way == "cached":
                    editor.targets(facts)
                found[name, way] = partial(write, editor, facts)
        return found


def write(editor: Editor, facts: Sequence[Fact]) -> None:
    """Writes facts one by one into an empty memory, each holding those before it if the recipe does."""
    memory = Memory()
    for n, fact in enumerate(facts):
        editor.write(memory, [fact], facts[:n] if editor.spec.protect else ())


def measured(args: Args) -> Record:
    """Seconds per fact of every round, and how many times as long the other recipes take as the first."""
    torch.set_num_threads(args.threads)
    bench, record = Bench(args), records.circumstances(args.repeats)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in args.recipes}
    for seed in range(args.repeats):
        facts = World().new_facts(np.random.default_rng(seed), args.facts)
        with TemporaryDirectory() as folder:
            calls = bench.ways(Path(folder), facts)
            for (name, way), call in calls.items():
                times[name].setdefault(way, []).append(timing.seconds(call) / len(facts))
    first, *others = args.recipes
    record |= {
        "model": "tiny",
        "fingerprint": bench.lm.fingerprint[:16],
        "facts": args.facts,
        "shared": records.was_busy(record),
        "specs": {name: asdict(spec) for name, spec in bench.specs.items()},
        "seconds per fact": {
            name: {way: timing.spread(of) | {"rounds": of} for way, of in by_way.items()}
            for name, by_way in times.items()
        },
        "times as long": {
            name: {way: timing.ratio(times[name]["uncached"], of) for way, of in times[first].items()}
            for name in others
        },
    }
    return record


def table(record: Record) -> str:
    """Seconds per fact and ratios of a record in Markdown, with the circumstances below."""
    first = next(iter(record["seconds per fact"]))
    rows = []
    for name, by_way in record["seconds per fact"].items():
        seconds = [_spread(by_way.get(way), "median") for way in WAYS]
        times = [_spread(record["times as long"].get(name, {}).get(way), "ratio") for way in WAYS]
        rows.append([name, *seconds, *times])
    head = [
        f"{record['facts']} facts one by one",
        *(f"s / fact, {way} (range)" for way in WAYS),
        *(f"uncached, times {first} {way} (range)" for way in WAYS),
    ]
    return (
        f"{markdown.table(head, rows)}\n\n{record['model']}: {record['machine']}, "
        f"{records.load_in_words(record)}; medians of {record['seeds']} rounds."
    )


def _spread(found: dict[str, float] | None, middle: str) -> str:
    return "-" if found is None else markdown.interval(found, ".2g", middle)


def main(args: Args) -> None:
    record = measured(args)
    records.present(record, table(record), args.out)


if __name__ == "__main__":
    main(tyro.cli(Args))
