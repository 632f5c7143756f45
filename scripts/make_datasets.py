"""Writes Minari datasets of real episodes, played by schedulers and policies on the same streams of the split train.

    python scripts/make_datasets.py --processes 2

makes ``sleepgym/SleepLLM-v0/random-v0`` and so on, which ``minari.load_dataset`` reads; ``mixed`` has an equal share of
each of the others. Episodes that are in the folder of parts already are not played again, so that a run that was
interrupted goes on; those of another card or player are refused. Minari's ``MINARI_DATASETS_PATH`` says where datasets
are kept. Needs the extra `minari`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import minari
import numpy as np
import tyro
from minari.data_collector import EpisodeBuffer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors import safe_open
from safetensors.numpy import load_file, save

from sleepgym import __version__, files
from sleepgym.env import RecordSleepStatistics
from sleepgym.evaluation import chunks, evaluate, in_processes
from sleepgym.leaderboard.players import player_named
from sleepgym.training import EnvSpec

MIXED = "mixed"
"""Dataset that is made of parts of the others."""

PLAYERS = ("random=random", "night-owl=night-owl", "best-rule=pressure-rule", "ppo=agents/pretrained/ppo-1.zip")

Part = dict[str, NDArray[Any]]
"""Arrays of an episode by name; those of observations and infos have names such as ``infos/recall``."""


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """id of the environment"""
    card: str = ""
    """path of a card that replaces the environment's own"""
    players: tuple[str, ...] = PLAYERS
    """datasets and who plays them, as NAME=PLAYER; a policy file is code: name only one that you trust"""
    low: str = "random"
    """dataset whose mean return is the lower reference score"""
    high: str = "ppo"
    """dataset whose mean return is the upper one"""
    episodes: int = 500
    """episodes of each dataset"""
    seed: int = 50_000
    """seed of the first stream; the others follow it"""
    parts: Path = Path("runs/datasets")
    """folder of the episodes, one file each"""
    lot: int = 5
    """episodes that a process plays before it is given others"""
    processes: int = 1
    """number of processes, each with an equal share of the cores"""


class Job(NamedTuple):
    """Episodes that one player plays."""

    spec: EnvSpec
    player: str
    seeds: Sequence[int]
    folder: Path


