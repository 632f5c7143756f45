"""An assistant that remembers: three days of a conversation, a night after each, and what is left of it in the end.

    python examples/assistant.py                       # the bundled model, in seconds
    python examples/assistant.py --model gemma-3-270m  # a pretrained one
    python examples/assistant.py --model FOLDER        # one of your own

Twenty facts are told, two are corrected, one is forgotten on request. Each day is a process of its own: all that one
leaves to the next is a folder. What it takes is in :func:`day`: load, inject, prune, sleep, save.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from sleepgym import Fact, SleepingLM, World
from sleepgym.lm import facts_for, load
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.quantization import Quantization
from sleepgym.memory.asking import chat_probe, raw_probe

Result = TypeVar("Result")


@dataclass
class Args:
    model: str = "tiny"
    """a name (tiny, gemma-3-270m), a folder, a GGUF file or a hub id"""
    device: str | None = None
    """cpu, cuda, or auto to spread a large model over all devices; by default CUDA if there is one"""
    quantization: Quantization | None = None
    """4bit or 8bit weights (extra quant, CUDA)"""
    gate: float | None = None
    """how near a prompt has to be to a fact for its edit to act; by default 0.5, and none for tiny"""
    facts: Path = field(default_factory=lambda: Path(__file__).with_suffix(".jsonl"))
    """what a pretrained model is told, a fact a line; the bundled model is told of people of its own world"""
    out: Path = Path("runs/assistant")
    """folder of the memory"""
    first_use: bool = False
    """begin with an empty cache, as on the first day on a machine"""


@dataclass(frozen=True)
class Told:
    """A fact, the day on which it is told, and what becomes of it."""

    day: int
    fact: Fact
    corrected: str = ""
    corrected_on: int = 0
    forgotten_on: int = 0

    @property
    def latest(self) -> Fact:
        return replace(self.fact, object=self.corrected) if self.corrected else self.fact


@dataclass(frozen=True)
class Costs:
    """What a process took: seconds by the clock and of the processors, and memory at its peak."""

    process: str
    seconds: dict[str, tuple[float, float]]
    gigabytes: float


@dataclass(frozen=True)
class Exam:
    """What is known in the end: numbers of right answers among those asked."""

    recalled: dict[str, dict[str, tuple[int, int]]]
    others: tuple[int, int]
    perplexity: tuple[float, float]


# ------------------------------------------------------------------ the conversation


def conversation(args: Args) -> list[Told]:
    """Reads what is told; the bundled model knows no words but those of its own world."""
    source = facts_for(args.model)
    if not isinstance(source, World):
        return [told(**json.loads(line)) for line in args.facts.read_text(encoding="utf-8").splitlines()]
    rng = np.random.default_rng(0)
    made = [Told(1 + 3 * i // 20, fact) for i, fact in enumerate(source.new_facts(rng, 20, "validation"))]
    for i, day in ((6, 2), (9, 3)):
        made[i] = replace(made[i], corrected=source.update(rng, made[i].fact).object, corrected_on=day)
    made[8] = replace(made[8], forgotten_on=3)
    return made


def told(day: int, corrected: str = "", corrected_on: int = 0, forgotten_on: int = 0, **fact: str) -> Told:
    return Told(day, Fact(**fact), corrected, corrected_on, forgotten_on)  # type: ignore[arg-type]  # lists of texts


def day(args: Args, number: int, watch: Stopwatch) -> Costs:
    """One day with the assistant, from loading it in the morning to saving it after its night."""
    console = Console(width=110, highlight=False)
    model = assistant(args)
    if number > 1:
        model.load(args.out)
    watch.lap("start")
    console.print(f"\n[bold]Day {number}[/bold], {len(model.state.ledger)} facts in memory")
    for each in conversation(args):
        if each.day == number:
            taken = model.inject([each.fact]).recall == 1
            console.print(f"  remember: {each.fact.statement}" + ("" if taken else " (not recalled)"))
        if each.corrected_on == number:
            model.inject([each.latest])
            console.print(f"  not {each.fact.object} any more: {each.latest.statement}")
        if each.forgotten_on == number:
            model.prune([each.fact.key])
            console.print(f"  forget: {each.fact.statement}")
    watch.lap("writing")
    questions = [fact.questions[-1] for fact in list(model.state.ledger.facts)[-3:]]
    for question, answer in zip(questions, model.ask(questions), strict=True):
        console.print(f"  {question} [cyan]{answer}[/cyan]")
    watch.lap("asking")
    night = model.sleep()
    model.save(args.out)
    watch.lap("night")
    undone = ", and was undone" if night.rolled_back else ""
    console.print(f"  The night found {night.recall_before:.0%} recalled and left {night.recall_after:.0%}{undone}.")
    return Costs(f"day {number}", watch.seconds, peak())


def assistant(args: Args) -> SleepingLM:
    return SleepingLM.from_pretrained(args.model, gate=args.gate, device=args.device, quantization=args.quantization)


# -------------------------------------------------------------------------- the exam


def exam(args: Args, watch: Stopwatch) -> tuple[Costs, Exam]:
    """Asks the bare model, then the one that remembers, about what it was told and about others."""
    model = assistant(args)
    watch.lap("start")
    all_told = conversation(args)
    subjects = {each.fact.subject for each in all_told}
    others = [fact for fact in facts_for(args.model).known_facts() if fact.subject not in subjects]
    probes = [raw_probe(model.lm, fact) for fact in others[:200]]
    known = [probe for probe, right in zip(probes, correct(model, probes), strict=True) if right]
    text = model.base.statistics.held_out[:32]
    bare = model.perplexity(text)
    recalled = {"told, before": answered(model, kinds(all_told)["told"])}
    model.load(args.out)
    recalled |= {kind: answered(model, facts) for kind, facts in kinds(all_told).items()}
    found = Exam(recalled, count(correct(model, known)), (bare, model.perplexity(text)))
    watch.lap("asking")
    return Costs("exam", watch.seconds, peak()), found


def kinds(all_told: Sequence[Told]) -> dict[str, list[Fact]]:
    return {
        "told": [each.fact for each in all_told if not each.corrected and not each.forgotten_on],
        "corrected": [each.latest for each in all_told if each.corrected],
        "corrected, the old answer": [each.fact for each in all_told if each.corrected],
        "forgotten": [each.fact for each in all_told if each.forgotten_on],
    }


def answered(model: SleepingLM, facts: Sequence[Fact]) -> dict[str, tuple[int, int]]:
    """Right answers by way of asking: nights practise prompts and first questions, and never words of one's own."""
    lm = model.lm
    ways = {
        "as taught": [raw_probe(lm, fact) for fact in facts],
        "in chat": [chat_probe(lm, fact) for fact in facts],
        "own words": [lm.encode(text, fact.object) for fact in facts for text in fact.paraphrases],
        "own words, in chat": [lm.encode(lm.chat(text), fact.object) for fact in facts for text in fact.questions[1:]],
    }
    return {way: count(correct(model, probes)) for way, probes in ways.items()}


