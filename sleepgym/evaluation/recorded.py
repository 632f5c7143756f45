"""Records of real episodes in a folder, one file each, so that recording goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import Observation
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation.processes import in_processes
from sleepgym.schedulers.base import Scheduler
from sleepgym.schedulers.exploring import Mix, explorer_named
from sleepgym.sim.recorder import Policy, record_episode


class RecordJob(NamedTuple):
    """An episode to record.

    Attributes:
        env: Id of a card, or path of a TOML file.
        policy: Text form of the policy; see :func:`~sleepgym.schedulers.exploring.explorer_named`.
        seed: Seed of the episode.
        split: Split that facts are drawn from.
        path: File of the record.
    """

    env: str
    policy: str
    seed: int
    split: str
    path: Path


def record_jobs(env: str, policies: Sequence[str], seeds: Sequence[int], split: str, folder: Path) -> list[RecordJob]:
    """Returns the episodes of all policies on the same seeds, by policy.

    Args:
        env: Id of a card, or path of a TOML file.
        policies: Text forms of the policies.
        seeds: Seeds of the episodes.
        split: Split that facts are drawn from.
        folder: Folder of the records.
    """
    return [
        RecordJob(env, policy, seed, split, folder / f"{_file_name(policy)}-{seed:05}.safetensors")
        for policy in policies
        for seed in seeds
    ]


def missing(jobs: Sequence[RecordJob]) -> list[RecordJob]:
    """Returns the episodes that are not recorded yet."""
    return [job for job in jobs if not job.path.exists()]


def recorded(jobs: Sequence[RecordJob], processes: int) -> Iterator[None]:
    """Records episodes, and yields when each is done.

    Args:
        jobs: The episodes.
        processes: Number of processes, each with an equal share of the cores.
    """
    return in_processes(record, jobs, processes)


def policy_of(text: str, env: SleepEnv, seed: int) -> Policy:
    """Returns the policy that a text names; on a card with parameters, random mixes draw those too.

    Args:
        text: Text form of the policy.
        env: Environment that it plays.
        seed: Seed of its draws.
    """
    named = explorer_named(text)
    scheduler = named if isinstance(named, Scheduler) else named(env, seed)
    parameters = env.card.parameters

    def act(observation: Observation, mask: NDArray[np.bool_]) -> Any:
        action = env.choices.usual(scheduler.act(observation, mask[: len(env.card.operators)]))
        if parameters is not None and isinstance(scheduler, Mix):
            action[1:] = (
                scheduler.rng.integers(len(parameters.facts)),
                scheduler.rng.integers(len(parameters.sleep)),
            )
        return action

    return act


def record(job: RecordJob) -> None:
    """Plays and records an episode in this process."""
    env = SleepEnv(job.env, split=job.split)  # type: ignore[arg-type]  # checked there
    record_episode(env, policy_of(job.policy, env, job.seed), job.seed, job.policy).save(job.path)


def _file_name(policy: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in policy)
