"""How far is a planner above rules in the sim? Rules, policies and the planner on the same simulated episodes.

    python benchmarks/sim_planning.py --out docs/environments/sim.json --page docs/environments/sim.md

The planner tries actions on branches of the simulated episodes: it knows their streams, and the law of what the model
will answer, but not its outcome. All scores are simulated scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from benchmarks import sim_page, sim_players
from benchmarks.common import markdown, records
from sleepgym.evaluation import simulate
from sleepgym.schedulers import SimPlanner, scheduler_named
from sleepgym.schedulers.base import Scheduler
from sleepgym.sim.maker import setting_and_response


@dataclass
class Args:
    env: str = "SleepLLM-Notes-v0"
    """id of a card, or path of a TOML file"""
    fit: Path | None = None
    """file of the fit; by default the one that is shipped for the card"""
    rules: tuple[str, ...] = (
        "note-first:popular_at=0.2",
        "note-first",
        "popular-first:popular_at=0.3",
        "pressure-rule:sleep_at=0.9,night_relief=0.3",
        "notes-only",
    )
    """rules that play"""
    policies: tuple[str, ...] = ()
    """trained policies that play"""
    follows: str = "note-first:popular_at=0.2"
    """rule that the planner follows after each action that it tries; empty for no planner"""
    width: int = 10
    """actions that it tries"""
    futures: int = 8
    """simulated futures of each"""
    ticks: int = 24
    """length of each in ticks"""
    every: int = 4
    """interval of decisions at which it tries any"""
    streams: int = 32
    """streams, which are drawn from their seeds"""
    seed: int = 1000
    """seed of the first stream; the others follow it"""
    draws: int = 1
    """episodes per stream"""
    out: Path | None = None
    """JSON with every figure, beside those of other benchmarks of the sim"""
    page: Path | None = None
    """Markdown whose marked table is replaced"""


def measured(args: Args, console: Console) -> records.Record:
    """Plays all of them."""
    circumstances = records.circumstances()
    setting, response = setting_and_response(args.env, args.fit, {})
    players = {name: sim_players.simulated(name, setting.card) for name in (*args.rules, *args.policies)}
    if args.follows:
        rule = scheduler_named(args.follows)
        assert isinstance(rule, Scheduler), "a rule that decides by the observation alone"
        numbers = f"width={args.width},draws={args.futures},ticks={args.ticks},every={args.every}"
        players[f"planner:{numbers},rule={args.follows}"] = SimPlanner(
            rule, width=args.width, draws=args.futures, ticks=args.ticks, every=args.every
        )
    seeds, rows = range(args.seed, args.seed + args.streams), []
    for name, player in track(players.items(), "playing", console=console):
        results = simulate(setting, response, player, seeds, draws=args.draws)
        scores = np.array([each.score for each in results]).reshape(len(seeds), args.draws).mean(1)
        means = {key: [round(float(getattr(each, key)), 4) for each in results] for key in sim_page.MEANS}
        rows.append({"player": name, "scores": [round(float(score), 6) for score in scores], **means})
    about = {"card": Path(args.env).stem, "rules": list(args.rules), "seeds": list(seeds), "draws": args.draws}
    return circumstances | about | {"rows": rows}


def main(args: Args) -> None:
    console = Console(width=160)
    found = measured(args, console)
    console.print(sim_page.planner(found), markup=False)
    sim_page.keep(args.out, "planner", found)
    if args.page:
        markdown.write(args.page, {"planner": sim_page.planner(found)}, "The sim", "benchmarks/sim_planning.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
