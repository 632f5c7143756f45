"""Steps per second of the sim by its number of environments and processes, beside the real environment.

    python benchmarks/sim_speed.py --out docs/environments/sim.json --page docs/environments/sim.md

All follow the same timetable, each environment from another point of it on, in processes of one thread each, and take
turns: ratios are those of one round. Episodes that end in between begin anew, and count.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import SyncVectorEnv, VectorEnv
from rich.console import Console
from rich.progress import track

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks import sim_page
from benchmarks.common import markdown, records, timing
from benchmarks.throughput import DAY
from sleepgym.episode.actions import Action
from sleepgym.sim.registration import sim_id


@dataclass
class Args:
    card: str = "SleepLLM-v0"
    """id of the real environment"""
    fit: Path | None = None
    """file of a fit; by default the one that is shipped for the card"""
    envs: tuple[int, ...] = (1, 64, 1024, 4096)
    """numbers of simulated environments in a process"""
    processes: int = 2
    """processes, each with the largest number of environments"""
    repeats: int = 5
    """rounds; one takes about half a minute"""
    seconds: float = 3.0
    """time of a contestant in a round"""
    out: Path | None = None
    """JSON with every figure, beside those of other benchmarks of the sim"""
    page: Path | None = None
    """Markdown whose marked tables are replaced"""


@dataclass(frozen=True)
class Contestant:
    """Equal vectors of environments in processes of one thread each.

    Attributes:
        what: What tables call it.
        env_id: Id of the environment.
        envs: Number of environments per process.
        processes: Number of processes.
        fit: File of the fit; None for the one that is shipped, and for a real environment.
    """

    what: str
    env_id: str
    envs: int
    processes: int = 1
    fit: str | None = None


class Player:
    """Steps a vector of environments by the timetable, with those actions that the mask allows.

    Args:
        contestant: The environments.
    """

    def __init__(self, contestant: Contestant) -> None:
        env_id = contestant.env_id
        fit: dict[str, Any] = {} if contestant.fit is None else {"fit": contestant.fit}
        # A SyncVectorEnv of one is the plain environment, stepped as the others are.
        self._envs: VectorEnv[Any, Any, Any] = (
            gym.make_vec(env_id, num_envs=contestant.envs, **fit)
            if "SleepSim" in env_id
            else SyncVectorEnv([lambda: gym.make(env_id)] * contestant.envs)
        )
        _, self._info = self._envs.reset(seed=0)
        self._each, self._step = np.arange(contestant.envs), 0
        self._day = np.array(DAY)

    def play(self, seconds: float) -> int:
        """Returns the steps of all environments in some time."""
        until, before = time.perf_counter() + seconds, self._step
        while time.perf_counter() < until:
            due = self._day[(self._each + self._step) % len(self._day)]
            allowed = np.asarray(self._info["action_mask"])[self._each, due]
            *_, self._info = self._envs.step(np.where(allowed, due, Action.WAIT))
            self._step += 1
        return (self._step - before) * len(self._each)


def work(contestant: Contestant, talk: Connection) -> None:
    """Plays in this process, for as many seconds as it is told, until it is told nothing."""
    torch.set_num_threads(1)
    player = Player(contestant)
    talk.send(0)
    while (seconds := talk.recv()) is not None:
        talk.send(player.play(seconds))


class Team:
    """The processes of a contestant, which have their environments ready.

    Args:
        contestant: The contestant.
    """

    def __init__(self, contestant: Contestant) -> None:
        context = multiprocessing.get_context("spawn")
        self.contestant = contestant
        pairs = [context.Pipe() for _ in range(contestant.processes)]
        self._talks = [mine for mine, _ in pairs]
        self._processes = [context.Process(target=work, args=(contestant, theirs), daemon=True) for _, theirs in pairs]
        for process, (_, theirs) in zip(self._processes, pairs, strict=True):
            process.start()
            # Only the other side may hold it, so that its end is noticed here.
            theirs.close()
        self.told()

    def rate(self, seconds: float) -> float:
        """Steps per second of all processes together, which begin at the same time."""
        started = time.perf_counter()
        for talk in self._talks:
            talk.send(seconds)
        return sum(self.told()) / (time.perf_counter() - started)

    def told(self) -> list[int]:
        return [talk.recv() for talk in self._talks]

    def close(self) -> None:
        for talk, process in zip(self._talks, self._processes, strict=True):
            talk.send(None)
            process.join()


def contestants(args: Args) -> list[Contestant]:
    """The real environment first, which all are compared with."""
    sim, fit = sim_id(args.card), None if args.fit is None else str(args.fit)
    found = [Contestant("the real environment, 1 process", args.card, 1)]
    found += [Contestant(f"sim, 1 process x {n}", sim, n, 1, fit) for n in args.envs]
    most = max(args.envs)
    return [*found, Contestant(f"sim, {args.processes} processes x {most}", sim, most, args.processes, fit)]


def rows(names: Sequence[str], rounds: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """Medians over rounds with the lowest and the highest, as rates and as ratios to the first contestant.

    Args:
        names: Contestants.
        rounds: Rates of all of them in every round.
    """
    by_name = list(zip(*rounds, strict=True))
    return [
        {
            "what": name,
            "steps per second": timing.spread(rates),
            "times real": timing.spread([mine / real for mine, real in zip(rates, by_name[0], strict=True)]),
            "rounds": [round(rate, 2) for rate in rates],
        }
        for name, rates in zip(names, by_name, strict=True)
    ]


def measured(args: Args, console: Console) -> records.Record:
    circumstances = records.circumstances()
    # Read when a process loads NumPy, whose threads would otherwise take the cores of the others.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    teams = [Team(contestant) for contestant in contestants(args)]
    rounds = [
        [team.rate(args.seconds) for team in teams]
        # One more for what is done once, such as the targets of facts that have not been written before.
        for _ in track(range(args.repeats + 1), "rounds", console=console)
    ][1:]
    for team in teams:
        team.close()
    return circumstances | {
        "card": args.card,
        "fit": "shipped" if args.fit is None else args.fit.name,
        "rounds": args.repeats,
        "rows": rows([team.contestant.what for team in teams], rounds),
    }


def main(args: Args) -> None:
    console = Console(width=160)
    found = measured(args, console)
    for name, block in sim_page.speed(found).items():
        console.print(f"{name}\n{block}\n", markup=False)
    sim_page.keep(args.out, "speed", found)
    if args.page:
        markdown.write(args.page, sim_page.speed(found), "The sim", "benchmarks/sim_speed.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
