"""Steps per second of an environment alone, in processes, and as slots on one model; memory and time of a reset.

    python benchmarks/throughput.py --out docs/environments/throughput.json --page docs/environments/throughput.md

All play the same episodes by the same timetable, and take turns: ratios are those of one round, so that a busy machine
slows all alike. Targets are cached before the first round.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv
from rich.console import Console
from rich.table import Table

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.actions import Action
from sleepgym.env.card import load_card
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector_env import SleepVectorEnv

DAY = tuple(Action[name] for name in "PRUNE INJECT WAIT INJECT WAIT NAP REFRESH INJECT WAIT INJECT NAP REFRESH INJECT "
            "SLEEP".split())  # fmt: skip
"""The mixed policy: 13 ticks awake and a night of 3, a day of SleepLLM-v0. What the mask forbids is a WAIT."""


@dataclass
class Args:
    card: str = "SleepLLM-v0"
    """id of the environment"""
    days: int = 1
    """days that are played of every episode"""
    episodes: int = 16
    """episodes of a round; a vector environment that is larger plays as many as it has slots"""
    slots: tuple[int, ...] = (1, 4, 16, 64)
    """sizes of the vector environment"""
    processes: int = 2
    """environments in processes of their own, with one thread each"""
    whole: int = 2
    """whole episodes of a round that one environment plays by itself"""
    repeats: int = 3
    """rounds; one takes about five minutes on two cores, and half of that without the 64 slots"""
    out: Path | None = None
    """JSON with every figure"""
    page: Path | None = None
    """the tables in Markdown"""


@dataclass
class Count:
    steps: int = 0
    seconds: float = 0.0

    def add(self, steps: int, seconds: float) -> None:
        self.steps += steps
        self.seconds += seconds

    @property
    def rate(self) -> float:
        """Steps per second; NaN if there were none."""
        return self.steps / self.seconds if self.steps else float("nan")


@dataclass
class Timing:
    """A round of one contestant. By action: steps of environments that did it while the others waited."""

    total: Count = field(default_factory=Count)
    ticks: int = 0
    by_action: dict[str, Count] = field(default_factory=lambda: {action.name: Count() for action in Action})


@dataclass(frozen=True)
class Contestant:
    """Environments that are stepped together.

    Attributes:
        name: What tables call them.
        envs: The environments.
        days: Days that are played of every episode.
        episodes: Episodes of a round, seeds from 0 on; at least as many as there are environments.
    """

    name: str
    envs: VectorEnv[Any, Any, Any]
    days: int
    episodes: int

    def play(self) -> Timing:
        """A round, as many episodes at a time as there are environments."""
        timing, n = Timing(), self.envs.num_envs
        for first in range(0, max(n, self.episodes - self.episodes % n), n):
            _, info = self.envs.reset(seed=first)
            for due in self.days * DAY:
                actions = np.where(info["action_mask"][:, due], due, Action.WAIT)
                before = info["tick"].sum()
                started = time.perf_counter()
                *_, info = self.envs.step(actions)
                seconds = time.perf_counter() - started
                timing.total.add(n, seconds)
                timing.ticks += int(info["tick"].sum() - before)
                # Those that wait meanwhile take next to nothing.
                done = due if actions.any() else Action.WAIT
                timing.by_action[done.name].add(int((actions == done).sum()), seconds)
        return timing


def in_process(card: str) -> gym.Env[Any, Any]:
    # AsyncVectorEnv makes one in this process as well, to look at its spaces.
    if multiprocessing.parent_process() is not None:
        torch.set_num_threads(1)
    return gym.make(card)


def contestants(args: Args) -> list[Contestant]:
    # A SyncVectorEnv of one is the plain environment, stepped as the others are.
    alone = SyncVectorEnv([lambda: gym.make(args.card)])
    days, episodes, whole = args.days, args.episodes, load_card(args.card).episode.days
    found = [
        Contestant("alone", alone, days, episodes),
        Contestant(f"alone, whole episodes of {whole} days", alone, whole, args.whole),
    ]
    if args.processes:
        # "spawn": a fork would copy the threads' locks, but not the threads.
        processes = AsyncVectorEnv([lambda: in_process(args.card)] * args.processes, context="spawn")
        found.append(Contestant(f"{args.processes} processes", processes, days, episodes))
    slots = [Contestant(f"{n} slots", SleepVectorEnv(n, card=args.card), days, episodes) for n in args.slots]
    return [*found, *slots]


def warm_up(args: Args, taking_part: Sequence[Contestant]) -> None:
    """Does what is done once: targets of all facts, and every process's first night, which runs the rehearsal text."""
    env = cast(SleepEnv, gym.make(args.card).unwrapped)
    for seed in range(max(args.episodes, *args.slots, 1)):
        env.reset(seed=seed)
        env.base.editor.targets([arrival.fact for now in env.episode.stream.arrivals for arrival in now])
    for each in taking_part:
        if not isinstance(each.envs, SleepVectorEnv):
            replace(each, days=1, episodes=1).play()


