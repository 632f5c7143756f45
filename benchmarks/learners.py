"""What each learner of `agents/` reaches in the sim: simulated scores of policies as their training left them.

    python benchmarks/learners.py --runs runs/result runs/learners --out docs/learners.json --page docs/learners.md

A folder of runs has one per folder, which is called by the learner and the seed, such as ``dqn-1``; docs/learners.md
says how they are trained. All policies play the same simulated streams, which no training has validated on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import ppo_single_file
from benchmarks.common import markdown, records
from sleepgym.evaluation import ScoreMatrix, compare, in_processes, simulate
from sleepgym.schedulers import Predictor, scheduler_named
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import load_policy

ENV = "SleepLLM-v0"
AGAINST = "ppo"
"""Learner that the others are compared with."""
NAMES: Mapping[str, str] = {
    "ppo": "PPO, masked (`ppo.py`)",
    "ppo_single_file": "the same in one file (`ppo_single_file.py`)",
    "recurrent_ppo": "PPO with an LSTM, no masks (`recurrent_ppo.py`)",
    "dqn": "DQN, no masks (`dqn.py`)",
    "pressure-rule": "`pressure-rule`, for comparison",
}


@dataclass
class Args:
    runs: tuple[Path, ...] = (Path("runs/result"), Path("runs/learners"))
    """folders of training runs"""
    rules: tuple[str, ...] = ("pressure-rule",)
    """hand-written schedulers to play beside them"""
    streams: int = 512
    """simulated streams of each policy"""
    seed: int = 2000
    """seed of the first; the others follow it"""
    processes: int = 1
    """processes, with an equal share of the cores each"""
    out: Path | None = None
    """JSON with every score"""
    page: Path | None = None
    """Markdown whose marked table is replaced"""


class Run(NamedTuple):
    """A policy to play.

    Attributes:
        learner: Name of the learner, or of a scheduler.
        seed: Seed of its training; 0 for a scheduler.
        folder: Folder of the run; None for a scheduler.
        streams: Seeds of the simulated streams.
    """

    learner: str
    seed: int
    folder: Path | None
    streams: range


def found(folders: Sequence[Path], streams: range) -> Iterator[Run]:
    """Runs in folders."""
    for path in sorted(path for folder in folders for path in folder.glob("*-*") if path.is_dir()):
        if match := re.fullmatch(r"(.+)-(\d+)", path.name):
            yield Run(match[1], int(match[2]), path, streams)


def policy_of(run: Run) -> tuple[Predictor, int]:
    """The policy as training left it, and its steps."""
    if run.folder is None:
        return scheduler_named(run.learner), 0  # type: ignore[return-value]  # rules are named here
    if run.learner == ppo_single_file.__name__.rpartition(".")[2]:
        return ppo_single_file.Player(run.folder), records.read(run.folder / "policy.json")["steps"]
    model, card = load_policy(run.folder / "last.zip")
    return model, card.steps


def minutes(run: Run) -> float:
    """Minutes from the first to the last value that was logged."""
    if run.folder is None:
        return 0.0
    log = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
    times = [event.wall_time for tag in log.Tags()["scalars"] for event in log.Scalars(tag)]
    return (max(times) - min(times)) / 60


def played(run: Run) -> dict[str, Any]:
    """Scores of a run's policy, and what it cost."""
    torch.set_num_threads(1)
    setting, response = setting_and_response(ENV, None, {})
    policy, steps = policy_of(run)
    results = simulate(setting, response, policy, run.streams)
    return {
        "learner": run.learner,
        "seed": run.seed,
        "steps": steps,
        "minutes": round(minutes(run), 2),
        "invalid": float(np.mean([result.invalid for result in results])),
        "scores": [round(result.score, 5) for result in results],
    }


def contents(record: records.Record) -> dict[str, str]:
    """Blocks of the page, from a record."""
    streams = tuple(range(record["seed"], record["seed"] + record["streams"]))
    names = [name for name in NAMES if any(run["learner"] == name for run in record["runs"])]
    of = {name: [run for run in record["runs"] if run["learner"] == name] for name in names}
    scores = {name: ScoreMatrix(name, streams, np.array([run["scores"] for run in runs])) for name, runs in of.items()}
    rng = np.random.default_rng(record["seed"])
    rows = []
    for name in sorted(names, key=lambda each: -scores[each].scores.mean()):
        runs = of[name]
        gain = "" if name == AGAINST else f"{compare(scores[name], scores[AGAINST], rng).difference:+.3f}"
        spread = [float(np.mean(run["scores"])) for run in runs]
        steps, spent = (float(np.mean([run[key] for run in runs])) for key in ("steps", "minutes"))
        cells = [NAMES[name], str(len(runs)) if steps else "", f"{steps:,.0f}" if steps else ""]
        cells += [f"{spent:.0f}" if steps else "", f"{np.mean([run['invalid'] for run in runs]):.1f}"]
        rows.append([*cells, f"{np.mean(spread):.3f} ({min(spread):.3f} to {max(spread):.3f})", gain])
    head = ["", "runs", "steps", "minutes", "invalid steps", "simulated score (range of runs)", f"- {AGAINST}"]
    return {"learners": markdown.table(head, rows)}


def main(args: Args) -> None:
    streams = range(args.seed, args.seed + args.streams)
    runs = [*found(args.runs, streams), *(Run(name, 0, None, streams) for name in args.rules)]
    if AGAINST not in {run.learner for run in runs}:
        raise SystemExit(f"expected runs of {AGAINST} in {', '.join(map(str, args.runs))}, found none")
    scores = list(track(in_processes(played, runs, args.processes), total=len(runs)))
    record = records.circumstances() | {"env_id": ENV, "seed": args.seed, "streams": args.streams, "runs": scores}
    if args.out:
        records.write(args.out, record, indent=None)
    if args.page:
        markdown.write(args.page, contents(record), "Learners in the sim", "benchmarks/learners.py")
    Console(width=200).print(contents(record)["learners"])


if __name__ == "__main__":
    main(tyro.cli(Args))
