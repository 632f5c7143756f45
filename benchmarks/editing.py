"""Writes facts one at a time with one recipe, and measures what editing papers measure as they pile up.

    python benchmarks/editing.py --model tiny --preset sleepgym --dataset world --facts 100 --seeds 3 --out FILE.json

Facts of CounterFact and of Hernandez et al.'s relations are not shipped: name a file or a folder with ``--data``.

Recipes whose targets belong to the frozen base are timed twice: with targets that were cached before and, over the
first ten facts, with a fresh cache, so that each target is optimised within the clock. The others optimise on the
edited model and have nothing to cache.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console

from benchmarks.common import records, timing
from sleepgym.editing import EditError, Editor, EditSpec, preset, statistics_for
from sleepgym.editing.calibration import quality, spec_for
from sleepgym.editing.measure import EditProbes, EditReport
from sleepgym.editing.neighbourhood import Neighbourhood
from sleepgym.facts import Fact, World, load_facts
from sleepgym.facts.real import RealFacts
from sleepgym.facts.source import with_neighbours
from sleepgym.files import cache_dir
from sleepgym.lm import LanguageModel, load, perplexity
from sleepgym.memory.overlay import Memory, Overlay

Point = dict[str, float]

TIMED_TWICE = 10
"""Facts whose targets are optimised within a second clock where they could be cached: each takes what others take."""


@dataclass
class Args:
    model: str = "tiny"
    """any name that sleepgym.lm.load understands"""
    preset: str = "sleepgym"
    """recipe, see sleepgym.editing.presets"""
    dataset: Literal["world", "relations", "counterfact"] = "world"
    """where facts come from"""
    data: Path | None = None
    """file of CounterFact, or folder of relation files (relations: by default those of the package)"""
    facts: int = 100
    """facts written one after the other"""
    seeds: int = 3
    """draws of facts"""
    first_seed: int = 0
    """number of the first draw"""
    site: Literal["recipe", "down_proj"] = "recipe"
    """down_proj: targets sit on down-projections whatever the recipe says, as models with a norm after the MLP need"""
    changes: dict[str, float] = field(default_factory=dict)
    """numbers of the recipe to change, such as ``--changes max_weight 1``"""
    tune: bool = True
    """choose lambda (of alphaedit, evoedit and nas the null space), clamp and step size on other facts first, with the
    anchor of nas and the alignment of eamet"""
    tune_facts: int = 20
    """facts for that"""
    counts: tuple[int, ...] = (1, 2, 5, 10, 20, 30, 50, 70)
    """measured after so many facts, and after the last"""
    held_out: int = 128
    """rows of text that perplexity is taken on"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision of model and edits"""
    name: str = ""
    """what tables call it; by default the preset's name"""
    out: Path | None = None
    """JSON with every point"""


_LAMBDA = ("covariance_weight", (30.0, 100.0, 600.0, 3000.0, 15000.0))
_NULL_SPACE = ("null_space", (0.02, 0.1, 0.5, 2.0))
_ANCHOR = ("anchor", (0.75, 1.0, 1.25, 1.5))
_ALIGNMENT = ("alignment", (0.2, 2.0))
_REACH = (("clamp", (0.75, 1.5, 3.0)), ("learning_rate", (0.1, 0.2, 0.5)))

SEARCHED: Mapping[str, tuple[tuple[str, tuple[float, ...]], ...]] = MappingProxyType(
    {
        "memit": (_LAMBDA, *_REACH, _LAMBDA),
        "memit-prev": (_LAMBDA, *_REACH, _LAMBDA),
        "encore": (_LAMBDA, *_REACH, _LAMBDA),
        "alphaedit": (_NULL_SPACE, *_REACH, _NULL_SPACE),
        "evoedit": (_NULL_SPACE, *_REACH, _NULL_SPACE),
        "nas": (_NULL_SPACE, _ANCHOR, *_REACH, _NULL_SPACE),
        "eamet": (_LAMBDA, _ALIGNMENT, *_REACH, _LAMBDA),
        "sleepgym": (("covariance_weight", (1000.0, 2000.0, 4000.0)),),
    }
)
"""What is tuned, one number after the other: lambda, how long values are or how far they are aligned, how far targets
reach, and lambda anew. How far ours reach was calibrated before; sleeping-llm's tiny lambda is the point of it, and
stays."""


def draw(args: Args, count: int, seed: int) -> list[Fact]:
    """Facts about different subjects, with neighbours."""
    rng = np.random.default_rng(seed)
    if args.dataset == "counterfact":
        if args.data is None:
            raise SystemExit(
                "expected --data with a CounterFact file, found none; see the data sets in docs/editing.md"
            )
        by_subject = {fact.subject: fact for fact in load_facts(args.data).latest}
        facts = list(by_subject.values())
        return [facts[i] for i in rng.choice(len(facts), count, replace=False)]
    if args.dataset == "world":
        world = World()
        return with_neighbours(rng, world.new_facts(rng, count), world.known_facts(), 2)
    files = sorted(args.data.glob("*.json")) if args.data else []
    real = RealFacts.from_relations(files) if files else RealFacts.read()
    by_subject = {fact.subject: fact for fact in real.new_facts(rng, min(2 * count, len(real.truth)))}
    return with_neighbours(rng, list(by_subject.values())[:count], real.known_facts(), 2)


