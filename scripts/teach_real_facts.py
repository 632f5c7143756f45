"""Teaches a pretrained model changed facts, and reports recall before, after injection, refresh and each night.

    python scripts/teach_real_facts.py --model gemma-3-270m --facts 10 --out docs/real_model.md

Facts are changed by giving a subject the object of another subject of the same relation. They come from the
package, or from a folder of relation files in the format of Hernandez et al. 2023 (``--data``).
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console

from sleepgym import SleepingLM
from sleepgym.episode.card import load_card
from sleepgym.facts.fact import Fact
from sleepgym.facts.real import RealFacts
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.reports import SleepReport


@dataclass
class Args:
    model: str = "gemma-3-270m"
    """model, as for sleepgym.lm.load"""
    card: str = "SleepLLM-Gemma-v0"
    """card whose editor and sleep settings are used"""
    facts: int = 10
    """number of changed facts to teach"""
    seed: int = 0
    """seed of the choice of facts"""
    nights: int = 3
    """number of nights"""
    data: Path | None = None
    """folder of relation files; by default the facts that ship with the package"""
    out: Path | None = None
    """Markdown file of the table"""


@dataclass(frozen=True)
class Probes:
    """Probes that are scored at every stage: prompts, unseen phrasings, chat questions, and other known facts."""

    used: list[Encoded]
    unseen: list[Encoded]
    chat: list[Encoded]
    neighbours: list[Encoded]


def probes_of(learner: SleepingLM, facts: list[Fact], known: list[Fact]) -> Probes:
    """Makes probes of the new facts, and of known facts about other subjects that the bare model recalls."""
    encode, chat = learner.lm.encode, learner.lm.chat
    taught = {f.subject for f in facts}
    others = [encode(f.prompt, f.object) for f in known if f.subject not in taught]
    recalled = learner.score(others).correct.tolist()
    return Probes(
        used=[encode(f.prompt, f.object) for f in facts],
        unseen=[encode(p, f.object) for f in facts for p in f.paraphrases],
        chat=[encode(chat(q), f.object) for f in facts for q in (f.questions or (f.prompt,))],
        neighbours=[probe for probe, known_now in zip(others, recalled, strict=True) if known_now],
    )


def row(learner: SleepingLM, stage: str, probes: Probes, started: float) -> str:
    recalls = [learner.score(p).recall for p in (probes.used, probes.unseen, probes.chat, probes.neighbours)]
    cells = [stage, *(f"{r:.2f}" for r in recalls), f"{learner.perplexity():.2f}", f"{time.time() - started:.0f}"]
    return "| " + " | ".join(cells) + " |"


def describe(report: SleepReport) -> str:
    return (
        f"{len(report.advanced)} advanced, {len(report.retreated)} retreated, {len(report.refreshed)} refreshed, "
        f"{report.steps} steps{', rolled back' if report.rolled_back else ''}"
    )


def main(args: Args) -> None:
    console, card = Console(width=120), load_card(args.card)
    # Naive edits, whose interference refresh and sleep have to repair.
    edit = replace(card.edit, protect=False)
    learner = SleepingLM.from_pretrained(args.model, edit=edit, sleep=card.sleep, seed=args.seed)
    source = RealFacts.from_relations(sorted(args.data.glob("*.json"))) if args.data else RealFacts.read()
    facts = source.new_facts(np.random.default_rng(args.seed), args.facts)
    probes = probes_of(learner, facts, source.known_facts())
    lines = [
        f"`{args.model}`, {len(facts)} changed facts (seed {args.seed}), {len(probes.neighbours)} known facts about "
        f"other subjects; {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}.",
        "",
        "| | phrasing used | unseen phrasings | asked in chat | others kept | perplexity | seconds |",
        "|---|---|---|---|---|---|---|",
    ]

    def show(line: str) -> None:
        lines.append(line)
        console.print(line)

    started = time.time()
    for line in lines:
        console.print(line)
    show(row(learner, "before", probes, started))
    for fact in facts:
        learner.inject([fact])
    show(row(learner, "injected one by one", probes, started))
    learner.audit()
    learner.refresh(list(learner.state.ledger))
    show(row(learner, "refreshed (joint re-solve)", probes, started))
    for night in range(1, args.nights + 1):
        report = learner.sleep()
        show(row(learner, f"night {night}: {describe(report)}", probes, started))
    lines += ["", "Taught: " + "; ".join(f.statement for f in facts), ""]
    lines += [f"- {q} **{learner.ask(q)}**" for f in facts for q in f.questions[:1]]
    console.print("\n".join(lines[-len(facts) :]))
    if args.out:
        args.out.write_text("# Real facts, real model\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
