"""What a pretrained model keeps while it is taught: edits, then nights, measured on facts that were never rehearsed.

    python benchmarks/keeping.py --relations DIR --counterfact FILE --seeds 3 --out docs/real_model/NAME.json

Known facts are split in two halves by subject. One may be rehearsed (``--neighbours given``); what is reported is the
other half, and prompts about neighbours. ``--taught hardest`` changes facts of the relations that the model knows most
of, so that the known facts of the same relation are the hardest neighbours there are.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from benchmarks.common import records
from benchmarks.common.asking import correct
from benchmarks.keeping_page import shown
from benchmarks.keeping_ruler import Ruler
from sleepgym import SleepingLM
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import EditSpec
from sleepgym.editing.base import make_base
from sleepgym.episode.card import load_card
from sleepgym.facts import Fact
from sleepgym.lm import load, perplexity
from sleepgym.memory.asking import chat_probe, raw_probe


@dataclass
class Args:
    relations: Path
    """folder of relation files"""
    counterfact: Path | None = None
    """file of CounterFact"""
    model: str = "gemma-3-270m"
    """any name that sleepgym.lm.load understands"""
    card: str = "SleepLLM-Gemma-v0"
    """card whose editor and nights are the defaults of --edit and --sleep"""
    taught: Literal["hardest", "spread"] = "hardest"
    """hardest: changed facts of the relations that the model knows most of; spread: edits of CounterFact"""
    neighbours: Literal["given", "made-up"] = "given"
    """neighbours: the half of the known facts that is not reported, or subjects that are made up"""
    facts: int = 10
    """facts, written at once"""
    nights: int = 1
    """nights after that"""
    seeds: int = 3
    """draws of facts"""
    first_seed: int = 0
    """number of the first draw"""
    edit: EditSpec = field(default_factory=EditSpec)
    """numbers of the editor; by default those of the card, protected"""
    sleep: SleepSpec = field(default_factory=SleepSpec)
    """numbers of a night; by default those of the card"""
    rows: int = 64
    """rows of held-out text that perplexity is measured on"""
    name: str = ""
    """what the variant is called in tables"""
    cache: Path = Path("runs/keeping")
    """where it is kept which facts the bare model knows"""
    out: Path | None = None
    """JSON with every point"""


class Bench:
    """A model, its ruler and its text."""

    def __init__(self, args: Args) -> None:
        self.args = args
        self.lm = load(args.model)
        self.ruler = Ruler(self.lm, args.relations, args.counterfact, args.cache)
        given = self.ruler.rehearsable if args.neighbours == "given" else ()
        self.base = make_base(self.lm, args.edit, neighbours=given)
        self.text = self.base.statistics.held_out[: args.rows]
        self.bare = perplexity(self.lm, self.text)

    def run(self, seed: int) -> list[dict[str, Any]]:
        """Points in the order of events: bare, written, and after each night."""
        args, ruler = self.args, self.ruler
        facts = (ruler.hardest if args.taught == "hardest" else ruler.spread)(seed, args.facts)
        learner = SleepingLM(self.base, args.sleep, seed=seed)
        points = [self.measure("bare", learner, facts, kept=False)]
        started = time.process_time()
        learner.inject(facts)
        seconds = time.process_time() - started
        points.append(self.measure("written", learner, facts) | {"seconds": seconds})
        for night in range(1, args.nights + 1):
            started = time.process_time()
            report = learner.sleep()
            seconds = time.process_time() - started
            told = {"steps": report.steps, "advanced": len(report.advanced), "rolled back": report.rolled_back}
            points.append(self.measure(f"night {night}", learner, facts) | {"seconds": seconds} | told)
        return points

    def measure(self, when: str, learner: SleepingLM, facts: list[Fact], kept: bool = True) -> dict[str, Any]:
        """Hits and numbers of probes by name, and what perplexity rose by.

        Args:
            when: Name of the moment.
            learner: The model with its memory.
            facts: What it is taught.
            kept: Whether known facts are asked; of the bare model, whose are all kept, how many of them it recalls in
                the other phrasings is asked instead.
        """
        lm, memory, overlay = self.lm, learner.state.memory, self.base.overlay
        probes = {
            "raw": [raw_probe(lm, fact) for fact in facts],
            "chat": [chat_probe(lm, fact) for fact in facts],
            "unseen": [lm.encode(prompt, fact.object) for fact in facts for prompt in fact.paraphrases],
        }
        if not kept:
            probes["unseen, of known"] = self.ruler.other_wordings(facts)
        with overlay.use(memory):
            found = {name: correct(lm, rows) for name, rows in probes.items()}
            drift = perplexity(lm, self.text) / self.bare - 1
        if kept:
            asked = self.ruler.kept(overlay, memory, facts)
            found |= {f"kept, {kind}": hits for kind, hits in asked.items()}
        return {"when": when, "drift": drift} | {name: [sum(hits), len(hits)] for name, hits in found.items()}


def said(point: dict[str, Any]) -> str:
    """A point on one line."""
    parts = [point["when"]]
    for name, value in point.items():
        if isinstance(value, list) and value[1]:
            parts.append(f"{name} {shown(value[0] / value[1], *value)} n={value[1]}")
        elif name in ("drift", "seconds", "steps", "advanced"):
            parts.append(f"{name} {value:.3g}")
    return "  ".join(parts)


def main(args: Args) -> None:
    console, bench = Console(width=220), Bench(args)
    places = {"RELATIONS": args.relations, "COUNTERFACT": args.counterfact, "CACHE": args.cache, "OUT": args.out}
    record = records.circumstances(args.seeds) | {
        "command": records.command(places=places),
        "name": args.name,
        "model": args.model,
        "fingerprint": bench.lm.fingerprint[:16],
        "taught": args.taught,
        "neighbours": args.neighbours,
        "facts": args.facts,
        "edit": asdict(args.edit),
        "spec": asdict(args.sleep),
        "known": len(bench.ruler.known),
        "reported": len(bench.ruler.reported),
        "perplexity": bench.bare,
        "runs": [],
    }
    console.print(f"{record['known']} known, {record['reported']} of them reported", highlight=False)
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        points = bench.run(seed)
        record["runs"].append({"seed": seed, "points": points})
        for point in points:
            console.print(f"{args.name} {seed}: {said(point)}", soft_wrap=True, highlight=False)
        if args.out:
            records.write(args.out, record)


def parsed(arguments: list[str]) -> Args:
    # What a night is by default depends on the card.
    card = load_card(arguments[arguments.index("--card") + 1] if "--card" in arguments else Args.card)
    default = Args(relations=tyro.MISSING, edit=replace(card.edit, protect=True), sleep=card.sleep)
    return tyro.cli(Args, args=arguments, default=default)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(parsed(sys.argv[1:]))
