"""Does the sim rank schedulers as the real environment does? Each is left out of the fit that predicts its scores.

    python benchmarks/sim_fidelity.py --out docs/environments/sim.json --page docs/environments/sim.md

Real episodes are recorded in a folder, those on training streams to fit to and those on validation streams to compare
with; what is there already is not played again. The sim plays the same validation streams, several times each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from benchmarks import sim_page, sim_players
from benchmarks.common import markdown, records
from benchmarks.sim_page import QUANTITIES
from sleepgym.evaluation import in_processes, simulate
from sleepgym.evaluation.recorded import RecordJob, missing, record_jobs
from sleepgym.schedulers.exploring import MIXES
from sleepgym.sim.fit import Samples, fit_samples, samples_of
from sleepgym.sim.recorder import Record
from sleepgym.sim.replay import changes_of, played_out
from sleepgym.sim.setting import Setting
from sleepgym.sim.streams import Streams

Outcomes = dict[str, list[float]]
"""Quantities at the end of an episode per stream, by name."""


@dataclass
class Args:
    env: str = "SleepLLM-v0"
    """id of a card, or path of a TOML file"""
    records: Path = Path("runs/sim-fidelity")
    """folder of the real episodes, one file each, in `train` and `validation`"""
    policies: tuple[str, ...] = (
        *MIXES,
        "always-sleep",
        "budget-aware",
        "drowsiness",
        "fixed-period:days=0.5",
        "fixed-period:days=1.5",
        "never-sleep",
        "never-sleep:nap_days=0.5",
        "night-owl",
        "night-owl:load_at=0.03,traffic_at=0.3",
        "night-owl~0.2",
        "pressure-rule",
    )
    """schedulers by name, mix:... with the weights of the six actions, and files of trained policies; ~0.2 is a share
    of random steps"""
    train_streams: int = 20
    """training streams, on which every policy plays an episode to fit to"""
    streams: int = 50
    """validation streams, on which scores are compared"""
    train_seed: int = 0
    """seed of the first training stream; the others follow it"""
    seed: int = 1000
    """seed of the first validation stream; the others follow it"""
    draws: int = 8
    """simulated episodes per validation stream"""
    processes: int = 2
    """processes that play real episodes, with an equal share of the cores each"""
    out: Path | None = None
    """JSON with every figure, beside those of other benchmarks of the sim"""
    page: Path | None = None
    """Markdown whose marked tables are replaced"""


@dataclass(frozen=True)
class Played:
    """Real episodes of a policy.

    Attributes:
        train: Samples of the episodes to fit to, by model.
        streams: Validation streams.
        real: Quantities at the end of the episodes on them.
        setting: Numbers of the card.
        model: Name and hash of the model.
    """

    train: Sequence[Mapping[str, Samples]]
    streams: Streams
    real: Outcomes
    setting: Setting
    model: tuple[str, str]


def jobs(args: Args, policy: str) -> tuple[list[RecordJob], list[RecordJob]]:
    """Episodes to fit to, and episodes to compare with."""
    train = range(args.train_seed, args.train_seed + args.train_streams)
    compared = range(args.seed, args.seed + args.streams)
    return (
        record_jobs(args.env, [policy], train, "train", args.records / "train"),
        record_jobs(args.env, [policy], compared, "validation", args.records / "validation"),
    )


def outcome(record: Record) -> dict[str, float]:
    """Quantities at the end of a real episode; the perplexity ratio is that of the sample that is measured in it."""
    episodes, _ = played_out(record)
    clock = episodes.state.clock
    found = (record.score[0], episodes.recall[0], record.ratio[-1], clock.sleeps[0], clock.naps[0], clock.edits_used[0])
    return {name: float(value) for name, value in zip(QUANTITIES, found, strict=True)}


def read(args: Args, policy: str) -> Played:
    train, compared = jobs(args, policy)
    real = [Record.load(job.path) for job in compared]
    return Played(
        train=[dict(samples_of(changes_of(Record.load(job.path)))) for job in train],
        streams=Streams.joined([record.streams for record in real]),
        real=columns([outcome(record) for record in real]),
        setting=Setting.of(real[0].about.card),
        model=(real[0].about.model, real[0].about.fingerprint),
    )


def columns(outcomes: Sequence[Mapping[str, float]]) -> Outcomes:
    """Lists by quantity, to the digits that a record needs."""
    return {name: [round(each[name], 6) for each in outcomes] for name in QUANTITIES}


def predicted(args: Args, policy: str, played: Mapping[str, Played]) -> Outcomes:
    """Simulated quantities of a policy, means over draws, by a fit to the episodes of all others."""
    others = [samples for name, each in played.items() if name != policy for samples in each.train]
    response, _ = fit_samples(others)
    own, seeds = played[policy], range(args.seed, args.seed + args.streams)
    plays = sim_players.simulated(policy, own.setting.card)
    results = simulate(own.setting, response, plays, seeds, own.streams, args.draws)
    by_stream = [results[first : first + args.draws] for first in range(0, len(results), args.draws)]
    return columns(
        [{name: float(np.mean([getattr(each, name) for each in of])) for name in QUANTITIES} for of in by_stream]
    )


def measured(args: Args, console: Console) -> records.Record:
    parts = [part for policy in args.policies for part in jobs(args, policy)]
    left = missing([job for part in parts for job in part])
    console.print(f"{sum(map(len, parts))} episodes, {sum(map(len, parts)) - len(left)} of them recorded already")
    circumstances = records.circumstances()
    for _ in track(in_processes(sim_players.play, left, args.processes), "recording", len(left), console=console):
        pass
    played = {policy: read(args, policy) for policy in track(args.policies, "reading", console=console)}
    models = {each.model for each in played.values()}
    if len(models) != 1:
        raise SystemExit(
            f"expected records of one model in {args.records}, found {sorted(models)}; name another folder"
        )
    if played[args.policies[0]].setting.card.parameters is not None:
        raise SystemExit(f"expected a card whose actions are operators alone, found {args.env} with parameters")
    rows: list[dict[str, Any]] = []
    for policy in track(args.policies, "leaving one out", console=console):
        rows.append({"policy": policy, "real": played[policy].real, "sim": predicted(args, policy, played)})
    ((model, fingerprint),) = models
    return circumstances | {
        "card": Path(args.env).stem,
        "model": model,
        "fingerprint": fingerprint,
        "train streams": args.train_streams,
        "seeds": list(range(args.seed, args.seed + args.streams)),
        "draws": args.draws,
        "rows": rows,
    }


def main(args: Args) -> None:
    console = Console(width=160)
    found = measured(args, console)
    for name, block in sim_page.fidelity(found).items():
        console.print(f"{name}\n{block}\n", markup=False)
    sim_page.keep(args.out, "fidelity", found)
    if args.page:
        markdown.write(args.page, sim_page.fidelity(found), "The sim", "benchmarks/sim_fidelity.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
