"""Plays episodes and says how long everything took; started by benchmarks/before.py, for any version of the package.

Commands are lines of JSON on standard input, and each is answered by a line on standard output. It imports nothing of
the other benchmarks, which belong to one version, and uses what all versions have in common.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

import sleepgym

ACTIONS = ("WAIT", "INJECT", "REFRESH", "NAP", "SLEEP", "PRUNE")
"""Names of the actions by their numbers, which are those of the environment's ids."""


def played(env: gym.Env[Any, Any], seeds: Sequence[int], timetable: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of every reset, and of every step by what was done in it."""
    resets: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in ACTIONS}
    for seed in seeds:
        started = time.perf_counter()
        env.reset(seed=seed)
        resets.append(1000 * (time.perf_counter() - started))
        for due in map(ACTIONS.index, timetable):
            action = due if env.unwrapped.action_masks()[due] else 0  # type: ignore[attr-defined]
            started = time.perf_counter()
            _, _, terminated, truncated, _ = env.step(action)
            steps[ACTIONS[action]].append(1000 * (time.perf_counter() - started))
            if terminated or truncated:
                break
    return {"reset": resets, "steps": steps}


def main() -> None:
    # What libraries print goes to the errors, so that answers are all that is read.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    env: gym.Env[Any, Any] | None = None
    for line in sys.stdin:
        command = json.loads(line)
        if "make" in command:
            env = gym.make(command["make"], **command["arguments"])
            package = Path(sleepgym.__file__).resolve().parent
            answer: dict[str, Any] = {"package": str(package), "version": sleepgym.__version__}
        else:
            assert env is not None
            answer = played(env, command["play"], command["timetable"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
