"""Speed of a night as ratios of two timings in one run.

    python benchmarks/sleep_speed.py --model tiny --out docs/sleep/more/tiny.speed.json

Each pair is timed in turns, and the ratio is that of the medians, so that a busy machine slows both sides alike.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel

from benchmarks.common import markdown, records, timing
from benchmarks.common.timing import Row
from sleepgym.consolidation.adapters import lowest_block
from sleepgym.consolidation.lessons import lessons
from sleepgym.consolidation.lora import AdapterTraining, new_adapter, train_adapters
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing import spec_for
from sleepgym.editing.base import Base, make_base
from sleepgym.facts import Fact, World
from sleepgym.lm import load
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.overlay import Memory
from sleepgym.sleeper import SleepingLM, sleep_together


@dataclass
class Args:
    model: str = "tiny"
    """a model that knows the synthetic world"""
    facts: int = 20
    """facts of a night"""
    learners: tuple[int, ...] = (4, 16)
    """learners that sleep together, with a quarter of the facts each"""
    repeats: int = 3
    """timings of each side"""
    out: Path | None = None
    """JSON with every figure"""


class PlainLoop:
    """What one would write with PEFT alone: whole batches, whole passes, logits everywhere."""

    def __init__(self, base: Base, spec: SleepSpec, rows: Sequence[Encoded], steps: int) -> None:
        self.base, self.spec, self.rows, self.steps = base, spec, rows, steps
        self.targets = [name for block in base.lm.blocks[lowest_block(base, spec) :] for name in block.linears]

    def __call__(self) -> None:
        bare: PreTrainedModel = copy.deepcopy(self.base.lm.model)
        for module in bare.modules():
            module._forward_hooks.clear()  # the overlay's
        spec, rng = self.spec, np.random.default_rng(0)
        config = LoraConfig(r=spec.rank, lora_alpha=spec.rank, target_modules=self.targets, task_type="CAUSAL_LM")
        model = get_peft_model(bare, config)
        assert isinstance(model, PeftModel)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=spec.learning_rate, betas=(0.7, 0.999), weight_decay=0.0)
        ids = self.base.lm.pad([row.ids for row in self.rows])
        labels = torch.full_like(ids, -100)
        for i, row in enumerate(self.rows):
            labels[i, row.object_start : len(row.ids)] = ids[i, row.object_start : len(row.ids)]
        for _ in range(self.steps):
            drawn = rng.permutation(len(self.base.rehearsal.rows))[: spec.rehearsal_rows]
            texts = self.base.lm.pad([self.base.rehearsal.rows[i] for i in drawn])
            loss = model(input_ids=ids, labels=labels).loss
            with torch.no_grad(), model.disable_adapter():
                before = model(input_ids=texts).logits.log_softmax(-1)
            now = model(input_ids=texts).logits.log_softmax(-1)
            drift = torch.nn.functional.kl_div(
                now.flatten(0, 1), before.flatten(0, 1), log_target=True, reduction="batchmean"
            )
            (loss + spec.rehearsal_weight * drift).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()


def training(base: Base, facts: Sequence[Fact], args: Args) -> Row:
    """As many steps of training on the same rows, both ways."""
    spec, rows = SleepSpec(), lessons(base.lm, facts)

    def ours() -> int:
        rng = np.random.default_rng(0)
        adapter = new_adapter(base.lm, spec, lowest_block(base, spec), rng)
        return train_adapters(base.rehearsal, [AdapterTraining(Memory(), adapter, rows, rng)], spec)[0].steps

    steps = ours()
    name = f"{steps} steps on {len(facts)} facts: plain PEFT loop / ours"
    row = timing.pair(name, PlainLoop(base, spec, rows, steps), ours, args.repeats, "s", warm_up=(ours,))
    return row | {"steps": float(steps)}


def together(base: Base, world: World, count: int, args: Args) -> Row:
    """Nights of several learners, one after the other and in one loop."""
    taught = []
    for i in range(count):
        learner = SleepingLM(base, seed=i)
        learner.inject(world.new_facts(np.random.default_rng(i), max(1, args.facts // 4), "train"))
        taught.append(learner.state)

    def learners() -> list[SleepingLM]:
        made = [SleepingLM(base) for _ in taught]
        for learner, state in zip(made, taught, strict=True):
            learner.state = state.copy()
        return made

    def one_by_one() -> None:
        for learner in learners():
            learner.sleep()

    name = f"nights of {count} learners with {max(1, args.facts // 4)} facts: one by one / together"

    def side_by_side() -> None:
        sleep_together(learners())

    return timing.pair(name, one_by_one, side_by_side, args.repeats, "s", warm_up=(side_by_side,))


def night(base: Base, world: World, args: Args) -> Row:
    """Seconds of whole first and second nights, over seeds."""
    first, second, steps = [], [], []
    for seed in range(args.repeats):
        learner = SleepingLM(base, seed=seed)
        learner.inject(world.new_facts(np.random.default_rng(seed), args.facts))
        started = time.perf_counter()
        steps.append(learner.sleep().steps)
        first.append(time.perf_counter() - started)
        second.append(timing.seconds(learner.sleep))
    return {
        "what": f"a whole night of {args.facts} facts",
        "first (s)": statistics.median(first), "first, all (s)": str([round(s, 2) for s in first]),
        "second (s)": statistics.median(second), "steps": str(steps),
    }  # fmt: skip


def main(args: Args) -> None:
    lm, record = load(args.model), records.circumstances(args.repeats)
    base, world = make_base(lm, spec_for(lm)), World()
    facts = world.new_facts(np.random.default_rng(0), args.facts)
    base.editor.targets(facts)
    rows = [training(base, facts, args), *(together(base, world, count, args) for count in args.learners)]
    whole = night(base, world, args)  # by now the lower blocks have been run on the rehearsal text, once for good
    title = f"{args.model}: {record['machine']}, medians of {args.repeats}"
    table = Table("", "first (s)", "second (s)", "ratio (range)", title=title)
    for row in rows:
        spread = markdown.interval(row, middle="ratio")
        table.add_row(str(row["what"]), f"{row['slow (s)']:.2f}", f"{row['fast (s)']:.2f}", spread)
    table.add_row(f"{whole['what']}, first and second", f"{whole['first (s)']:.2f}", f"{whole['second (s)']:.2f}", "")
    Console(width=140).print(table, whole)
    if args.out:
        records.write(args.out, record | {"model": args.model, "rows": rows, "night": whole})


if __name__ == "__main__":
    main(tyro.cli(Args))
