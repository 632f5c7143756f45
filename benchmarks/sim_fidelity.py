r"""Does the sim rank schedulers as the real environment does? Each is left out of the fit that predicts its scores.

    python benchmarks/sim_fidelity.py --out docs/environments/sim.json --page docs/environments/sim.md
    python benchmarks/sim_fidelity.py --env SleepLLM-Notes-v0 --part notes --real docs/environments/notes.json \
        --records runs/sim-notes --train-streams 4 --out docs/environments/sim.json --page docs/environments/sim.md

Real episodes on training streams are recorded in a folder, to fit to; what is there already is not played again. Real
episodes on validation streams, to compare with, are those of benchmarks/headroom.py, or of benchmarks/notes.py. The sim
plays the same validation streams, several times each.
"""

from __future__ import annotations

import re
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
from scripts import fit_sim
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation import simulate
from sleepgym.evaluation.recorded import RecordJob, missing, record_jobs, recorded
from sleepgym.sim.fit import Samples, fit_samples, read_in, samples_of
from sleepgym.sim.fitted import Read
from sleepgym.sim.recorder import Record
from sleepgym.sim.replay import changes_of
from sleepgym.sim.setting import Setting
from sleepgym.sim.streams import Streams, streams_of

Outcomes = dict[str, list[float]]
"""Quantities at the end of an episode per stream, by name."""


@dataclass
class Args:
    env: str = "SleepLLM-v0"
    """id of a card, or path of a TOML file"""
    records: Path = Path("runs/sim-fidelity")
    """folder of the real episodes, one file each"""
    policies: tuple[str, ...] = ()
    """policies that are recorded and fitted to; none for those that suit the card, see scripts/fit_sim.py"""
    real: Path = Path("docs/environments/headroom.json")
    """episodes of schedulers on validation streams, as benchmarks/headroom.py and benchmarks/notes.py keep them; those
    of planners and of trained policies are left out"""
    train_streams: int = 20
    """training streams, on which every policy plays an episode to fit to"""
    train_seed: int = 0
    """seed of the first training stream; the others follow it"""
    draws: int = 8
    """simulated episodes per validation stream"""
    processes: int = 2
    """processes that play real episodes, with an equal share of the cores each"""
    part: str = "fidelity"
    """part of the record and of the page: fidelity, or notes for a card with notes"""
    out: Path | None = None
    """JSON with every figure, beside those of other benchmarks of the sim"""
    page: Path | None = None
    """Markdown whose marked tables are replaced"""


@dataclass(frozen=True)
class Fitted:
    """What real episodes on training streams were recorded of.

    Attributes:
        samples: Samples of the episodes, by policy and model.
        read: What was read in their notes; None on a card without notes.
        model: Name and hash of the model.
    """

    samples: Mapping[str, Sequence[Mapping[str, Samples]]]
    read: Read | None
    model: tuple[str, str]


def jobs(args: Args) -> list[RecordJob]:
    """Episodes to fit to."""
    seeds = range(args.train_seed, args.train_seed + args.train_streams)
    policies = fit_sim.policies_of(args.env, args.policies)
    return record_jobs(args.env, policies, seeds, "train", args.records)


def fitted_to(args: Args, console: Console) -> Fitted:
    """Reads what was recorded."""
    samples: dict[str, list[Mapping[str, Samples]]] = {}
    played, models = [], set()
    for job in track(jobs(args), "reading", console=console):
        played.append(record := Record.load(job.path))
        models.add((record.about.model, record.about.fingerprint))
        samples.setdefault(job.policy, []).append(dict(samples_of(changes_of(record))))
    if len(models) != 1:
        raise SystemExit(
            f"expected records of one model in {args.records}, found {sorted(models)}; name another folder"
        )
    return Fitted(samples, read_in(played), models.pop())


def outcome(episode: Mapping[str, Any]) -> dict[str, float]:
    """Quantities at the end of a real episode, of those that are kept."""
    if "drift" in episode:  # as benchmarks/notes.py calls them
        names = {"sleeps": "nights", "edits_used": "edits", "tokens_read": "tokens"}
        also = {name: episode[other] for name, other in names.items()}
        episode = {**episode, **also, "ppl_ratio": 1 + episode["drift"]}
    return {name: float(episode[name]) for name in QUANTITIES if name in episode}