class Bench:
    """A model, its held-out text, and an overlay."""

    def __init__(self, args: Args) -> None:
        self.args = args
        self.lm: LanguageModel = load(args.model, dtype=getattr(torch, args.dtype))
        self.overlay = Overlay(self.lm)
        self.base = preset(args.preset, spec_for(self.lm).layers)
        if args.preset == "sleepgym":
            self.base = spec_for(self.lm)
        if args.site == "down_proj":
            self.base = replace(self.base, site="down_proj")
        changes = {name: type(getattr(self.base, name))(value) for name, value in args.changes.items()}
        self.base = replace(self.base, **changes)
        self.statistics = statistics_for(self.lm, self.base.layers)
        self.neighbourhood = Neighbourhood(self.overlay, text=self.statistics.rehearsal)
        self.text = self.statistics.held_out[: args.held_out]
        self.bare = perplexity(self.lm, self.text)

    def run(self, spec: EditSpec, facts: Sequence[Fact], counts: Sequence[int]) -> list[Point]:
        """Writes facts one by one; measured before the first, and after each of the counts.

        Ends early where the recipe breaks down.
        """
        probes, memory = EditProbes(self.lm, facts), Memory()
        cached = Editor(self.overlay, self.statistics, spec, cache_dir("targets"))
        writers = {"uncached": (cached, memory)}
        bare = probes.read(facts[:1])
        points: list[Point] = [{"facts": 0, "kept": bare.kept} | self.readings("neighbourhood", bare)]
        with TemporaryDirectory() as folder:
            if spec.frozen:
                cached.targets(facts)
                fresh = Editor(self.overlay, self.statistics, spec, Path(folder))
                writers = {"cached": (cached, memory), "uncached": (fresh, Memory())}
            seconds: dict[str, list[float]] = {way: [] for way in writers}
            for n, fact in enumerate(facts, start=1):
                protected = facts[: n - 1] if spec.protect else ()
                taught = {earlier.subject for earlier in facts[:n]}
                try:
                    for way, (editor, written) in writers.items():
                        if written is not memory and n > TIMED_TWICE:
                            continue
                        others = self.neighbourhood.beside([fact], taught, spec.neighbours)
                        write = partial(editor.write, written, [fact], protected, others)
                        seconds[way].append(timing.seconds(write))
                except EditError as error:
                    points.append({"facts": n, "broken": 1.0})
                    Console().print(f"broke at fact {n}: {error}")
                    break
                if n in counts:
                    times = {f"seconds per fact, {way}": sum(of) / len(of) for way, of in seconds.items()}
                    points.append({"facts": n} | times | self.measure(memory, probes, facts[:n]))
        return points

    def trial(self, spec: EditSpec, name: str, value: float, facts: Sequence[Fact]) -> dict[str, Any]:
        """Quality of a recipe with one number changed."""
        point = self.run(replace(spec, **{name: value}), facts, [len(facts)])[-1]  # type: ignore[arg-type]
        return {"name": name, "value": value, "quality": quality_of(point)}

    def measure(self, memory: Memory, probes: EditProbes, facts: Sequence[Fact]) -> Point:
        with self.overlay.use(memory):
            report = probes.read(facts, generate=len(facts) in (10, len(probes.facts)))
            early = probes.read(facts[:10]).efficacy.exact
            drift = perplexity(self.lm, self.text) / self.bare - 1
        point = {"early": early, "kept": report.kept, "drift": drift, "norm": self.norm(memory)}
        for name in ("efficacy", "paraphrase", "question", "neighbourhood"):
            point |= self.readings(name, report)
        point["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return point

    @staticmethod
    def readings(name: str, report: EditReport) -> Point:
        """All readings of one kind of prompts."""
        return {f"{name} {reading}": value for reading, value in asdict(getattr(report, name)).items()}

    def norm(self, memory: Memory) -> float:
        """Frobenius norm of what was added, in units of that of the weights, mean over edited blocks."""
        ratios = []
        for layer in self.base.layers:
            name = self.lm.blocks[layer].down_proj
            module, pair = self.lm.linear(name), memory.stacked(name)
            assert isinstance(module.weight, torch.Tensor) and pair is not None
            a, b = (factor.double() for factor in pair)
            ratios.append(float((b @ a).norm() / module.weight.double().norm()))
        return float(np.mean(ratios))


def quality_of(point: Point) -> float:
    """What tuning maximises; minus infinity where the recipe broke down."""
    if "broken" in point:
        return -math.inf
    recalls = ("efficacy exact", "paraphrase exact", "question exact", "kept")
    return quality([point[name] for name in recalls], point["drift"])


def main(args: Args) -> None:
    console, bench = Console(width=150), Bench(args)
    spec = bench.base
    tuning: list[dict[str, Any]] = []
    if args.tune:
        facts = draw(args, args.tune_facts, seed=1000)
        for name, values in SEARCHED.get(args.preset, ()):
            tried = [bench.trial(spec, name, value, facts) for value in values]
            for each in tried:
                console.print(f"tuning {name} = {each['value']:g}: {each['quality']:.3f}")
            spec = replace(spec, **{name: max(tried, key=lambda each: each["quality"])["value"]})
            tuning += tried
    counts = [n for n in args.counts if n < args.facts] + [args.facts]
    record = records.circumstances(args.seeds) | {
        "command": records.command(places={"DATA": args.data, "OUT": args.out}),
        "model": args.model,
        "fingerprint": bench.lm.fingerprint[:16],
        "dataset": args.dataset,
        "preset": args.name or args.preset,
        "dtype": args.dtype,
        "spec": asdict(spec),
        "tuning": tuning,
        "perplexity": bench.bare,
        "runs": [],
    }
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        points = bench.run(spec, draw(args, args.facts, seed), counts)
        record["runs"].append({"seed": seed, "points": points})
        for point in points:
            console.print(f"seed {seed} " + "  ".join(f"{k} {v:.3g}" for k, v in point.items()), soft_wrap=True)
        if args.out:  # after every draw: what was measured is kept whatever comes
            records.write(args.out, record)


if __name__ == "__main__":
    main(tyro.cli(Args))
