"""Evaluates hand-written schedulers and trained policies on the same streams and prints a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from sleepgym.episode.card import load_card
from sleepgym.evaluation import EpisodeResult, ScoreMatrix, episodes_sheet, evaluate
from sleepgym.facts.world import Split
from sleepgym.leaderboard.players import Player, PlayerNameError, player_named, policy_name
from sleepgym.leaderboard.submission import folder_name
from sleepgym.schedulers import SchedulerNameError
from sleepgym.schedulers.named import RULES
from sleepgym.training import EnvSpec, PolicyError
from sleepgym.training.dashboard import Dashboard, Spectator, figures_of_result

USUAL = ("random", *RULES)


@dataclass
class Args:
    contestants: tyro.conf.Positional[tuple[str, ...]] = USUAL
    """schedulers, with optional fields after a colon as in night-owl:load_at=0.05; paths of policies, such as
    runs/ppo/best.zip; or ppo=runs/1/best.zip,runs/2/best.zip for several training runs under one name. A policy file
    is code: name only those that you trust"""
    env_id: str = "SleepLLM-v0"
    """id of the environment"""
    card: str = ""
    """path of a card that replaces the environment's own"""
    split: Split = "validation"
    """split that facts are drawn from"""
    episodes: int = 5
    """number of streams per contestant"""
    seed: int = 1000
    """seed of the first stream; the others follow it"""
    slots: int = 16
    """maximum number of parallel episodes"""
    threads: int = 1
    """number of torch threads"""
    out: Path | None = None
    """folder of the scores, one JSON file per contestant in the format of ScoreMatrix"""
    logdir: Path | None = None
    """folder of the tensorboard logs, with one subfolder per contestant"""
    json: bool = False
    """print the table as JSON, for scripts"""


def main(args: Args) -> None:
    torch.set_num_threads(args.threads)
    console = Console(stderr=args.json)
    spec = EnvSpec(args.env_id, args.card)
    try:
        # Loaded before the first evaluation, so that a mistake in any name is reported at once.
        contestants = contestants_of(args.contestants, spec.make(args.split))
    except (PlayerNameError, PolicyError, SchedulerNameError) as error:
        raise SystemExit(str(error)) from None
    seeds = range(args.seed, args.seed + args.episodes)
    rows: dict[str, list[EpisodeResult]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("episodes", total=args.episodes * sum(len(runs) for runs in contestants.values()))
        for name, runs in contestants.items():
            for label, run in runs.items():
                progress.update(task, description=label)
                rows[label] = play(args, spec, label, run, seeds, lambda: progress.advance(task))
            if args.out is not None:
                matrix = ScoreMatrix.from_results(name, [rows[label] for label in runs])
                matrix.save(args.out / f"{folder_name(name)}.json")
    title = f"{args.env_id}, {args.split}, {args.episodes} episodes, mean [95 % interval]"
    sheet = episodes_sheet(rows, np.random.default_rng(args.seed), title)
    if args.json:
        print(sheet.json(), end="")
    else:
        console.print(sheet.rich())


def contestants_of(texts: Sequence[str], env: gym.Env[Any, Any]) -> dict[str, dict[str, Player]]:
    """Loads the contestants: players by label, grouped by the name under which they are compared.

    Args:
        texts: Contestants as on the command line.
        env: Environment like those that they will be evaluated in.

    Raises:
        SystemExit: Two contestants have the same name.
        PlayerNameError: A text names no player.
    """
    found: dict[str, dict[str, Player]] = {}
    for text in texts:
        name, paths = policies_in(text)
        runs = [player_named(each, env) for each in (map(str, paths) if paths else [text])]
        if folder_name(name) in map(folder_name, found):
            raise SystemExit(f"expected each name once, found {name} twice; give policies names, as in {name}-2={text}")
        found[name] = {name if len(runs) == 1 else f"{name} {i}": run for i, run in enumerate(runs, start=1)}
    return found


def policies_in(text: str) -> tuple[str, list[Path]]:
    """Returns the name of a contestant and the files of its policies; a scheduler has none."""
    if not text.endswith(".zip"):
        return text, []
    name, named, paths = text.partition("=")
    if named and not {"/", "\\"} & set(name):
        return name, [Path(path) for path in paths.split(",")]
    # A path, which may contain "="; runs/ppo/best.zip is named ppo-best.
    return policy_name(Path(text)), [Path(text)]


def play(
    args: Args, spec: EnvSpec, label: str, run: Player, seeds: range, advance: Callable[[], None]
) -> list[EpisodeResult]:
    """Evaluates one scheduler or policy, and logs its episodes if there is a log folder."""
    if args.logdir is None:
        return evaluate(lambda: run.wrap(spec.make(args.split)), run.scheduler, seeds, args.slots, lambda _: advance())

    spectator = Spectator(lambda: run.wrap(spec.make(args.split, "rgb_array")), args.seed)

    def on_episode(result: EpisodeResult) -> None:
        advance()
        spectator(result)

    started = time.perf_counter()
    results = evaluate(spectator.make, run.scheduler, seeds, args.slots, on_episode)
    dashboard = Dashboard(args.logdir / folder_name(label))
    dashboard.card(load_card(spec.played_card))
    dashboard.policy(run.about)
    dashboard.arguments(asdict(args) | {"contestants": label}, ("eval/mean_score",))
    for step, result in enumerate(results):
        dashboard.episode(figures_of_result(result), step)
    dashboard.evaluation(results, time.perf_counter() - started, step=0)
    if spectator.picture is not None:
        dashboard.picture(spectator.picture, step=0)
    dashboard.close()
    return results


if __name__ == "__main__":
    main(tyro.cli(Args))