def streams_played(args: Args, seeds: Sequence[int]) -> tuple[Setting, Streams]:
    """Validation streams, which resets draw without playing them."""
    env = SleepEnv(args.env, split="validation")
    drawn, read = [], []
    for seed in seeds:
        env.reset(seed=seed)
        drawn.append(env.episode.stream)
        if env.card.notes is not None:
            read.append(env.episode.readings)
    return Setting.of(env.card), streams_of(env.card, drawn, read)


def kind(policy: str) -> str:
    """Scheduler of a policy, without its numbers and its share of random steps."""
    return re.split("[:~]", {"random": "mix"}.get(policy, policy))[0]


def is_rule(player: str) -> bool:
    """Whether a name in a record of real episodes is that of a rule: no planner, and no policy in a file."""
    return not player.startswith(("planner", "look-ahead")) and not sim_players.is_trained(player)


def columns(outcomes: Sequence[Mapping[str, float]]) -> Outcomes:
    """Lists by quantity, to the digits that a record needs."""
    return {name: [round(each[name], 6) for each in outcomes] for name in outcomes[0]}


def predicted(
    args: Args, policy: str, fitted: Fitted, setting: Setting, streams: Streams, seeds: Sequence[int]
) -> Outcomes:
    """Simulated quantities of a scheduler, means over draws, by a fit to the episodes of all others."""
    others = [samples for name, of in fitted.samples.items() if kind(name) != kind(policy) for samples in of]
    response, _ = fit_samples(others, read=fitted.read)
    plays = sim_players.simulated(policy, setting.card)
    results = simulate(setting, response, plays, seeds, streams, args.draws)
    by_stream = [results[first : first + args.draws] for first in range(0, len(results), args.draws)]
    return columns(
        [{name: float(np.mean([getattr(each, name) for each in of])) for name in QUANTITIES} for of in by_stream]
    )


def measured(args: Args, console: Console) -> records.Record:
    left = missing(jobs(args))
    console.print(f"{len(jobs(args))} episodes to fit to, {len(jobs(args)) - len(left)} of them recorded already")
    circumstances = records.circumstances()
    for _ in track(recorded(left, args.processes), "recording", len(left), console=console):
        pass
    played = {name: of for name, of in records.read(args.real)["episodes"].items() if is_rule(name)}
    seeds = sorted(set.intersection(*({episode["seed"] for episode in of} for of in played.values())))
    setting, streams = streams_played(args, seeds)
    if setting.card.parameters is not None:
        raise SystemExit(f"expected a card whose actions are operators alone, found {args.env} with parameters")
    fitted = fitted_to(args, console)
    rows: list[dict[str, Any]] = []
    for policy, of in track(played.items(), "leaving one out", console=console):
        by_seed = {episode["seed"]: episode for episode in of}
        real = columns([outcome(by_seed[seed]) for seed in seeds])
        sim = predicted(args, policy, fitted, setting, streams, seeds)
        rows.append({"policy": policy, "real": real, "sim": {name: sim[name] for name in real}})
    model, fingerprint = fitted.model
    return circumstances | {
        "card": Path(args.env).stem,
        "model": model,
        "fingerprint": fingerprint,
        "train streams": args.train_streams,
        "policies": list(fit_sim.policies_of(args.env, args.policies)),
        "seeds": list(seeds),
        "draws": args.draws,
        "rows": rows,
    }


def main(args: Args) -> None:
    console = Console(width=160)
    found = measured(args, console)
    blocks = sim_page.fidelity(found, args.part)
    for name, block in blocks.items():
        console.print(f"{name}\n{block}\n", markup=False)
    sim_page.keep(args.out, args.part, found)
    if args.page:
        markdown.write(args.page, blocks, "The sim", "benchmarks/sim_fidelity.py")


if __name__ == "__main__":
    main(tyro.cli(Args))
