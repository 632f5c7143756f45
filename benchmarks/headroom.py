"""Is there something to learn? The ladder of hand-written schedulers on validation streams, with a planner above it.

    python benchmarks/headroom.py --out docs/environments/headroom.json --page docs/environments/headroom.md

Every scheduler plays the same streams, the planner the first few of them. Rungs of the ladder are the schedulers of a
kind that score best; neighbouring rungs are compared in pairs, stream by stream.

    python benchmarks/headroom.py --out docs/environments/headroom.json --replay 2

performs recorded actions again instead, and says whether the scores come out as recorded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import sleepgym  # noqa: F401  (registers the environments)
from benchmarks.common import markdown, records
from sleepgym.evaluation import (
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


@dataclass
class Args:
    env_id: str = "SleepLLM-v0"
    """the environment"""
    streams: int = 50
    """validation streams"""
    planner_streams: int = 16
    """of these, how many the planner plays; it takes about a hundred times as long as a rule"""
    seed: int = 1000
    """seed of the first stream; the others follow it"""
    periods: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5)
    """days between nights of the fixed periods"""
    rules: tuple[str, ...] = (
        "night-owl:load_at=0.12",
        "budget-aware:load_at=0.12,nap_days=1.0,reserve=1.1",
        "pressure-rule:nap_at=2.0,sleep_at=0.6,night_relief=0.3",
        "drowsiness:degraded_at=0.15,nap_days=0.5",
    )
    """rules, with the numbers that agents/tune.py found on training streams"""
    planner: str = "look-ahead:depth=16,width=4,every=2,rule=night-owl:load_at=0.12"
    """the upper reference; empty for none"""
    processes: int = 2
    """processes, with an equal share of the cores each"""
    out: Path | None = None
    """JSON with every episode; episodes that it holds already are not played again"""
    page: Path | None = None
    """Markdown whose marked tables are replaced"""
    replay: int = 0
    """episodes of each scheduler in --out to perform again, instead of playing any"""


Job = tuple[str, str, tuple[int, ...]]
"""Environment, scheduler and seeds of a few episodes."""


def play(job: Job) -> tuple[str, list[EpisodeResult]]:
    env_id, name, seeds = job
    player = player_named(name, gym.make(env_id, split="validation"))
    return name, evaluate(lambda: player.wrap(gym.make(env_id, split="validation")), player.scheduler, seeds, slots=2)


def jobs(args: Args, done: Mapping[str, Mapping[int, EpisodeResult]]) -> list[Job]:
    """What is still to be played, the planner first, since it takes longest."""
    periods = [f"fixed-period:days={days}" for days in args.periods]
    wanted = dict.fromkeys(("random", "never-sleep", *args.rules, *periods, "always-sleep"), args.streams)
    found = []
    planner = {args.planner: args.planner_streams} if args.planner else {}
    for name, count in (planner | wanted).items():
        missing = [seed for seed in range(args.seed, args.seed + count) if seed not in done.get(name, {})]
        found += [(args.env_id, name, tuple(lot)) for lot in chunks(missing, 2)]
    return found


def ladder(results: Mapping[str, Sequence[EpisodeResult]], planner: str) -> list[str]:
    """Rungs from the lowest to the highest: chance, never, the best period, the best rule, the planner."""

    def best(names: Sequence[str]) -> list[str]:
        return sorted(names, key=lambda name: np.mean([episode.score for episode in results[name]]))[-1:]

    plain = ("random", "never-sleep", "always-sleep", planner)
    periods = [name for name in results if name.startswith("fixed-period")]
    rules = [name for name in results if name not in plain and name not in periods]
    rungs = ["random", "never-sleep", *best(periods), *best(rules), planner]
    return [rung for rung in rungs if rung in results]


def steps(results: Mapping[str, Sequence[EpisodeResult]], rungs: Sequence[str], seed: int) -> dict[str, Comparison]:
    """Each rung against the one below it, and the last against the best period, on streams that both have played."""
    pairs = list(zip(rungs[1:], rungs[:-1], strict=True))
    if len(rungs) > 4:
        pairs.append((rungs[-1], rungs[2]))
    found = {}
    for upper, lower in pairs:
        shared = {e.seed for e in results[upper]} & {e.seed for e in results[lower]}

        def scores(name: str, seeds: set[int] = shared) -> ScoreMatrix:
            return ScoreMatrix.from_results(name, [[e for e in results[name] if e.seed in seeds]])

        of_both = compare(scores(upper), scores(lower), np.random.default_rng(seed))
        found[f"{upper} - {lower} ({len(shared)} streams)"] = of_both
    return found


def sheets(args: Args, results: Mapping[str, Sequence[EpisodeResult]]) -> tuple[Sheet, Sheet]:
    """All schedulers by score, and neighbouring rungs in pairs."""
    rng = np.random.default_rng(args.seed)
    rungs = ladder(results, args.planner)
    title = f"{args.env_id}, validation streams from {args.seed} on: {args.streams}, the planner {args.planner_streams}"
    return (
        episodes_sheet(results, rng, title),
        comparison_sheet(steps(results, rungs, args.seed), "the second", "Rungs of the ladder, in pairs"),
    )


def contents(args: Args, results: Mapping[str, Sequence[EpisodeResult]], machine: str) -> dict[str, str]:
    """Blocks of the page."""
    table, rungs = sheets(args, results)
    return {"schedulers": f"{table.markdown()}\n{machine}.", "ladder": rungs.markdown()}


def recorded(path: Path) -> dict[str, str]:
    """Blocks of the page, from a record of the ladder with the usual planner."""
    record, usual = records.read(path), Args()
    done = read(path, record["env_id"])
    results = {name: [of[seed] for seed in sorted(of)] for name, of in done.items()}
    counts = [len(of) for name, of in results.items() if name != usual.planner]
    args = replace(
        usual,
        env_id=record["env_id"],
        streams=max(counts),
        planner_streams=len(results.get(usual.planner, [])),
        seed=min(min(of) for of in done.values()),
    )
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
    for sheet in sheets(args, results):
        console.print(sheet.rich())
    console.print(f"{time.perf_counter() - started:.0f} s, {circumstances['machine']}")
    if args.page:
        blocks = contents(args, results, circumstances["machine"])
        markdown.write(args.page, blocks, "Headroom", "benchmarks/headroom.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
