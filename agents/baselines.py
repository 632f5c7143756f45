"""Runs the hand-written schedulers on the same episodes and prints how they compare."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import EpisodeResult, evaluate, table
from sleepgym.facts.world import Split
from sleepgym.schedulers import FixedPeriod, NeverSleep, PressureRule, RandomScheduler, Scheduler


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


def schedulers(seed: int) -> dict[str, Scheduler]:
    return {
        "random": RandomScheduler(seed),
        "never sleep": NeverSleep(),
        "naps only": NeverSleep(nap_days=0.5),
        "fixed period": FixedPeriod(days=0.75),
        "pressure rule": PressureRule(),
        "pressure, night": PressureRule(night_relief=0.4),
    }


def main(args: Args) -> None:
    console = Console()
    env = gym.make(args.env_id, split=args.split)
    seeds = range(args.seed, args.seed + args.episodes)
    results: dict[str, list[EpisodeResult]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        chosen = schedulers(args.seed)
        task = progress.add_task("episodes", total=len(chosen) * args.episodes)
        for name, scheduler in chosen.items():
            progress.update(task, description=name)
            results[name] = evaluate(env, scheduler, seeds, on_episode=lambda _: progress.advance(task))
    env.close()
    title = f"{args.env_id}, {args.split}, {args.episodes} episodes, mean [95 % interval]"
    console.print(table(results, np.random.default_rng(args.seed), title))


if __name__ == "__main__":
    main(tyro.cli(Args))
