"""Is there something to learn? The ladder of hand-written schedulers on validation streams, with a planner above it.

    python benchmarks/headroom.py --out docs/environments/headroom.json --page docs/environments/headroom.md

All episodes are played on the real model, all on the same streams. The planner knows the stream and tries actions in
the sim; it plays once more without each of the actions, which shows what the action is worth. Rungs of the ladder are
the schedulers of a kind that score best; neighbouring rungs are compared in pairs, stream by stream.

    python benchmarks/headroom.py --out docs/environments/headroom.json --replay 2

performs recorded actions again instead, and says whether the scores come out as recorded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks.common import markdown, records
from benchmarks.planner import FOLLOWED, planning
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import operator_of
from sleepgym.episode.actions import Action
from sleepgym.evaluation import (
    Column,
    Comparison,
    EpisodeResult,
    ScoreMatrix,
    Sheet,
    chunks,
    compare,
    comparison_sheet,
    episodes_sheet,
    evaluate,
    in_processes,
)
from sleepgym.leaderboard.players import player_named
from sleepgym.schedulers import SimLookAhead


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment"""
    streams: int = 50
    """validation streams"""
    forbidden_streams: int = 12
    """of these, on how many the planner plays without each action"""
    seed: int = 1000
    """seed of the first stream; the others follow it"""
    periods: tuple[float, ...] = (1.0, 1.5)
    """days between nights of the fixed periods"""
    rules: tuple[str, ...] = (
        "caretaker",
        "night-owl",
        "pressure-rule",
        "never-sleep:nap_days=1.0",
        "budget-aware",
        "rounds",
        "mender",
        "drowsiness",
    )
    """rules, with the numbers that agents/tune.py found on training streams"""
    draws: int = 16
    """simulated futures of an action that the planner tries"""
    ticks: int = 40
    """length of each in ticks"""
    follows: tuple[str, ...] = FOLLOWED
    """players by whose decisions the planner judges an action; that one of them takes over for good is tried as well"""
    fit: Path | None = None
    """file of the sim's fit; by default the one that is shipped for the card"""
    processes: int = 2
    """processes, with an equal share of the cores each"""
    out: Path | None = None
    """JSON with every episode; episodes that it holds already are not played again"""
    page: Path | None = None
    """Markdown whose marked tables are replaced"""
    replay: int = 0
    """episodes of each scheduler in --out to perform again, instead of playing any"""


PLANNER = "planner"
"""Name of the planner; without an action, the action's name follows."""

FORBIDDEN = {f"{PLANNER} without {action.name}": action for action in Action if action != Action.WAIT}
"""Planners by name, each with the action that it does without."""


class Job(NamedTuple):
    """A few episodes of a scheduler."""

    args: Args
    name: str
    seeds: tuple[int, ...]


def play(job: Job) -> tuple[str, list[EpisodeResult]]:
    args, name = job.args, job.name

    def env() -> Any:
        return gym.make(args.env_id, split="validation")

    if name != PLANNER and name not in FORBIDDEN:
        player = player_named(name, env())
        return name, evaluate(lambda: player.wrap(env()), player.scheduler, job.seeds, slots=1)
    without = (FORBIDDEN[name],) if name in FORBIDDEN else ()
    planner, response = planning(args.env_id, args.follows, args.draws, args.ticks, without, args.fit)

    def maker(real: SleepEnv, seed: int) -> SimLookAhead:
        return SimLookAhead(real, planner, response)

    return name, evaluate(env, maker, job.seeds, slots=1)


def jobs(args: Args, done: Mapping[str, Mapping[int, EpisodeResult]]) -> list[Job]:
    """What is still to be played: the rules, the planner, and the planner without each action."""
    periods = [f"fixed-period:days={days}" for days in args.periods]
    wanted = dict.fromkeys(("random", "never-sleep", *args.rules, *periods, PLANNER), args.streams)
    wanted |= dict.fromkeys(FORBIDDEN, args.forbidden_streams)
    found = []
    for name, count in wanted.items():
        missing = [seed for seed in range(args.seed, args.seed + count) if seed not in done.get(name, {})]
        found += [Job(args, name, tuple(lot)) for lot in chunks(missing, 2)]
    return found


def ladder(results: Mapping[str, Sequence[EpisodeResult]]) -> list[str]:
    """Rungs from the lowest to the highest: chance, never, the best period, the best rule, the planner."""

    def best(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: np.mean([episode.score for episode in results[name]]))[-1:]

    plain = ("random", "never-sleep", PLANNER, *FORBIDDEN)
    periods = [name for name in results if name.startswith("fixed-period")]
    rules = [name for name in results if name not in plain and name not in periods]
    rungs = ["random", "never-sleep", *best(periods), *best(rules), PLANNER]
    return [rung for rung in rungs if rung in results]


def paired(
    results: Mapping[str, Sequence[EpisodeResult]], pairs: Sequence[tuple[str, str]], seed: int
) -> dict[str, Comparison]:
    """Compares pairs of schedulers, each on the streams that both have played."""
    found = {}
    for upper, lower in pairs:
        shared = {e.seed for e in results[upper]} & {e.seed for e in results[lower]}

        def scores(name: str, seeds: set[int] = shared) -> ScoreMatrix:
            return ScoreMatrix.from_results(name, [[e for e in results[name] if e.seed in seeds]])

        of_both = compare(scores(upper), scores(lower), np.random.default_rng(seed))
        found[f"{upper} - {lower} ({len(shared)} streams)"] = of_both
    return found


