"""Makes the sim of a card: records real episodes, and fits a response model to them.

    python scripts/fit_sim.py --env SleepLLM-v0 --episodes runs/sim --out runs/sim.safetensors --processes 2

Episodes that are in the folder already are not played again, so that a run that was interrupted goes on. The sim is
then ``gym.make("SleepSim-v0", fit="runs/sim.safetensors")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sleepgym.episode.card import load_card
from sleepgym.evaluation.recorded import missing, record_jobs, recorded
from sleepgym.facts.world import Split
from sleepgym.files import card_paths
from sleepgym.sim.fit import Tried, fit_response
from sleepgym.sim.fit_files import card_of, save_fit
from sleepgym.sim.recorder import Record
from sleepgym.sim.registration import sim_id

POLICIES = (
    "mix:3,4,2,1,0.2,1",
    "mix:1,4,1,0.5,0.7,0.7",
    "mix:4,2,4,2,0.1,2",
    "caretaker",
    "caretaker~0.15",
    "caretaker:sleep_load=1.0,anyway_load=2.0,nap_days=0.4,nap_load=0.2,nap_reserve=0.4",
    "caretaker:sleep_load=1.0,anyway_load=2.0,nap_days=0.4,nap_load=0.2,nap_reserve=0.4~0.15",
    "never-sleep",
    "night-owl:load_at=0.3",
    "night-owl:load_at=0.15,traffic_at=0.3",
    "budget-aware:load_at=0.2,nap_days=0.5,reserve=0.8",
    "fixed-period:days=0.8",
    "drowsiness",
)
"""Policies that are recorded: some at random by the weights of the actions, rules, and rules with a share of random
steps, so that every action is seen in many situations."""

NOTE_POLICIES = (
    "note-first:popular_at=0.2",
    "note-first~0.15",
    "popular-first:popular_at=0.3~0.15",
    "pressure-rule:sleep_at=0.9,night_relief=0.3~0.15",
    "night-owl:load_at=0.15,traffic_at=0.3",
    "mix:3,4,2,1,0.2,1",
    "notes-only~0.3",
)
"""Those of a card with notes, whose further operators rules with random steps take."""


@dataclass
class Args:
    env: str = "SleepLLM-v0"
    """id of a card, or path of a TOML file"""
    episodes: Path = Path("runs/sim")
    """folder of the records, one file per episode"""
    out: Path = Path("runs/sim.safetensors")
    """file of the fit"""
    policies: tuple[str, ...] = ()
    """policies that play: schedulers by name, and mix:... with the weights of the six actions; a scheduler followed by
    ~0.2 takes a random action instead in that share of the steps; none for those that suit the card"""
    streams: int = 20
    """number of episodes per policy"""
    seed: int = 0
    """seed of the first stream; the others follow it"""
    split: Split = "train"
    """split that facts are drawn from"""
    processes: int = 1
    """number of processes, each with an equal share of the cores"""
    held_out: float = 0.25
    """share of the episodes that forms of the models are compared on"""


def main(args: Args) -> None:
    console = Console(width=120)
    seeds = range(args.seed, args.seed + args.streams)
    jobs = record_jobs(args.env, policies_of(args.env, args.policies), seeds, args.split, args.episodes)
    left = missing(jobs)
    console.print(f"{len(jobs)} episodes, {len(jobs) - len(left)} of them recorded already")
    for _ in track(recorded(left, args.processes), "recording", len(left), console=console):
        pass
    records = [Record.load(job.path) for job in jobs]
    response, tried = fit_response(records, args.held_out)
    console.print(table_of(tried))
    save_fit(args.out, response, card_of(Path(args.env).stem, records, tried))
    is_registered = args.env in card_paths()
    made = repr(sim_id(args.env)) if is_registered else f"'SleepSim-v0', card={args.env!r}"
    console.print(f"written to {args.out}; gym.make({made}, fit={str(args.out)!r})")


def policies_of(env: str, named: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the policies that are recorded: those that were named, or those that suit a card.

    Args:
        env: Id of the card, or path of a TOML file.
        named: Policies by name.
    """
    if named:
        return named
    return POLICIES if load_card(env).notes is None else NOTE_POLICIES


def table_of(tried: Sequence[Tried]) -> Table:
    """Returns the held-out log-likelihood of every form of every model."""
    table = Table("model", "form", "n", "held-out log-likelihood (nats)", "chosen")
    for each in tried:
        table.add_row(each.model, each.form, str(each.samples), f"{each.likelihood:.3f}", "yes" if each.chosen else "")
    return table


if __name__ == "__main__":
    main(tyro.cli(Args))
