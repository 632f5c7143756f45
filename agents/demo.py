"""Runs one episode with a hand-written scheduler, and saves its picture and tensorboard logs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import EpisodeResult, run_episode
from sleepgym.facts.world import Split
from sleepgym.schedulers import scheduler_named
from sleepgym.schedulers.named import spelled_out
from sleepgym.training.dashboard import Dashboard, figures_of_result


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """id of the environment"""
    seed: int = 0
    """seed of the episode"""
    split: Split = "train"
    """split that facts are drawn from"""
    scheduler: str = "rounds"
    """scheduler to evaluate, with optional fields after a colon as in night-owl:load_at=0.05"""
    out: Path = Path("runs/demo")
    """folder of the picture and the tensorboard logs"""


def main(args: Args) -> None:
    console, started = Console(), time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    env = gym.make(args.env_id, split=args.split, render_mode="rgb_array")
    dashboard = Dashboard(args.out)
    dashboard.card(env.unwrapped.card)  # type: ignore[attr-defined]
    dashboard.policy(spelled_out(args.scheduler))
    dashboard.arguments(asdict(args), ("eval/mean_score",))
    columns = (TextColumn("tick {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=env.unwrapped.card.horizon)  # type: ignore[attr-defined]

        def on_step(info: Mapping[str, Any]) -> None:
            for name in ("recall", "score", "edits_left", "ppl_ratio", "pending", "sleeps", "naps"):
                dashboard.writer.add_scalar(f"episode/{name}", info[name], info["tick"])
            for name in ("served", "drift", "invalid"):
                dashboard.writer.add_scalar(f"reward/{name}", info[f"reward_{name}"], info["tick"])
            dashboard.writer.add_scalar("time/seconds", time.perf_counter() - started, info["tick"])
            words = f"recall {info['recall']:.2f}  score {info['score']:.2f}  sleeps {info['sleeps']}"
            progress.update(task, completed=info["tick"], description=words)

        result = run_episode(env, scheduler_named(args.scheduler), args.seed, on_step)
    picture = np.asarray(env.render(), dtype=np.uint8)
    dashboard.episode(figures_of_result(result), step=0)
    dashboard.evaluation([result], time.perf_counter() - started, step=0)
    dashboard.picture(picture, step=0)
    dashboard.close()
    Image.fromarray(picture).save(args.out / "hypnogram.png")
    env.close()
    console.print(summary(args.scheduler, result, time.perf_counter() - started))
    console.print(f"picture: {args.out / 'hypnogram.png'}   logs: tensorboard --logdir {args.out}")


def summary(scheduler: str, result: EpisodeResult, seconds: float) -> Table:
    out = Table("measure", "value", title=f"one episode of {scheduler}")
    out.add_row("questions answered correctly", f"{result.score:.1%}")
    out.add_row("facts recalled at the end", f"{result.recall:.1%}")
    out.add_row("edits spent", f"{result.edits_used} of {result.budget}")
    out.add_row("nights, naps", f"{result.sleeps}, {result.naps}")
    out.add_row("perplexity drift", f"{result.ppl_ratio - 1:+.1%}")
    out.add_row("forbidden or failed steps", str(result.invalid))
    out.add_row("seconds", f"{seconds:.1f}")
    return out


if __name__ == "__main__":
    main(tyro.cli(Args))
