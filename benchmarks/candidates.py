"""What would other numbers of the card do? Simulated scores of rules and a planner on cards that differ in a few keys.

    python benchmarks/candidates.py --out docs/environments/candidates.json --page docs/environments/candidates.md

Every card is played in the sim of the default one, whose fit knows what the model answers at a given load and company.
What a card promises here is to be confirmed on the real model. The planner knows the stream, follows rules, and plays
once more without NAP and without REFRESH.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from benchmarks.common import markdown, records
from sleepgym.episode.actions import Action
from sleepgym.evaluation import ScoreMatrix, compare, in_processes, simulate
from sleepgym.evaluation.simulated import sim_scores
from sleepgym.schedulers import FixedPeriod, NeverSleep, SimPlanner, scheduler_named
from sleepgym.sim.maker import setting_and_response

ENV = "SleepLLM-v0"

CANDIDATES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "the card": {},
    "nights of 5 ticks": {"ticks": {"sleep": 5}},
    "ledger of 40": {"budget": {"capacity": 40}},
    "ledger of 32": {"budget": {"capacity": 32}},
    "ledger of 28": {"budget": {"capacity": 28}},
    "ledger of 28, nights of 5 ticks": {"budget": {"capacity": 28}, "ticks": {"sleep": 5}},
    "ledger of 28, nights of 3 ticks and 8 lessons": {
        "budget": {"capacity": 28},
        "ticks": {"sleep": 3},
        "sleep": {"facts": 8, "lessons": 8},
    },
    "ledger of 28, naps while others are served": {"budget": {"capacity": 28}, "ticks": {"offline": ["sleep"]}},
    "1.2 to 1.6 facts a tick": {"stream": {"arrival_rate": [1.2, 1.6], "max_new_facts": 170}},
    "1.2 to 1.6 facts a tick, nights of 5 ticks": {
        "stream": {"arrival_rate": [1.2, 1.6], "max_new_facts": 170},
        "ticks": {"sleep": 5},
    },
}
"""Sections of the card with the keys that are replaced, by what they change in words."""

RULES: Mapping[str, str] = {
    name: name for name in ("pressure-rule", "caretaker", "rounds", "night-owl", "budget-aware", "mender")
} | {
    "pressure-rule with naps": "pressure-rule:nap_at=0.1,nap_days=0.0625,sleep_at=0.9,night_relief=0.3",
    "rounds with naps": "rounds:nap_days=0.0625,nap_traffic=1.0,reserve=0.0,traffic_at=0.3,load_at=0.55",
}
"""Rules by what the page calls them: with their usual numbers, and two that audit whenever nothing else is to do."""
FOLLOWED = ("pressure-rule", "pressure-rule with naps", "rounds with naps", "caretaker")
"""Rules by whose decisions the planner judges an action."""
WITHOUT = (Action.NAP, Action.REFRESH)


@dataclass
class Args:
    streams: int = 200
    """simulated streams of each rule"""
    planner_streams: int = 12
    """simulated streams of the planner; 0 to leave it out"""
    draws: int = 6
    """simulated futures of an action that the planner tries"""
    ticks: int = 40
    """length of each in ticks"""
    seed: int = 5000
    """seed of the first stream; the others follow it"""
    processes: int = 2
    """processes, with an equal share of the cores each"""
    out: Path | None = None
    """JSON with every score"""
    page: Path | None = None
    """Markdown whose marked table is replaced"""


class Job(NamedTuple):
    """A candidate to be played."""

    args: Args
    name: str


def scores(job: Job) -> dict[str, list[float]]:
    """Simulated scores of all schedulers on one candidate, by name."""
    args = job.args
    setting, response = setting_and_response(ENV, None, CANDIDATES[job.name])
    seeds = range(args.seed, args.seed + args.streams)
    players: dict[str, Any] = {"never-sleep": NeverSleep(), "naps": NeverSleep(nap_days=0.5)}
    players |= {f"every {days} days": FixedPeriod(days=days) for days in (0.75, 1.0, 1.5, 2.0)}
    players |= {name: scheduler_named(text) for name, text in RULES.items()}

    def played(name: str, player: Any, on: Sequence[int]) -> list[float]:
        return [round(x, 5) for x in sim_scores(name, simulate(setting, response, player, on)).scores[0].tolist()]

    found = {name: played(name, player, seeds) for name, player in players.items()}
    followed = [scheduler_named(RULES[name]) for name in FOLLOWED]
    lots = {"planner": (), **{f"planner without {action.name}": (action,) for action in WITHOUT}}
    for name, without in lots.items() if args.planner_streams else ():
        planner = SimPlanner(followed[0], followed[1:], draws=args.draws, ticks=args.ticks, without=without)
        found[name] = played(name, planner, seeds[: args.planner_streams])
    return found


def contents(record: records.Record) -> dict[str, str]:
    """Blocks of the page, from a record."""
    rows = [_row(name, found, record["seed"]) for name, found in record["candidates"].items()]
    head = ["", "never", "naps alone", "best timetable", "best rule", "planner - best rule", "NAP is worth"]
    return {"candidates": markdown.table([*head, "REFRESH is worth"], rows)}


def _row(name: str, found: Mapping[str, Sequence[float]], seed: int) -> list[str]:
    """Cells of a candidate: mean simulated scores, and paired differences with their intervals."""

    def best(names: Iterable[str]) -> str:
        return max(names, key=lambda each: float(np.mean(found[each])))

    def matrix(of: str, count: int) -> ScoreMatrix:
        return ScoreMatrix(of, tuple(range(seed, seed + count)), np.array([found[of][:count]]))

    def gain(upper: str, lower: str) -> str:
        count = min(len(found[upper]), len(found[lower]))
        return f"{compare(matrix(upper, count), matrix(lower, count), np.random.default_rng(seed)).difference:+.3f}"

    timetable, rule = best([each for each in found if each.startswith("every")]), best(RULES)
    cells = [name, f"{np.mean(found['never-sleep']):.3f}", f"{np.mean(found['naps']):.3f}"]
    cells += [f"{np.mean(found[timetable]):.3f}", f"{np.mean(found[rule]):.3f} ({rule})"]
    if "planner" in found:
        worth = [gain("planner", f"planner without {action.name}") for action in WITHOUT]
        return [*cells, gain("planner", rule), *worth]
    return [*cells, "", "", ""]


def main(args: Args) -> None:
    found = {}
    jobs = [Job(args, name) for name in CANDIDATES]
    for job, one in zip(jobs, track(in_processes(scores, jobs, args.processes), total=len(jobs)), strict=True):
        found[job.name] = one
    record = records.circumstances() | {"env_id": ENV, "seed": args.seed, "candidates": found}
    if args.out:
        records.write(args.out, record, indent=None)
    if args.page:
        markdown.write(args.page, contents(record), "Other cards", "benchmarks/candidates.py")
    Console(width=200).print(contents(record)["candidates"])


if __name__ == "__main__":
    main(tyro.cli(Args))
