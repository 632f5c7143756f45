"""A model that says it does not know, and what it takes to teach it: the alignment tax of benchmarks/sleep.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.sleep_bench import Bench, Plan, Point
from sleepgym.consolidation.adapters import lowest_block
from sleepgym.consolidation.lora import AdapterTraining, new_adapter, train_adapters
from sleepgym.editing import statistics_for
from sleepgym.facts import World, chat_turn
from sleepgym.lm import load, score
from sleepgym.memory.asking import chat_probe
from sleepgym.memory.overlay import Memory
from sleepgym.memory.owners import ADAPTER

HEDGE = "I do not know."
_BATCH = 32
_RATE = 5e-4
_ASKED = 200
"""Questions put to see what it hedges on."""


def alignment_tax(bench: Bench, plan: Plan) -> dict[str, Callable[[int], list[Point]]]:
    """Facts taught by LoRA alone, and by edits and nights, to the plain model and to one that hedges."""
    if bench.real:
        raise SystemExit("expected --model tiny for alignment-tax, found a pretrained model: its prior is what it is")

    @cache
    def hedger() -> Bench:
        with TemporaryDirectory() as folder:
            train_hedger(Path(folder), plan.hedge_steps)
            # Measured and kept in the cache, where the bench finds them.
            statistics_for(load(folder), bench.edit.layers, rows=min(512, 4 * plan.rows))
            return Bench(folder, "float32", bench.spec, plan, bench.edit)

    variants: dict[str, Callable[[int], list[Point]]] = {}
    models: dict[str, Callable[[], Bench]] = {"plain": lambda: bench, "hedging": hedger}
    for name, made in models.items():
        variants[f"{name}: prior"] = partial(_prior, made)
        variants[f"{name}: direct LoRA"] = partial(_direct, made, plan, True)
        variants[f"{name}: direct LoRA, no rehearsal"] = partial(_direct, made, plan, False)
        variants[f"{name}: sleep"] = partial(_slept, made, plan)
    return variants


def train_hedger(folder: Path, steps: int) -> None:
    """Trains a copy of the bundled model to answer known questions and to hedge on others, and saves it."""
    lm, world = load("tiny", device="cpu"), World()
    lm.model.requires_grad_(True).train()
    rows = _lessons(world, np.random.default_rng(0))
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=_RATE, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        batch = lm.tokenizer(
            [next(rows) for _ in range(_BATCH)], truncation=True, max_length=64, padding=True, return_tensors="pt"
        )
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        lm.model(input_ids=batch["input_ids"], labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    lm.model.eval().save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)


def _lessons(world: World, rng: np.random.Generator) -> Iterator[str]:
    """The world's own text in turns with conversations, half of whose questions are about people never heard of.

    The people that facts are taught about are not among them: hedging on those has to be a habit.
    """
    text, known = world.rows(rng), world.known_facts()
    strangers = [*world.held_out["train"], *world.held_out["validation"]]
    relations = world.person_relations()
    while True:
        yield next(text)
        turns = []
        for _ in range(4):
            if rng.random() < 0.5:
                relation = relations[rng.integers(len(relations))]
                question = str(rng.choice(relation.questions)).format(strangers[rng.integers(len(strangers))])
                turns.append(chat_turn(question, HEDGE))
            else:
                fact = known[rng.integers(len(known))]
                turns.append(chat_turn(str(rng.choice(fact.questions)), fact.object))
        yield " ".join(turns)


def _prior(made: Callable[[], Bench], seed: int) -> list[Point]:
    """What the model says of people whom facts could be taught about, and of what it knows."""
    bench, lm = made(), made().lm
    strangers = bench.draw(seed + 1000, _ASKED)
    hedged = score(lm, [lm.encode(lm.chat(fact.questions[0]), HEDGE) for fact in strangers])
    known = [bench.teachable[i] for i in np.random.default_rng(seed).permutation(len(bench.teachable))[:_ASKED]]
    answered = score(lm, [chat_probe(lm, fact) for fact in known])
    return [{"cycle": 0, "hedged": hedged.recall, "known in chat": answered.recall}]


def _direct(made: Callable[[], Bench], plan: Plan, rehearse: bool, seed: int) -> list[Point]:
    """A LoRA trained awake on statements of the facts, without edits and without chat."""
    bench = made()
    learner, facts, rng = bench.learner(seed), bench.draw(seed, plan.taxed), np.random.default_rng(seed)
    spec = bench.spec if rehearse else replace(bench.spec, rehearsal_rows=0)
    adapter = new_adapter(bench.lm, spec, lowest_block(bench.base, spec), rng)
    rows = [bench.lm.encode(fact.prompt, fact.object + ".") for fact in facts]
    (training,) = train_adapters(bench.base.rehearsal, [AdapterTraining(Memory(), adapter, rows, rng)], spec)
    learner.state.memory.put(ADAPTER, training.factors)
    return [{"cycle": 0, "steps": training.steps, "nll": training.nll} | bench.measure(learner, facts)]


def _slept(made: Callable[[], Bench], plan: Plan, seed: int) -> list[Point]:
    """Edits by day, and some nights."""
    bench = made()
    learner, facts = bench.learner(seed), bench.draw(seed, plan.taxed)
    learner.inject(facts)
    points = [{"cycle": 0} | bench.measure(learner, facts)]
    return points + [{"cycle": night} | bench.night(learner, facts) for night in range(1, plan.tax_nights + 1)]
