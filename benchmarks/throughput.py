"""Steps per second of an environment alone, in processes, and as slots on one model; memory and time of a reset.

    python benchmarks/throughput.py --out docs/environments/throughput.json --page docs/environments/throughput.md

All play the same episodes by the same timetable, and take turns: ratios are those of one round, so that a busy machine
slows all alike. Targets are cached before the first round. An earlier commit takes part as well, in processes of its
own (benchmarks/throughput_before.py).
"""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import SyncVectorEnv, VectorEnv
from rich.console import Console
from rich.table import Table

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks import throughput_before, throughput_page
from benchmarks.common import markdown, records, timing
from benchmarks.common.records import Record
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card

DAY = tuple(Action[name] for name in "PRUNE INJECT WAIT INJECT WAIT NAP REFRESH INJECT WAIT INJECT NAP REFRESH INJECT "
            "SLEEP".split())  # fmt: skip
"""The mixed policy: 13 ticks awake and a night, about a day of SleepLLM-v0. What the mask forbids is a WAIT."""


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
    """whole episodes of a round that one environment plays by itself, and each side of the comparison"""
    repeats: int = 3
    """rounds; one takes about five minutes on two cores, and half of that without the 64 slots"""
    before: str = "before-engine"
    """commit to compare with, as git understands it; empty for none"""
    before_card: str = "benchmarks/first_card.toml"
    """card with the numbers that the environment had in that commit, which the present version plays beside it; empty
    if they are what they were"""
    before_repeats: int = 5
    """rounds of that comparison; one takes about a minute"""
    gemma_repeats: int = 0
    """rounds on SleepLLM-Gemma-v0, which needs the extra `gemma`; one takes several minutes"""
    out: Path | None = None
    """JSON with every figure"""
    page: Path | None = None
    """Markdown whose marked tables are replaced"""


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
        found, n = Timing(), self.envs.num_envs
        for first in range(0, max(n, self.episodes - self.episodes % n), n):
            _, info = self.envs.reset(seed=first)
            for due in self.days * DAY:
                actions = np.where(info["action_mask"][:, due], due, Action.WAIT)
                before = info["tick"].sum()
                started = time.perf_counter()
                _, _, terminated, truncated, info = self.envs.step(actions)
                seconds = time.perf_counter() - started
                found.total.add(n, seconds)
                found.ticks += int(info["tick"].sum() - before)
                # Those that wait meanwhile take next to nothing.
                done = due if actions.any() else Action.WAIT
                found.by_action[done.name].add(int((actions == done).sum()), seconds)
                if (terminated | truncated).all():
                    break  # the next episode is none of these days
        return found


def contestants(args: Args) -> list[Contestant]:
    # A SyncVectorEnv of one is the plain environment, stepped as the others are.
    alone = SyncVectorEnv([lambda: gym.make(args.card)])
    days, episodes, whole = args.days, args.episodes, load_card(args.card).episode.days
    found = [
        Contestant("alone", alone, days, episodes),
        Contestant(f"alone, whole episodes of {whole} days", alone, whole, args.whole),
    ]
    if args.processes:
        processes = gym.make_vec(args.card, num_envs=args.processes, vectorization_mode="async")
        found.append(Contestant(f"{args.processes} processes, async", processes, days, episodes))
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
    rates = [each.total.rate for each in timings]
    ratios = [rate / other.total.rate for rate, other in zip(rates, against, strict=True)]
    by_action = {
        action.name: statistics.median(each.by_action[action.name].rate for each in timings) for action in Action
    }
    return {
        "what": name,
        "steps per second": timing.spread(rates),
        "ticks per second": timing.spread([each.ticks / each.total.seconds for each in timings]),
        "times alone": timing.spread(ratios),
        "steps per second by action": {name: rate for name, rate in by_action.items() if rate == rate},
        "rounds": [asdict(each) for each in timings],
    }


def reset_ms(card: str, times: int = 20) -> dict[str, float]:
    env, spans = gym.make(card), []
    for seed in range(times):
        spans.append(1000 * timing.seconds(partial(env.reset, seed=seed)))
    return timing.spread(spans)


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


def compared(args: Args) -> Record:
    """What is measured beside an earlier commit, by the keys of the record."""
    if not args.before:
        return {}
    timetable = [action.name for action in load_card(args.before_card or args.card).episode.days * DAY]
    found: Record = {
        "before": throughput_before.compared(
            args.before,
            args.card,
            timetable,
            args.whole,
            args.before_repeats,
            max(1, args.processes),
            instead=args.before_card,
        )
    }
    if args.gemma_repeats:
        found["gemma"] = throughput_before.compared_on_gemma(args.before, args.gemma_repeats)
    return found


def measured(args: Args) -> Record:
    record = records.circumstances()
    beside = compared(args)
    taking_part = contestants(args)
    warm_up(args, taking_part)
    rounds = [{each.name: each.play() for each in taking_part} for _ in range(args.repeats)]
    for envs in {id(each.envs): each.envs for each in taking_part}.values():
        envs.close()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        memory = pool.apply(added_memory, (args.card, args.days, min(16, max(args.slots, default=1))))
    names = [each.name for each in taking_part]
    return record | {
        "card": args.card,
        "days": args.days,
        "repeats": args.repeats,
        "rows": [row(name, [r[name] for r in rounds], [r["alone"] for r in rounds]) for name in names],
        "reset (ms)": reset_ms(args.card),
        "memory (MB)": memory,
        **beside,
    }


def main(args: Args) -> None:
    found = measured(args)
    console = Console(width=160)
    title = f"{found['card']}: {found['machine']}, medians of {found['repeats']}"
    tables = {title: throughput_page.rates(found), "goals": throughput_page.goals(found)}
    for name, (columns, rows) in (tables | throughput_page.before(found)).items():
        table = Table(*columns, title=name)
        for cell in rows:
            table.add_row(*cell)
        console.print(table)
    console.print(found["reset (ms)"], found["memory (MB)"])
    if args.out:
        records.write(args.out, found)
    if args.page:
        markdown.write(args.page, throughput_page.contents(found), "Throughput", "benchmarks/throughput.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
