"""Runs the hand-written schedulers on the same episodes and prints how they compare."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import EpisodeResult, Maker, Predictor, episodes_sheet, evaluate
from sleepgym.facts.world import Split
from sleepgym.schedulers import FixedPeriod, NeverSleep, NightOwl, PressureRule, RandomScheduler


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment to run on"""
    episodes: int = 5
    """number of episodes per scheduler"""
    seed: int = 1000
    """seed of the first episode; the others follow it"""
    split: Split = "validation"
    """whose facts are taught"""


def schedulers() -> dict[str, Predictor | Maker]:
    return {
        "random": lambda env, seed: RandomScheduler(seed),
        "never sleep": NeverSleep(),
        "naps only": NeverSleep(nap_days=0.5),
        "fixed period": FixedPeriod(days=0.75),
        "pressure rule": PressureRule(),
        "pressure, night": PressureRule(night_relief=0.4),
        "night owl": NightOwl(),
    }


def main(args: Args) -> None:
    console = Console()
    seeds = range(args.seed, args.seed + args.episodes)
    results: dict[str, list[EpisodeResult]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        chosen = schedulers()
        task = progress.add_task("episodes", total=len(chosen) * args.episodes)
        for name, scheduler in chosen.items():
            progress.update(task, description=name)
            results[name] = evaluate(
                lambda: gym.make(args.env_id, split=args.split),
                scheduler,
                seeds,
                on_episode=lambda _: progress.advance(task),
            )
    title = f"{args.env_id}, {args.split}, {args.episodes} episodes, mean [95 % interval]"
    console.print(episodes_sheet(results, np.random.default_rng(args.seed), title).rich())


if __name__ == "__main__":
    main(tyro.cli(Args))
