"""Makes the sim of a card: records real episodes, and fits a response model to them.

    python scripts/fit_sim.py --env SleepLLM-v0 --episodes runs/sim --out runs/sim.safetensors --processes 2

Episodes that are in the folder already are not played again, so that a run that was interrupted goes on. The sim is
then ``gym.make("SleepSim-v0", fit="runs/sim.safetensors")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sleepgym.env.observation import Observation
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.evaluation import in_processes
from sleepgym.files import card_paths
from sleepgym.schedulers import Scheduler, scheduler_named
from sleepgym.sim.fit import Tried, fit_response
from sleepgym.sim.fit_files import card_of, save_fit
from sleepgym.sim.recorder import Policy, Record, record_episode
from sleepgym.sim.registration import sim_id

MIXES = (
    "mix:1,1,1,1,1,1",
    "mix:3,4,2,1,0.2,1",
    "mix:1,4,1,0.5,1,0.2",
    "mix:4,2,4,2,0.1,2",
    "mix:6,1,1,1,0.5,0.5",
)
"""Random policies by the weights of WAIT, INJECT, REFRESH, NAP, SLEEP and PRUNE: busy, wakeful, sleepy, repairing and
lazy ones, so that every action is seen in many situations."""

RULES = (
    "always-sleep",
    "budget-aware",
    "drowsiness",
    "fixed-period",
    "never-sleep",
    "never-sleep:nap_days=0.5",
    "night-owl",
    "pressure-rule",
)


@dataclass
class Args:
    env: str = "SleepLLM-v0"
    """id of a card, or path of a TOML file"""
    episodes: Path = Path("runs/sim")
    """folder of the records, one file per episode"""
    out: Path = Path("runs/sim.safetensors")
    """file of the fit"""
    policies: tuple[str, ...] = (*MIXES, *RULES)
    """policies that play: schedulers by name, and mix:... with the weights of the six actions; a scheduler followed by
    ~0.2 takes a random action instead in that share of the steps"""
    streams: int = 20
    """number of episodes per policy"""
    seed: int = 0
    """seed of the first stream; the others follow it"""
    split: str = "train"
    """split that facts are drawn from"""
    processes: int = 1
    """number of processes, each with an equal share of the cores"""
    held_out: float = 0.25
    """share of the episodes that forms of the models are compared on"""


class Job(NamedTuple):
    """An episode to record."""

    env: str
    policy: str
    seed: int
    split: str
    path: Path


def main(args: Args) -> None:
    console = Console(width=120)
    jobs = [
        Job(args.env, policy, seed, args.split, args.episodes / f"{_file_name(policy)}-{seed:05}.safetensors")
        for policy in args.policies
        for seed in range(args.seed, args.seed + args.streams)
    ]
    missing = [job for job in jobs if not job.path.exists()]
    console.print(f"{len(jobs)} episodes, {len(jobs) - len(missing)} of them recorded already")
    for _ in track(in_processes(record, missing, args.processes), "recording", len(missing), console=console):
        pass
    records = [Record.load(job.path) for job in jobs]
    response, tried = fit_response(records, args.held_out)
    console.print(table_of(tried))
    save_fit(args.out, response, card_of(Path(args.env).stem, records, tried))
    is_registered = args.env in card_paths()
    made = repr(sim_id(args.env)) if is_registered else f"'SleepSim-v0', card={args.env!r}"
    console.print(f"written to {args.out}; gym.make({made}, fit={str(args.out)!r})")


def record(job: Job) -> Path:
    """Plays and records an episode in this process."""
    env = SleepEnv(job.env, split=job.split)  # type: ignore[arg-type]  # checked there
    record_episode(env, policy_of(job.policy, env, job.seed), job.seed, job.policy).save(job.path)
    return job.path


def policy_of(text: str, env: SleepEnv, seed: int) -> Policy:
    """Returns the policy that a text names, with random draws of its own."""
    rng = np.random.default_rng([seed, *text.encode()])
    name, _, noise = text.partition("~")
    if name.startswith("mix:"):
        return _mix([float(weight) for weight in name.removeprefix("mix:").split(",")], env, rng)
    rule, wander = scheduler_named(name), _mix([1.0] * len(Action), env, rng)
    scheduler = rule if isinstance(rule, Scheduler) else rule(env, seed)

    def act(observation: Observation, mask: NDArray[np.bool_]) -> Any:
        if noise and rng.random() < float(noise):
            return wander(observation, mask)
        return env.choices.usual(scheduler.act(observation, mask[: len(Action)]))

    return act


def _mix(weights: Sequence[float], env: SleepEnv, rng: np.random.Generator) -> Policy:
    if len(weights) != len(Action):
        raise ValueError(f"expected a weight for each of {', '.join(Action.__members__)}, found {list(weights)}")
    parameters = env.card.parameters

    def act(observation: Observation, mask: NDArray[np.bool_]) -> Any:
        allowed = np.array(weights) * mask[: len(Action)]
        allowed = allowed if allowed.any() else mask[: len(Action)].astype(float)
        operator = Action(int(rng.choice(len(Action), p=allowed / allowed.sum())))
        action = env.choices.usual(operator)
        if parameters is not None:  # drawn too
            action[1:] = rng.integers(len(parameters.facts)), rng.integers(len(parameters.sleep))
        return action

    return act


def table_of(tried: Sequence[Tried]) -> Table:
    """Returns the held-out log-likelihood of every form of every model."""
    table = Table("model", "form", "n", "held-out log-likelihood (nats)", "chosen")
    for each in tried:
        table.add_row(each.model, each.form, str(each.samples), f"{each.likelihood:.3f}", "yes" if each.chosen else "")
    return table


def _file_name(policy: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in policy)


if __name__ == "__main__":
    main(tyro.cli(Args))
