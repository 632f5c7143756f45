"""Measures every figure of the bundled model's card: what it knows, how it takes edits, how fast it is.

    python benchmarks/tiny_card.py --out docs/models/tiny.json --plot docs/models/tiny.png

benchmarks/tiny_page.py puts the figures onto the card.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.markdown import Markdown

from benchmarks import tiny_page
from benchmarks.common import plots, records, timing
from sleepgym.editing import Editor, EditSpec
from sleepgym.editing.calibration import spec_for
from sleepgym.facts import Fact, World
from sleepgym.facts.world import chat_turn
from sleepgym.lm import load, perplexity, score
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.overlay import Memory
from sleepgym.sleeper import Base, SleepingLM, make_base

Probes = dict[str, list[Encoded]]

OTHERS = (0, 2, 4)
"""Numbers of statements about others in a passage."""


@dataclass
class Args:
    edit: EditSpec = field(default_factory=lambda: spec_for(load("tiny")))
    """editor settings; by default those that were calibrated for the model"""
    seeds: int = 3
    """draws of new facts about held-out people"""
    curve: int = 100
    """facts of the two curves; 0 leaves them out"""
    out: Path | None = None
    """JSON with every figure"""
    plot: Path | None = None
    """picture of the curves"""


class Bench:
    """The bundled model, its own facts, and probes of them."""

    def __init__(self, edit: EditSpec) -> None:
        self.base: Base = make_base(load("tiny"), edit)
        self.world = World(seed=0)
        self.lm = self.base.lm
        rng = np.random.default_rng(12345)
        known = self.world.known_facts()
        self.known = [known[i] for i in rng.choice(len(known), 500, replace=False)]
        self.known_probes = [self.lm.encode(f.prompt, f.object) for f in self.known]
        self.known_recall = self.recall(Memory(), self.known_probes)
        self.perplexity = self.perplexity_of(Memory())

    def recall(self, memory: Memory, probes: Sequence[Encoded]) -> float:
        with self.base.overlay.use(memory):
            parts = [score(self.lm, probes[i : i + 256]).correct for i in range(0, len(probes), 256)]
        return float(torch.cat(parts).float().mean())

    def perplexity_of(self, memory: Memory) -> float:
        with self.base.overlay.use(memory):
            return perplexity(self.lm, self.base.statistics.held_out)

    def probes(self, facts: Sequence[Fact]) -> Probes:
        encode, chat = self.lm.encode, self.lm.chat
        return {
            "phrasing used": [encode(f.prompt, f.object) for f in facts],
            "unseen phrasings": [encode(p, f.object) for f in facts for p in f.paraphrases],
            "question form": [encode(chat(q), f.object) for f in facts for q in f.questions],
        }

    def measure(self, memory: Memory, facts: Sequence[Fact]) -> dict[str, float]:
        found = {name: self.recall(memory, probes) for name, probes in self.probes(facts).items()}
        found["other subjects kept"] = self.recall(memory, self.known_probes) / self.known_recall
        found["perplexity change"] = self.perplexity_of(memory) / self.perplexity - 1
        return found


def own_facts(bench: Bench) -> dict[str, float]:
    """Recall of every trained fact in its worst statement phrasing and its worst question."""
    worst: dict[str, float] = {}
    for kind in ("statements", "questions"):
        per_template = []
        for relation in bench.world.relations.values():
            facts = [f for f in bench.world.known_facts() if f.relation == relation.name]
            for template in getattr(relation, kind):
                texts = [template.format(f.subject) for f in facts]
                texts = [bench.lm.chat(t) for t in texts] if kind == "questions" else texts
                per_template.append(
                    bench.recall(Memory(), [bench.lm.encode(t, f.object) for t, f in zip(texts, facts, strict=True)])
                )
        worst[f"{kind}, worst"] = min(per_template)
        worst[f"{kind}, mean"] = statistics.mean(per_template)
    return worst


def open_book(bench: Bench, seed: int, people: int = 150) -> list[dict[str, int]]:
    """Statements about people never taught, alone or among others', and then the question: is the statement used?

    Returns:
        Per number of other statements the number of people, and how many were answered rightly: continuing another
        phrasing, asked in chat after the passage, and asked in chat with the passage in the question.
    """
    rng, lm, found = np.random.default_rng([seed, 1]), bench.lm, []
    for others in OTHERS:
        probes: Probes = {name: [] for name in ("continued", "asked", "asked with it")}
        for fact in bench.world.new_facts(rng, people):
            about = [fact, *(f for f in bench.world.new_facts(rng, others + 1) if f.subject != fact.subject)]
            told = [about[i].statement for i in rng.permutation(others + 1)]
            passage, question = " ".join(told), str(rng.choice(fact.questions))
            probes["continued"].append(lm.encode(str(rng.choice(fact.paraphrases)), fact.object, prefix=passage))
            probes["asked"].append(lm.encode(f"{passage} {chat_turn(question)}", fact.object))
            probes["asked with it"].append(lm.encode(lm.chat(f"{passage} {question}"), fact.object))
        hits = {name: round(people * bench.recall(Memory(), rows)) for name, rows in probes.items()}
        found.append({"others": others, "people": people, **hits})
    return found


def write(bench: Bench, facts: Sequence[Fact], one_by_one: bool) -> Memory:
    """A memory with the facts: solved jointly, or each alone and unprotected as it came."""
    memory = Memory()
    for group in [[f] for f in facts] if one_by_one else [facts]:
        bench.base.editor.write(memory, group)
    return memory


def speed(bench: Bench) -> dict[str, float]:
    """Milliseconds of what an environment step is made of."""
    facts = bench.world.new_facts(np.random.default_rng(999), 64)
    learner = SleepingLM(bench.base)
    bench.base.editor.targets(facts[:1])
    probes = bench.probes(facts)["phrasing used"]

    def inject(editor: Editor) -> Callable[[], object]:
        return lambda: editor.write(Memory(), facts[:1])

    def uncached() -> None:
        # A new folder each time, so that the target is optimised again.
        with TemporaryDirectory() as folder:
            fresh = Editor(bench.base.overlay, bench.base.statistics, bench.base.editor.spec, Path(folder))
            fresh._normal = bench.base.editor._normal
            fresh.write(Memory(), facts[:1])

    return {
        "score 64 facts": timing.median_ms(lambda: learner.score(probes), 11),
        "inject one fact, cached target": timing.median_ms(inject(bench.base.editor), 11),
        "inject one fact, uncached": timing.median_ms(uncached, 5),
        "load model": timing.median_ms(lambda: load("tiny"), 5),
        "load model and statistics": timing.median_ms(lambda: SleepingLM.from_pretrained("tiny"), 5),
    }


def curves(bench: Bench, args: Args) -> dict[str, list[dict[str, float]]]:
    """Both ways of writing, measured at 5, 10, 20, ... facts (mean over seeds)."""
    counts = [n for n in (1, 5, 10, 20, 30, 40, 50, 60, 80, 100) if n <= args.curve]
    runs: dict[str, dict[int, list[dict[str, float]]]] = {"joint": {}, "one by one": {}}
    for seed in range(args.seeds):
        facts = bench.world.new_facts(np.random.default_rng(seed), args.curve)
        growing = Memory()
        for n, fact in enumerate(facts, start=1):
            bench.base.editor.write(growing, [fact])
            if n in counts:
                runs["one by one"].setdefault(n, []).append(bench.measure(growing, facts[:n]))
                runs["joint"].setdefault(n, []).append(bench.measure(write(bench, facts[:n], False), facts[:n]))
    return {
        name: [{"facts": n, **{k: statistics.mean(r[k] for r in of_n) for k in of_n[0]}} for n, of_n in counted.items()]
        for name, counted in runs.items()
    }


def main(args: Args) -> None:
    bench, record = Bench(args.edit), records.circumstances(args.seeds)
    record |= {
        "fingerprint": bench.lm.fingerprint[:16],
        "own facts": own_facts(bench),
        "perplexity": bench.perplexity,
    }
    record["open book"] = [open_book(bench, seed) for seed in range(args.seeds)]
    for count, one_by_one in ((20, False), (50, False), (100, False), (20, True)):
        runs = []
        for seed in range(args.seeds):
            facts = bench.world.new_facts(np.random.default_rng(seed), count)
            runs.append(bench.measure(write(bench, facts, one_by_one), facts))
        record[f"{count} {'one by one' if one_by_one else 'jointly'}"] = runs
    record["speed (ms)"] = speed(bench)
    Console().print(record["own facts"], *map(Markdown, tiny_page.contents(record).values()))
    if args.curve:
        record["curves"] = curves(bench, args)
        if args.plot:
            plots.save(tiny_page.picture(record), args.plot)
    if args.out:
        records.write(args.out, record)


if __name__ == "__main__":
    main(tyro.cli(Args))
