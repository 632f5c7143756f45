r"""What each learner of `agents/` reaches in the sim: simulated scores of policies as their training left them.

    python benchmarks/learners.py --runs runs/result runs/learners --out docs/learners.json --page docs/learners.md

A folder of runs has one per folder, which is called by the learner and the seed, such as ``dqn-1``; docs/learners.md
says how they are trained. All policies play the same simulated streams, which no training has validated on. Runs of
RLlib are played in its own environment, and added to what was recorded:

    .venv-rllib/bin/python benchmarks/learners.py --runs runs/rllib --add \
        --out docs/learners.json --page docs/learners.md
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
    "ppo_single_file": "PPO, masked, in one file (`ppo_single_file.py`)",
    "recurrent_ppo": "PPO with an LSTM, no masks (`recurrent_ppo.py`)",
    "rllib_ppo": "PPO of RLlib, masked, flat observations (`rllib_ppo.py`)",
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
    add: bool = False
    """keep the runs that are recorded in out, whose folders need not be there; a run that is found takes the place of
    its earlier record, and rules that are recorded are not played again"""
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
    if run.learner == "rllib_ppo":
        return rllib_policy_of(run.folder)
    model, card = load_policy(run.folder / "last.zip")
    return model, card.steps


def rllib_policy_of(folder: Path) -> tuple[Predictor, int]:
    """The policy of the last checkpoint of RLlib, and its steps."""
    try:
        from sleepgym.training.rllib import load_rllib_policy
    except ImportError as error:
        raise SystemExit(
            f"expected RLlib to play {folder}, found {error}; let .venv-rllib/bin/python add runs of RLlib (--add), "
            "which need a folder of their own"
        ) from error
    found = {int(path.name): path for path in (folder / "checkpoints").glob("*") if path.name.isdigit()}
    if not found:
        raise SystemExit(f"expected checkpoints in {folder}/checkpoints, found none; train by agents/rllib_ppo.py")
    return load_rllib_policy(found[max(found)]), max(found)


def minutes(run: Run, steps: int) -> float:
    """Minutes from the first to the last value that was logged, up to the steps of the policy."""
    if run.folder is None:
        return 0.0
    log = EventAccumulator(str(run.folder), size_guidance={"scalars": 0}).Reload()
    events = (event for tag in log.Tags()["scalars"] for event in log.Scalars(tag))
    times = [event.wall_time for event in events if event.step <= steps]
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
        "minutes": round(minutes(run, steps), 2),
        "invalid": float(np.mean([result.invalid for result in results])),
        "scores": [round(result.score, 5) for result in results],
    }


def joined(before: records.Record, added: records.Record) -> records.Record:
    """A record with the runs of another one, which take the place of its own of the same learner and seed.

    Under ``added`` it has the circumstances under which runs were added, oldest first.
    """
    streams = ("env_id", "seed", "streams")
    if different := [key for key in streams if before[key] != added[key]]:
        raise SystemExit(
            f"expected runs on the recorded streams, {', '.join(f'{key} {before[key]!r}' for key in different)}, found "
            f"{', '.join(repr(added[key]) for key in different)}; play the same, or leave --add out"
        )
    new = {(run["learner"], run["seed"]) for run in added["runs"]}
    kept = [run for run in before["runs"] if (run["learner"], run["seed"]) not in new]
    about = {key: value for key, value in added.items() if key not in (*streams, "runs")}
    about["runs"] = [f"{learner}-{seed}" for learner, seed in sorted(new)]
    return before | {"runs": kept + added["runs"], "added": [*before.get("added", []), about]}


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
        steps = float(np.mean([run["steps"] for run in runs]))
        # A run that was interrupted took its pause as well, hence the median.
        spent = float(np.median([run["minutes"] for run in runs]))
        cells = [NAMES[name], str(len(runs)) if steps else "", f"{steps:,.0f}" if steps else ""]
        cells += [f"{spent:.0f}" if steps else "", f"{np.mean([run['invalid'] for run in runs]):.1f}"]
        rows.append([*cells, f"{np.mean(spread):.3f} ({min(spread):.3f} to {max(spread):.3f})", gain])
    head = ["", "runs", "steps", "minutes", "invalid steps", "simulated score (range of runs)", f"- {AGAINST}"]
    return {"learners": markdown.table(head, rows)}


def main(args: Args) -> None:
    if args.add and args.out is None:
        raise SystemExit("expected --out with the record to add to, found none; give it, or leave --add out")
    before = records.read(args.out) if args.add and args.out else {"runs": []}
    recorded = {run["learner"] for run in before["runs"]}
    streams = range(args.seed, args.seed + args.streams)
    rules = [Run(name, 0, None, streams) for name in args.rules if name not in recorded]
    runs = [*found(args.runs, streams), *rules]
    if AGAINST not in recorded | {run.learner for run in runs}:
        raise SystemExit(f"expected runs of {AGAINST} in {', '.join(map(str, args.runs))}, found none")
    scores = list(track(in_processes(played, runs, args.processes), total=len(runs)))
    record = records.circumstances() | {"env_id": ENV, "seed": args.seed, "streams": args.streams, "runs": scores}
    if args.add:
        record = joined(before, record)
    if args.out:
        records.write(args.out, record, indent=None)
    if args.page:
        markdown.write(args.page, contents(record), "Learners in the sim", "benchmarks/learners.py")
    Console(width=200).print(contents(record)["learners"])


if __name__ == "__main__":
    main(tyro.cli(Args))
