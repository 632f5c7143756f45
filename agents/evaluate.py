"""Plays hand-written schedulers and trained policies on the same episodes and prints how they compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sleepgym.dashboard import Dashboard, Spectator, figures_of_result
from sleepgym.env.card import load_card
from sleepgym.evaluation import EpisodeResult, Maker, Predictor, ScoreMatrix, episodes_sheet, evaluate
from sleepgym.facts.world import Split
from sleepgym.learning import EnvSpec, PolicyError, load_policy
from sleepgym.schedulers import SchedulerNameError, scheduler_named

USUAL = (
    "random",
    "never-sleep",
    "never-sleep:nap_days=0.5",
    "fixed-period",
    "pressure-rule",
    "pressure-rule:night_relief=0.4",
    "night-owl",
)


@dataclass
class Args:
    contestants: tyro.conf.Positional[tuple[str, ...]] = USUAL
    """schedulers, with numbers after a colon as in night-owl:load_at=0.05; paths of policies, such as
    runs/ppo/best.zip; or ppo=runs/1/best.zip,runs/2/best.zip for several training runs under one name. A policy file
    is code: name only those that you trust"""
    env_id: str = "SleepLLM-v0"
    """the environment to play"""
    card: str = ""
    """path of a card of your own to play instead of the environment's"""
    split: Split = "validation"
    """whose facts are taught"""
    episodes: int = 5
    """streams that each contestant plays"""
    seed: int = 1000
    """seed of the first stream; the others follow it"""
    slots: int = 16
    """episodes at once"""
    threads: int = 1
    """threads of torch"""
    out: Path | None = None
    """folder for the scores, one JSON file per contestant, as ScoreMatrix reads them"""
    logdir: Path | None = None
    """folder for tensorboard logs, one below it per contestant"""


class Contestant(NamedTuple):
    source: str
    scheduler: Predictor | Maker
    spec: EnvSpec


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    console = Console()
    try:
        # All of them before anybody plays: a mistake in the last name is found at once.
        contestants = dict(contestants_of(args, text) for text in args.contestants)
    except (PolicyError, SchedulerNameError) as error:
        raise SystemExit(str(error)) from None
    seeds = range(args.seed, args.seed + args.episodes)
    rows: dict[str, list[EpisodeResult]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("episodes", total=args.episodes * sum(len(runs) for runs in contestants.values()))
        for name, runs in contestants.items():
            for label, run in runs.items():
                progress.update(task, description=label)
                rows[label] = play(args, label, run, seeds, lambda: progress.advance(task))
            if args.out is not None:
                matrix = ScoreMatrix.from_results(name, [rows[label] for label in runs])
                matrix.save(args.out / f"{file_name(name)}.json")
    title = f"{args.env_id}, {args.split}, {args.episodes} episodes, mean [95 % interval]"
    console.print(episodes_sheet(rows, np.random.default_rng(args.seed), title).rich())


def contestants_of(args: Args, text: str) -> tuple[str, dict[str, Contestant]]:
    """What a contestant is called, and its runs: one, or the policies of several trainings."""
    if not text.endswith(".zip"):
        return text, {text: Contestant(text, scheduler_named(text), EnvSpec(args.env_id, args.card))}
    name, separator, paths = text.partition("=")
    if not separator:
        # runs/ppo/best.zip is called ppo-best.
        name, paths = "-".join(Path(text).with_suffix("").parts[-2:]), text
    runs: list[Contestant] = []
    for path in paths.split(","):
        policy, card = load_policy(Path(path))
        runs.append(Contestant(path, policy, EnvSpec(args.env_id, args.card, card.flat)))
    return name, {name if len(runs) == 1 else f"{name} {i}": run for i, run in enumerate(runs, start=1)}


def play(args: Args, label: str, run: Contestant, seeds: range, advance: Callable[[], None]) -> list[EpisodeResult]:
    """Episodes of one scheduler or policy, logged if that is wanted."""
    if args.logdir is None:
        return evaluate(lambda: run.spec.make(args.split), run.scheduler, seeds, args.slots, lambda _: advance())

    spectator = Spectator(lambda: run.spec.make(args.split, "rgb_array"), args.seed)

    def on_episode(result: EpisodeResult) -> None:
        advance()
        spectator(result)

    results = evaluate(spectator.make, run.scheduler, seeds, args.slots, on_episode)
    dashboard = Dashboard(args.logdir / file_name(label))
    dashboard.card(load_card(args.card or args.env_id))
    dashboard.text("policy", run.source)
    for step, result in enumerate(results):
        dashboard.episode(figures_of_result(result), step)
    dashboard.evaluation(results, step=0)
    if spectator.picture is not None:
        dashboard.picture(spectator.picture, step=0)
    dashboard.close()
    return results


def file_name(label: str) -> str:
    # Colons and spaces are no part of a file's name everywhere.
    return label.replace(":", ",").replace(" ", "-")


if __name__ == "__main__":
    main(tyro.cli(Args))