def row(name: str, timings: Sequence[Timing], against: Sequence[Timing]) -> dict[str, Any]:
    """Medians over rounds with the lowest and the highest."""
    rates = [timing.total.rate for timing in timings]
    ratios = [rate / other.total.rate for rate, other in zip(rates, against, strict=True)]
    by_action = {
        action.name: statistics.median(timing.by_action[action.name].rate for timing in timings) for action in Action
    }
    return {
        "what": name,
        "steps per second": _spread(rates),
        "ticks per second": _spread([timing.ticks / timing.total.seconds for timing in timings]),
        "times alone": _spread(ratios),
        "steps per second by action": {name: rate for name, rate in by_action.items() if rate == rate},
        "rounds": [asdict(timing) for timing in timings],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def reset_ms(card: str, times: int = 20) -> dict[str, float]:
    env, spans = gym.make(card), []
    for seed in range(times):
        started = time.perf_counter()
        env.reset(seed=seed)
        spans.append(1000 * (time.perf_counter() - started))
    return _spread(spans)


def added_memory(card: str, days: int, slots: int) -> dict[str, float]:
    """Megabytes that each slot adds after the days, and how many of them are tensors; for a fresh process on Linux."""

    def resident(n: int) -> tuple[float, SleepVectorEnv]:
        envs = SleepVectorEnv(n, card=card)
        Contestant("", envs, days, n).play()
        # What passes have left behind is not in use; the allocator keeps it until it is asked for.
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1e6, envs

    one, _ = resident(1)
    many, envs = resident(slots)
    memories = [cast(SleepEnv, env.unwrapped).episode.learner.state.memory for env in envs.envs]
    # Factors, and once more all of a module side by side, as the forward pass reads them.
    tensors = statistics.mean(2 * 4 * memory.parameters / 1e6 for memory in memories)
    return {"process with one slot": one, "per added slot": (many - one) / slots, "tensors of a slot": tensors}


def measured(args: Args) -> dict[str, Any]:
    before = os.getloadavg()[0]
    taking_part = contestants(args)
    warm_up(args, taking_part)
    rounds = [{each.name: each.play() for each in taking_part} for _ in range(args.repeats)]
    for envs in {id(each.envs): each.envs for each in taking_part}.values():
        envs.close()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(added_memory, (args.card, args.days, min(16, max(args.slots, default=1))))
    names = [each.name for each in taking_part]
    cores = len(os.sched_getaffinity(0))
    return {
        "machine": f"{platform.machine()}, {cores} cores, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "load before": before,
        "card": args.card,
        "days": args.days,
        "repeats": args.repeats,
        "rows": [row(name, [r[name] for r in rounds], [r["alone"] for r in rounds]) for name in names],
        "reset (ms)": reset_ms(args.card),
        "memory (MB)": memory,
    }


def cells(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns, and one row per contestant."""
    seen = {name for each in found["rows"] for name in each["steps per second by action"]}
    actions = [action.name for action in Action if action.name in seen]
    rows = []
    for each in found["rows"]:
        rate, ratio, of = each["steps per second"], each["times alone"], each["steps per second by action"]
        rows.append(
            [
                each["what"],
                f"{rate['median']:.1f} ({rate['lowest']:.1f} to {rate['highest']:.1f})",
                f"{each['ticks per second']['median']:.1f}",
                f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})",
                *(f"{of[name]:.3g}" if name in of else "" for name in actions),
            ]
        )
    return ["", "steps/s (range)", "ticks/s", "times alone (range)", *actions], rows


PAGE = """# Throughput

Written by `python benchmarks/throughput.py`: `{card}`; days played of each episode, where nothing else is said: {days};
{machine}; medians of {repeats} rounds; load before it began: {load before:.1f}.
The JSON beside this page has all figures.

{table}

Steps per second of all environments together: of the whole timetable, and of those steps in which some did the named
action and the others, for whom it was not allowed, waited. SLEEP is a night of several ticks.

- **Reset**: {reset:.1f} ms.
- **Memory per added slot**: {added:.1f} MB, of which {tensors:.1f} MB are tensors. A process with one slot takes
  {one:.0f} MB, and so does every further process.
"""


def page(found: dict[str, Any]) -> str:
    """The tables in Markdown."""
    columns, rows = cells(found)
    memory = found["memory (MB)"]
    return PAGE.format(
        **found,
        table="\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)),
        reset=found["reset (ms)"]["median"],
        added=memory["per added slot"],
        tensors=memory["tensors of a slot"],
        one=memory["process with one slot"],
    )


def main(args: Args) -> None:
    found = measured(args)
    columns, rows = cells(found)
    table = Table(title=f"{found['card']}: {found['machine']}, medians of {found['repeats']}")
    for column in columns:
        table.add_column(column)
    for cell in rows:
        table.add_row(*cell)
    Console(width=160).print(table, found["reset (ms)"], found["memory (MB)"])
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.page:
        args.page.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Args))