def actions_sheet(results: Mapping[str, Sequence[EpisodeResult]]) -> Sheet:
    """How often each action is taken per episode."""
    columns = (Column("scheduler", "scheduler"), *(Column(a.name.lower(), a.name, ".1f") for a in Action))
    rows = []
    for name, episodes in results.items():
        taken = [operator_of(action) for episode in episodes for action in episode.actions]
        counts = np.bincount(taken, minlength=len(Action)) / len(episodes)
        rows.append((name, *counts.tolist()))
    return Sheet("Actions per episode", columns, rows)


def sheets(args: Args, results: Mapping[str, Sequence[EpisodeResult]]) -> dict[str, Sheet]:
    """All schedulers by score, neighbouring rungs in pairs, what each action is worth, and how often it is taken."""
    rng = np.random.default_rng(args.seed)
    rungs = ladder(results)
    pairs = list(zip(rungs[1:], rungs[:-1], strict=True))
    worth = [(PLANNER, name) for name in FORBIDDEN if name in results and PLANNER in results]
    title = f"{args.env_id}, {args.streams} validation streams from {args.seed} on"
    whole = {name: episodes for name, episodes in results.items() if name not in FORBIDDEN}  # others play fewer streams
    return {
        "schedulers": episodes_sheet(whole, rng, title),
        "ladder": comparison_sheet(paired(results, pairs, args.seed), "the second", "Rungs of the ladder, in pairs"),
        "worth": comparison_sheet(paired(results, worth, args.seed), "the second", "What each action is worth"),
        "actions": actions_sheet(results),
    }


def contents(args: Args, results: Mapping[str, Sequence[EpisodeResult]], machine: str) -> dict[str, str]:
    """Blocks of the page."""
    blocks = {
        name: sheet.markdown() if sheet.rows else "Not measured yet." for name, sheet in sheets(args, results).items()
    }
    return blocks | {"schedulers": f"{blocks['schedulers']}\n{machine}."}


def recorded(path: Path) -> dict[str, str]:
    """Blocks of the page, from a record."""
    record = records.read(path)
    done = read(path, record["env_id"])
    results = {name: [of[seed] for seed in sorted(of)] for name, of in done.items()}
    streams, first = max(map(len, results.values())), min(min(of) for of in done.values())
    args = replace(Args(), env_id=record["env_id"], streams=streams, seed=first)
    return contents(args, results, record["machine"])


def read(path: Path | None, env_id: str) -> dict[str, dict[int, EpisodeResult]]:
    """Episodes that were played before, by scheduler and seed."""
    if path is None or not path.exists():
        return {}
    record = records.read(path)
    if record["env_id"] != env_id:
        raise SystemExit(
            f"expected episodes of {env_id} in {path}, found those of {record['env_id']}; name another file"
        )
    episodes = {
        name: [EpisodeResult(**e | {"actions": tuple(e["actions"])}) for e in of]
        for name, of in record["episodes"].items()
    }
    return {name: {episode.seed: episode for episode in of} for name, of in episodes.items()}


def replayed(env_id: str, episode: EpisodeResult) -> float:
    """Difference of the score from what was recorded, after the recorded actions."""
    env = gym.make(env_id, split="validation")
    env.reset(seed=episode.seed)
    for action in episode.actions:
        *_, info = env.step(action)
    return abs(float(info["score"]) - episode.score)


def replay(args: Args, console: Console) -> None:
    done = read(args.out, args.env_id)
    gaps = [
        replayed(args.env_id, episode)
        for of_scheduler in done.values()
        for episode in [of_scheduler[seed] for seed in sorted(of_scheduler)][: args.replay]
    ]
    exact = sum(gap == 0 for gap in gaps)
    console.print(
        f"{len(gaps)} episodes of {len(done)} schedulers: {exact} with the recorded score, "
        f"largest difference {max(gaps, default=0.0):.1e}"
    )
    if max(gaps, default=0.0) > 1e-4:
        raise SystemExit(1)


def main(args: Args) -> None:
    console, started = Console(width=160), time.perf_counter()
    if args.replay:
        replay(args, console)
        return
    done = read(args.out, args.env_id)
    waiting = jobs(args, done)
    circumstances = records.circumstances()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))

    def save() -> dict[str, list[EpisodeResult]]:
        results = {name: [of[seed] for seed in sorted(of)] for name, of in done.items()}
        if args.out is not None:
            episodes = {name: [asdict(episode) for episode in of] for name, of in results.items()}
            records.write(args.out, circumstances | {"env_id": args.env_id, "episodes": episodes}, indent=None)
        return results

    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("episodes", total=sum(len(seeds) for *_, seeds in waiting))
        for name, played in in_processes(play, waiting, args.processes):
            done.setdefault(name, {}).update({episode.seed: episode for episode in played})
            progress.update(task, advance=len(played), description=name)
            save()
    results = save()
    for sheet in sheets(args, results).values():
        console.print(sheet.rich())
    console.print(f"{time.perf_counter() - started:.0f} s, {circumstances['machine']}")
    if args.page:
        blocks = contents(args, results, circumstances["machine"])
        markdown.write(args.page, blocks, "Headroom", "benchmarks/headroom.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