class Transcript(gym.Wrapper[Any, Any, Any, Any]):
    """Writes everything that an episode showed to a file when it has ended.

    Args:
        env: Environment whose observations are dictionaries.
        folder: Folder of the files, which are called by the seeds of their episodes.
    """

    def __init__(self, env: gym.Env[Any, Any], folder: Path) -> None:
        super().__init__(env)
        self.folder = folder

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins a new transcript; an episode that did not end is forgotten."""
        if seed is None:
            raise ValueError("expected a seed, by which the file of the episode is called, found none")
        observation, info = self.env.reset(seed=seed, options=options)
        self._path, self._shown, self._done = path_of(self.folder, seed), [_shown(observation, info)], list[Part]()
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        done = {"actions": action, "rewards": reward, "terminations": terminated, "truncations": truncated}
        self._shown.append(_shown(observation, info))
        self._done.append({name: np.array(value) for name, value in done.items()})
        if terminated or truncated:
            files.write(self._path, save(_stacked(self._shown) | _stacked(self._done)))
        return observation, reward, terminated, truncated, info


def path_of(folder: Path, seed: int) -> Path:
    """File of an episode."""
    return folder / f"{seed}.safetensors"


def _shown(observation: Mapping[str, Any], info: Mapping[str, Any]) -> Part:
    kinds = {"observations": observation, "infos": info}
    return {f"{kind}/{name}": np.array(value) for kind, of in kinds.items() for name, value in of.items()}


def _stacked(moments: Sequence[Part]) -> Part:
    return {name: np.stack([moment[name] for moment in moments]) for name in moments[0]}


def made(spec: EnvSpec) -> gym.Env[Any, Any]:
    """The environment that is recorded: infos have the same keys at every step."""
    return RecordSleepStatistics(spec.make("train"), every_step=True)


def claim(folder: Path, env: gym.Env[Any, Any], name: str) -> None:
    """Notes whose episodes a folder has.

    Raises:
        SystemExit: It has those of another card or player.
    """
    player = player_named(name, env)
    card = hashlib.sha256(repr(env.unwrapped.card).encode()).hexdigest()  # type: ignore[attr-defined]
    own = {"card": card, "player": player.policy or player.rule}
    path = folder / "played.json"
    if not path.exists():
        files.write(path, json.dumps(own, indent=1).encode())
    elif (before := json.loads(path.read_bytes())) != own:
        different = " and ".join(kind for kind in own if before.get(kind) != own[kind])
        raise SystemExit(
            f"expected in {folder} what {name} plays, found episodes of another {different}; "
            "name another folder by --parts, and delete datasets of the same names"
        )


def play(job: Job) -> None:
    """Plays episodes, which write themselves."""
    env = made(job.spec)
    player = player_named(job.player, env)
    evaluate(lambda: player.wrap(Transcript(env, job.folder)), player.scheduler, job.seeds, slots=1)


def episode(path: Path, number: int) -> EpisodeBuffer:
    """An episode as Minari takes it.

    Args:
        path: File of the episode.
        number: Number of the episode in its dataset.
    """
    part = load_file(path)
    nested: dict[str, dict[str, Any]] = {"observations": {}, "infos": {}}
    for name in part:
        kind, _, key = name.partition("/")
        if key:
            nested[kind][key] = part[name]
    steps = {name: part[name] for name in ("actions", "rewards", "terminations", "truncations")}
    return EpisodeBuffer(id=number, seed=int(path.stem), **steps, **nested)


def mean_return(paths: Sequence[Path]) -> float:
    """Mean return of episodes; only rewards are read of their files."""
    returns = []
    for path in paths:
        with safe_open(path, "numpy") as part:
            returns.append(part.get_tensor("rewards").sum())
    return float(np.mean(returns))


def shares(paths: Mapping[str, Sequence[Path]], episodes: int) -> list[Path]:
    """As many episodes of each player as of the others, on different streams."""
    names = itertools.cycle(paths)
    return [paths[next(names)][number] for number in range(episodes)]


def main(args: Args) -> None:
    console, players = Console(), dict(text.partition("=")[::2] for text in args.players)
    if "" in players.values() or MIXED in players or not {args.low, args.high} <= set(players):
        raise SystemExit(
            f"expected players as NAME=PLAYER, {args.low} and {args.high} for the reference scores among them and none "
            f"called {MIXED}, found {' '.join(args.players)}"
        )
    spec, seeds = EnvSpec(args.env_id, args.card), range(args.seed, args.seed + args.episodes)
    folders = {name: args.parts / args.env_id / name for name in players}
    env = made(spec)
    for name, folder in folders.items():
        claim(folder, env, players[name])
    left = {name: [s for s in seeds if not path_of(folder, s).exists()] for name, folder in folders.items()}
    jobs = [
        Job(spec, players[name], list(lot), folders[name]) for name in players for lot in chunks(left[name], args.lot)
    ]
    total = len(players) * args.episodes
    console.print(f"{total} episodes, {total - sum(map(len, left.values()))} of them played already")
    for _ in track(in_processes(play, jobs, args.processes), "playing", len(jobs), console=console):
        pass

    paths = {name: [path_of(folder, seed) for seed in seeds] for name, folder in folders.items()}
    low, high = mean_return(paths[args.low]), mean_return(paths[args.high])
    there = minari.list_local_datasets()
    warnings.filterwarnings("ignore", ".*author_email.*")  # an author is a project here
    for name, of in (paths | {MIXED: shares(paths, args.episodes)}).items():
        dataset_id = f"sleepgym/{args.env_id}/{name}-v0"
        if dataset_id in there:
            console.print(f"{dataset_id} is there already: minari delete {dataset_id} first, to make it anew")
            continue
        minari.create_dataset_from_buffers(
            dataset_id,
            [episode(path, number) for number, path in enumerate(of)],
            env=env,
            eval_env=env,
            algorithm_name=players.get(name, f"an equal share of each: {', '.join(players.values())}"),
            author="sleepgym",
            code_permalink="https://github.com/sleepgym/sleepgym/blob/main/scripts/make_datasets.py",
            description=f"Real episodes of {args.env_id}, sleepgym {__version__}, seeds {seeds.start} and following.",
            ref_min_score=low,
            ref_max_score=high,
            requirements=[f"sleepgym=={__version__}"],
        )
        console.print(f"{dataset_id}: {len(of)} episodes, mean return {mean_return(of):.2f}")


if __name__ == "__main__":
    main(tyro.cli(Args))
