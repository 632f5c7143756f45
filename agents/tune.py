"""Tries every hand-written scheduler with every combination of its parameters on streams of the training split.

A plain grid: each combination plays the same streams, and the best mean score wins. What is found here is to be
confirmed on other streams (agents/evaluate.py --split validation), since the best of many is partly luck.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sleepgym.evaluation import EpisodeResult, ScoreMatrix, episodes_sheet, evaluate, statistics, stratified_bootstrap
from sleepgym.learning import EnvSpec
from sleepgym.schedulers import scheduler_named

# What is tried. Days, shares and pressures are those of the schedulers' docstrings.
GRIDS: Mapping[str, Mapping[str, Sequence[float | None]]] = {
    "never-sleep": {"nap_days": [None, 0.25, 0.5, 1.0]},
    "fixed-period": {"days": [0.25, 0.5, 0.75, 1.0, 1.5, 2.0]},
    "pressure-rule": {"nap_at": [0.3, 0.6, 2.0], "sleep_at": [0.5, 0.65, 0.8], "night_relief": [0.0, 0.2, 0.4]},
    "drowsiness": {"degraded_at": [0.1, 0.2, 0.3, 0.5], "nap_days": [0.25, 0.5, 1.0]},
    "night-owl": {"traffic_at": [0.1, 0.15, 0.3, 0.5], "load_at": [0.03, 0.06, 0.12], "anyway_at": [0.3, 1.0]},
    "budget-aware": {
        "traffic_at": [0.15, 0.3],
        "load_at": [0.03, 0.1],
        "nap_days": [0.25, 0.5, 1.0],
        "reserve": [0.5, 0.8, 1.1],
    },
}


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment to tune for"""
    card: str = ""
    """path of a card of your own to play instead of the environment's"""
    schedulers: tuple[str, ...] = field(default_factory=lambda: tuple(GRIDS))
    """which of never-sleep, fixed-period, pressure-rule, drowsiness, night-owl, budget-aware"""
    episodes: int = 8
    """streams that each combination plays"""
    seed: int = 0
    """seed of the first stream; the others follow it"""
    slots: int = 16
    """episodes at once"""
    threads: int = 1
    """threads of torch"""
    out: Path = Path("runs/tune.json")
    """where the results go"""


def combinations(name: str) -> list[str]:
    """Every combination, as agents/evaluate.py takes it: night-owl:traffic_at=0.1,load_at=0.03,anyway_at=0.3."""
    grid = GRIDS[name]
    texts = [[f"{field}={'none' if value is None else value}" for value in grid[field]] for field in grid]
    return [f"{name}:{','.join(values)}" for values in itertools.product(*texts)]


def main(args: Args) -> None:
    if unknown := sorted(set(args.schedulers) - set(GRIDS)):
        raise SystemExit(f"expected schedulers out of {', '.join(GRIDS)}, found {', '.join(unknown)}")
    torch.set_num_threads(args.threads)
    console, rng = Console(), np.random.default_rng(args.seed)
    spec, seeds = EnvSpec(args.env_id, args.card), range(args.seed, args.seed + args.episodes)
    tried = [(name, text) for name in args.schedulers for text in combinations(name)]
    scores: dict[str, float] = {}
    results: dict[str, dict[str, list[EpisodeResult]]] = {name: {} for name in args.schedulers}
    rows: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("episodes", total=len(tried) * args.episodes)
        for name, text in tried:
            progress.update(task, description=name)
            played = evaluate(
                lambda: spec.make("train"),
                scheduler_named(text),
                seeds,
                args.slots,
                on_episode=lambda _: progress.advance(task),
            )
            score = stratified_bootstrap(statistics.mean, ScoreMatrix.from_results(text, [played]), rng=rng)
            results[name][text], scores[text] = played, score.point
            rows.append({"scheduler": text, "score": asdict(score)})
            write(args, rows)

    for name in args.schedulers:
        title = f"{name} on {args.env_id}, train, {args.episodes} episodes, mean [95 % interval]"
        console.print(episodes_sheet(results[name], rng, title).rich())
    for name in args.schedulers:
        best = max(results[name], key=lambda text: scores[text])
        console.print(f"best {name}: {scores[best]:.3f} with {best}", soft_wrap=True, highlight=False)
    console.print(f"results: {args.out}")


def write(args: Args, rows: list[dict[str, Any]]) -> None:
    """After every combination: a long sweep that is stopped leaves what it has found."""
    found = {"env_id": args.env_id, "card": args.card, "split": "train", "seed": args.seed, "episodes": args.episodes}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