def correct(model: SleepingLM, probes: Sequence[Encoded]) -> list[bool]:
    """Whether every token of the object is the likeliest; few at a time, since vocabularies are large."""
    lots = [probes[start : start + 8] for start in range(0, len(probes), 8)]
    return [bool(right) for lot in lots for right in model.score(lot).correct]


def count(right: Sequence[bool]) -> tuple[int, int]:
    return sum(right), len(right)


# --------------------------------------------------------------------- the processes


class Stopwatch:
    """Seconds by the clock and of the processors, from when a process was called for."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}
        self._last = (time.time(), 0.0)

    def lap(self, what: str) -> None:
        now = (time.time(), time.process_time())
        self.seconds[what] = (now[0] - self._last[0], now[1] - self._last[1])
        self._last = now


def alone(args: Args, watch: Stopwatch) -> Costs:
    """The model without a memory, run once."""
    lm = load(args.model, device=args.device, quantization=args.quantization)
    lm.model(lm.pad([lm.encode("Hello").ids]))
    watch.lap("start")
    return Costs("model alone", watch.seconds, peak())


def peak() -> float:
    """Gigabytes of memory that this process has had at most, those of a GPU not among them."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


def in_new_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Runs a function as after a restart: it finds nothing but what is on disk."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), disable_progress_bar) as pool:
        return pool.submit(function, *arguments, Stopwatch()).result()


def main(args: Args) -> None:
    with tempfile.TemporaryDirectory() as cache:
        if args.first_use:
            os.environ["SLEEPGYM_CACHE"] = cache
        days = [in_new_process(day, args, number) for number in (1, 2, 3)]
        last, found = in_new_process(exam, args)
        without = in_new_process(alone, args)
    console = Console(width=110)
    console.print("", recalled_table(found), costs_table([*days, last], without))
    kept, known = found.others
    bare, now = found.perplexity
    console.print(f"Of {known} facts about others that the model knew, {kept} are still recalled.")
    console.print(f"Perplexity on held-out text: {bare:.2f} before, {now:.2f} now ({now / bare - 1:+.1%}).")


def recalled_table(found: Exam) -> Table:
    table = Table("", *found.recalled["told"], title="right answers, in a process that read them from disk")
    for kind, by_way in found.recalled.items():
        table.add_row(kind, *(f"{right} of {n}" for right, n in by_way.values()))
    return table


def costs_table(costs: Sequence[Costs], without: Costs) -> Table:
    laps = ("start", "writing", "asking", "night")
    table = Table("", *laps, "peak memory", title="seconds (of processors), gigabytes")
    for each in (*costs, without):
        shown = ("{:.1f} ({:.1f})".format(*each.seconds[lap]) if lap in each.seconds else "" for lap in laps)
        table.add_row(each.process, *shown, f"{each.gigabytes:.2f} ({each.gigabytes / without.gigabytes:.2f} x)")
    return table


if __name__ == "__main__":
    main(tyro.cli(Args))
