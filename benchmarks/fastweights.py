"""Trains models of fast weights with their controls, and measures what passes over the context bring and cost.

    python benchmarks/fastweights.py train      # hours on two cores; goes on where it was stopped
    python benchmarks/fastweights.py measure    # docs/fastweights/*.json and docs/fastweights.md, from what is there

What is trained for each seed and task, in this order: N = 1, 2 and 4; one model for N from 1 to 4; N = 1 for as many
floating-point operations as N = 4; a deeper model with N = 1; attention that keeps the context. Every run is a folder
of ``runs/fastweights``, and ``python -m sleepgym.fastweights.train`` makes the same by hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import fastweights_page, fastweights_places
from benchmarks.common import markdown, records, timing
from benchmarks.common.records import Record
from sleepgym.evaluation.processes import in_processes
from sleepgym.fastweights import FastWeightModel, Hops, Trained, load_model
from sleepgym.fastweights.scoring import Accuracy, accuracies, majority
from sleepgym.fastweights.train import Args as TrainArgs
from sleepgym.fastweights.train import Run, train

USUAL = {
    "rule110": TrainArgs(task="rule110", settings={"cells": 13, "deepest": 6, "queries": 20}, blocks=1, steps=3000),
    "hops": TrainArgs(
        task="hops", settings={"people": 8, "deepest": 3, "queries": 16}, blocks=1, batch=16, steps=1800, grow=1000
    ),
}
"""What is trained on each task, but for N, controls and seeds; decision 19 says why."""
CONTROLS = ("n0", "flops", "deep", "uncut")
"""Runs beside those of one N each: all N in one model, equal FLOPs, more blocks, the context kept."""


@dataclass(frozen=True)
class Common:
    """What training and measuring have in common."""

    seeds: int = 3
    """number of seeds, from 1"""
    tasks: tuple[str, ...] = ("rule110", "hops")
    """tasks"""
    passes: tuple[int, ...] = (1, 2, 4)
    """N, of one model each"""
    controls: tuple[str, ...] = CONTROLS
    """controls that are trained too: n0, flops, deep, uncut"""
    steps: int = 0
    """optimiser steps of a run, of which the control of equal FLOPs makes more; 0 for those of the task"""
    runs: Path = Path("runs/fastweights")
    """folder of the runs"""

    def recipes(self) -> Iterator[tuple[str, TrainArgs]]:
        """Runs by name, in the order in which they are trained."""
        for seed in range(1, self.seeds + 1):
            for task in self.tasks:
                usual = stretched(replace(USUAL[task], seed=seed), self.steps or USUAL[task].steps)
                kinds = {f"n{passes}": replace(usual, passes=passes) for passes in self.passes}
                kinds["n0"] = replace(usual, passes=0, most_passes=max(self.passes))
                kinds["flops"] = replace(stretched(usual, self.equal_steps(usual)), passes=1)
                kinds["deep"] = replace(usual, passes=1, blocks=2 * usual.blocks)
                kinds["uncut"] = replace(usual, passes=1, uncut=True)
                for kind, args in kinds.items():
                    if kind in (*(f"n{passes}" for passes in self.passes), *self.controls):
                        yield kind, replace(args, out=self.runs / f"{task}-{kind}-{seed}")

    def equal_steps(self, usual: TrainArgs) -> int:
        """Steps of N = 1 that cost as many floating-point operations as those of the largest N."""
        most = flops(replace(usual, passes=max(self.passes)))
        return round(usual.steps * most / flops(replace(usual, passes=1)))


@dataclass(frozen=True)
class Train(Common):
    """Train all models that are missing."""

    processes: int = 2
    """runs that are trained at the same time, each with one thread"""


@dataclass(frozen=True)
class Measure(Common):
    """Measure the models that there are, and write the page."""

    sequences: int = 1000
    """test sequences per depth"""
    repeats: int = 1000
    """rounds of timings, in each of which every N answers once"""
    out: Path = records.ROOT / "docs" / "fastweights"
    """folder of the records"""
    page: Path = records.ROOT / "docs" / "fastweights.md"
    """page"""


def stretched(args: TrainArgs, steps: int) -> TrainArgs:
    """A run of so many steps, of which its curriculum takes the same share."""
    return replace(args, steps=steps, grow=round(args.grow * steps / args.steps))


def flops(args: TrainArgs) -> int:
    """Floating-point operations of one training step, counted by torch: products of matrices and attention."""
    run = Run(args)
    with FlopCounterMode(display=False) as counter:
        run.step()
    return int(counter.get_total_flops())


def train_all(args: Train) -> None:
    """Trains what is missing, in the order of the recipes."""
    todo = [recipe for _, recipe in args.recipes() if not finished(recipe)]
    print(f"{len(todo)} runs to train, into {args.runs}")
    begun = time.perf_counter()
    for number, name in enumerate(in_processes(trained_run, todo, min(args.processes, max(1, len(todo)))), 1):
        print(f"{name}: {number} of {len(todo)}, {(time.perf_counter() - begun) / 60:.0f} min so far", flush=True)


def trained_run(recipe: TrainArgs) -> str:
    """Trains a model, or goes on with it; returns the name of its folder."""
    train(recipe)
    return recipe.out.name


def finished(recipe: TrainArgs) -> bool:
    """Whether a run has made all its steps."""
    path = recipe.out / "model.safetensors"
    return path.exists() and load_model(path).about["done"] == recipe.steps


def measured(args: Measure, task: str) -> Record:
    """The record of one task: accuracies of all runs that have ended, times and sizes."""
    rows, models = [], {}
    for kind, recipe in args.recipes():
        if recipe.task != task or not finished(recipe):
            continue
        trained = load_model(recipe.out / "model.safetensors")
        models[kind] = trained
        rows += list(scored(args, kind, recipe, trained))
        print(f"{recipe.out.name} scored", flush=True)
    if not models:
        return {}
    found = records.circumstances(seeds=args.seeds)
    any_model = next(iter(models.values()))
    found |= {
        "task": task,
        "settings": asdict(any_model.task),  # type: ignore[call-overload]
        "shape": asdict(any_model.model.spec),
        "parameters": sum(weight.numel() for weight in any_model.model.parameters()),
        "steps": args.steps or USUAL[task].steps,
        "runs": rows,
        "majority": [asdict(score) for score in majority(any_model.task, args.sequences, split="test")],
    }
    every_n = {passes: models[f"n{passes}"] for passes in args.passes if f"n{passes}" in models}
    return found | {"times": times(every_n, args.repeats)}


def scored(args: Measure, kind: str, recipe: TrainArgs, trained: Trained) -> Iterator[dict[str, Any]]:
    """Rows of one model: as it was trained; with S frozen after the first pass; at every N, if it serves all."""

    def row(name: str, passes: int, frozen: bool = False) -> dict[str, Any]:
        found = accuracies(
            trained.model, trained.task, passes, args.sequences, split="test", uncut=recipe.uncut, frozen=frozen
        )
        places = {}
        if isinstance(trained.task, Hops) and trained.task.deepest >= fastweights_places.HOPS:
            several = (trained.model, trained.task, passes, args.sequences, frozen, recipe.uncut)
            places = {"places": fastweights_places.by_place(*several)}
        return {
            **places,
            "kind": name,
            "passes": passes,
            "seed": recipe.seed,
            "steps": recipe.steps,
            "flops": recipe.steps * flops(recipe),
            "seconds": trained.about["seconds"],
            "depths": [score_of(score) for score in found],
        }

    if kind == "n0":
        yield from (row("all N", passes) for passes in args.passes)
        return
    passes = recipe.passes
    yield row(kind, passes)
    if kind == f"n{passes}" and passes > 1:
        yield row("frozen", passes, frozen=True)


def score_of(score: Accuracy) -> dict[str, int]:
    """Counts of one depth."""
    return asdict(score)


def times(models: dict[int, Trained], repeats: int) -> list[dict[str, Any]]:
    """Milliseconds awake (an answer) and asleep (a window), all N in turns, and bytes of S; one sequence at a time."""
    ready, calls = {}, {}
    for passes, trained in models.items():
        batch = trained.task.batch(np.random.default_rng(0), 1, "test", depth=trained.task.deepest)
        model = trained.model
        state = model.empty(1)
        for window in batch.windows:
            state = model.digest(window, state, passes)
        ready[passes] = state
        calls[f"wake {passes}"] = _answer(model, batch.queries[:, :2], state)
        calls[f"sleep {passes}"] = _digest(model, batch.windows[0], passes)
    for call in calls.values():
        call()
    found = timing.in_turns(calls, repeats)
    return [
        {
            "passes": passes,
            **{when: timing.spread([1e3 * s for s in found[f"{when} {passes}"]]) for when in ("wake", "sleep")},
            "wake relative to the smallest N": relative(found[f"wake {passes}"], found[f"wake {min(models)}"]),
            "bytes of S": ready[passes].nbytes,
        }
        for passes in models
    ]


def relative(one: Sequence[float], other: Sequence[float], draws: int = 2000) -> dict[str, float]:
    """Ratio of the medians of paired timings, with its 95 % interval: a bootstrap over rounds, percentiles."""
    pairs = np.array([one, other])
    rounds = np.random.default_rng(0).integers(pairs.shape[1], size=(draws, pairs.shape[1]))
    ratios = np.divide(*np.median(pairs[:, rounds], axis=2))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {"ratio": float(np.divide(*np.median(pairs, axis=1))), "low": float(low), "high": float(high)}


def _answer(model: FastWeightModel, queries: torch.Tensor, state: Any) -> timing.Call:
    return torch.no_grad()(lambda: model.answer(queries, state))


def _digest(model: FastWeightModel, window: torch.Tensor, passes: int) -> timing.Call:
    return torch.no_grad()(lambda: model.digest(window, model.empty(1), passes))


def measure_all(args: Measure) -> None:
    """Measures, and writes records and page."""
    torch.set_num_threads(1)
    for task in args.tasks:
        if record := measured(args, task):
            records.write(args.out / f"{task}.json", record)
    contents = fastweights_page.contents(args.out)
    markdown.write(args.page, contents, "Fast weights", "benchmarks/fastweights.py")
    print(f"wrote {args.page}")


Args = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Measure, tyro.conf.subcommand("measure")]


def main(args: Train | Measure) -> None:
    if isinstance(args, Train):
        train_all(args)
    else:
        measure_all(args)


if __name__ == "__main__":
    main(tyro.cli(Args))
