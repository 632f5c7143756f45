"""Lets a hand-written rule and a trained policy live through the same stream, and makes a film of both, side by side.

    python agents/demo.py
    python agents/demo.py night-owl runs/ppo/best.zip --env-id SleepLLM-Night-v0 --seed 3

Leaves `film.gif`, the last picture as `hypnogram.png`, and tensorboard logs in the folder `--out`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import EpisodeResult, run_episode
from sleepgym.facts.world import Split
from sleepgym.leaderboard.players import Player, player_named, policy_name
from sleepgym.leaderboard.submission import folder_name
from sleepgym.training.dashboard import Dashboard, figures_of_result

CAPTION = 24
"""Height of the line with the players' names, in pixels."""

POLICY = Path(__file__).parent / "pretrained" / "ppo-1.zip"
"""The policy of the film. A wheel does not have it: policy files are code."""


@dataclass
class Args:
    players: tyro.conf.Positional[tuple[str, ...]] = (
        "pressure-rule",
        str(POLICY) if POLICY.is_file() else "never-sleep",
    )
    """schedulers, with optional fields after a colon as in night-owl:load_at=0.05, and paths of policies. A policy file
    is code: name only those that you trust"""
    env_id: str = "SleepLLM-v0"
    """id of the environment"""
    seed: int = 0
    """seed of the episode"""
    split: Split = "validation"
    """split that facts are drawn from"""
    every: int = 2
    """ticks between pictures of the film"""
    threads: int = 1
    """number of torch threads; more are hardly faster, and many times slower where other programs use the cores"""
    out: Path = Path("runs/demo")
    """folder of the film, the last picture and the tensorboard logs"""


@dataclass(frozen=True)
class Episode:
    """What a player did, and how it looked.

    Attributes:
        name: Name of the player.
        result: How its episode ended.
        pictures: Pictures by tick.
        seconds: How long it took.
    """

    name: str
    result: EpisodeResult
    pictures: Mapping[int, Image.Image]
    seconds: float


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    console = Console()
    args.out.mkdir(parents=True, exist_ok=True)
    # All before the first plays, so that a mistake in any name is reported at once.
    env = gym.make(args.env_id)
    players = named([player_named(text, env) for text in args.players])
    played = []
    for name, player in players.items():
        env = gym.make(args.env_id, split=args.split, render_mode="rgb_array")
        played.append(play(args, name, player, env, console))
        env.close()
    with console.status("making the film"):
        save_film(film({episode.name: episode.pictures for episode in played}), args.out)
    console.print(summary(played))
    console.print(f"film: {args.out / 'film.gif'}   logs: tensorboard --logdir {args.out}")


def save_film(frames: Sequence[Image.Image], folder: Path) -> None:
    """Writes the film, and its last picture."""
    frames[-1].save(folder / "hypnogram.png")
    shades = [frame.quantize(64, dither=Image.Dither.NONE) for frame in frames]
    shades[0].save(
        folder / "film.gif",
        save_all=True,
        append_images=shades[1:],
        duration=[120] * (len(shades) - 1) + [3000],
        loop=0,
    )


def play(args: Args, name: str, player: Player, env: gym.Env[Any, Any], console: Console) -> Episode:
    """Lets a player live through the stream, and logs it."""
    started = time.perf_counter()
    card = env.unwrapped.card  # type: ignore[attr-defined]
    dashboard = Dashboard(args.out / folder_name(name))
    dashboard.card(card)
    dashboard.policy(player.about)
    dashboard.arguments(asdict(args), ("eval/mean_score",))
    pictures: dict[int, Image.Image] = {}
    columns = (TextColumn("tick {task.completed}/{task.total}"), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(name, total=card.horizon)

        def on_step(info: Mapping[str, Any]) -> None:
            tick = int(info["tick"])
            for figure in ("recall", "score", "edits_left", "ppl_ratio", "pending", "sleeps", "naps"):
                dashboard.writer.add_scalar(f"episode/{figure}", info[figure], tick)
            for figure in ("served", "drift", "invalid"):
                dashboard.writer.add_scalar(f"reward/{figure}", info[f"reward_{figure}"], tick)
            dashboard.writer.add_scalar("time/seconds", time.perf_counter() - started, tick)
            if tick - max(pictures, default=-args.every) >= args.every or tick >= card.horizon:
                pictures[tick] = Image.fromarray(np.asarray(env.render(), dtype=np.uint8))
            words = f"{name}: recall {info['recall']:.2f}  score {info['score']:.2f}  sleeps {info['sleeps']}"
            progress.update(task, completed=tick, description=words)

        result = run_episode(player.wrap(env), player.scheduler, args.seed, on_step)
    seconds = time.perf_counter() - started
    dashboard.episode(figures_of_result(result), step=0)
    dashboard.evaluation([result], seconds, step=0)
    dashboard.picture(np.asarray(pictures[max(pictures)]), step=0)
    dashboard.close()
    return Episode(name, result, pictures, seconds)


def named(players: Sequence[Player]) -> dict[str, Player]:
    """Players by their names in tables and folders: of a policy that of its file, or that of its folder as well.

    Raises:
        SystemExit: Two players have the same name.
    """
    for parts in (1, 2):
        found = {policy_name(Path(each.name), parts) if each.policy else each.name: each for each in players}
        if len(found) == len(players):
            return found
    raise SystemExit(f"expected players of different names, found {', '.join(each.name for each in players)}")


def film(episodes: Mapping[str, Mapping[int, Image.Image]]) -> list[Image.Image]:
    """Pictures of several episodes side by side below their names, each as of the same tick.

    Args:
        episodes: Pictures by tick, by the name of the player.
    """
    font, frames = ImageFont.load_default(16), []
    for tick in sorted({tick for pictures in episodes.values() for tick in pictures}):
        shown = [
            pictures[max((t for t in pictures if t <= tick), default=min(pictures))] for pictures in episodes.values()
        ]
        size = sum(each.width for each in shown), CAPTION + max(each.height for each in shown)
        frame, left = Image.new("RGB", size, "white"), 0
        for name, each in zip(episodes, shown, strict=True):
            frame.paste(each, (left, CAPTION))
            ImageDraw.Draw(frame).text((left + each.width // 2, CAPTION // 2), name, "black", font, anchor="mm")
            left += each.width
        frames.append(frame)
    return frames


def summary(played: Sequence[Episode]) -> Table:
    """A column for each player."""
    results = [episode.result for episode in played]
    out = Table("measure", *(episode.name for episode in played), title="the same stream")
    out.add_row("questions answered correctly", *(f"{result.score:.1%}" for result in results))
    out.add_row("facts recalled at the end", *(f"{result.recall:.1%}" for result in results))
    out.add_row("edits spent", *(f"{result.edits_used} of {result.budget}" for result in results))
    out.add_row("nights, naps", *(f"{result.sleeps}, {result.naps}" for result in results))
    out.add_row("perplexity drift", *(f"{result.ppl_ratio - 1:+.1%}" for result in results))
    out.add_row("forbidden or failed steps", *(str(result.invalid) for result in results))
    out.add_row("seconds", *(f"{episode.seconds:.1f}" for episode in played))
    return out


if __name__ == "__main__":
    main(tyro.cli(Args))
