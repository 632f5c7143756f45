"""Environments in processes of their own: each has one model and one thread, unless somebody chose another number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sleepgym.env import shared

SCRIPT = """
import json
import sys

import gymnasium as gym
import sleepgym
import torch


class Threads(gym.Wrapper):
    @property
    def threads(self):
        return torch.get_num_threads()


if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.ones(512, 512) @ torch.ones(512, 512)  # starts the threads that a fork does not copy
    envs = gym.make_vec(
        "SleepLLM-Mini-v0", num_envs=2, vectorization_mode="async", wrappers=[Threads],
        vector_kwargs={"context": sys.argv[1]}, edit={"steps": 2}, episode={"perplexity_rows": 2},
    )
    envs.reset(seed=[0, 0])
    *_, infos = envs.step([1, 1])
    threads = [torch.get_num_threads(), *envs.get_attr("threads")]
    print(json.dumps([threads, infos["edits_used"].tolist(), infos["recall"].tolist()]))
    envs.close()
"""


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_a_vector_take_one_thread_each_whatever_their_parent_has(context: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    usual = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "script.py", context],
        cwd=tmp_path, env={**usual, "PYTHONPATH": root}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    threads, edits, recall = json.loads(done.stdout)
    assert threads == [2, 1, 1]
    assert edits[0] == edits[1] > 0 and recall[0] == recall[1]


@pytest.mark.parametrize(
    ("worker", "variable", "expected"),
    [(True, None, [1]), (True, "3", []), (False, None, [])],
    ids=["worker", "worker with OMP_NUM_THREADS", "not a worker"],
)
def test_only_a_worker_without_a_chosen_number_is_given_one_thread(
    worker: bool, variable: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.multiprocessing, "parent_process", lambda: object() if worker else None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    shared.settle_threads.cache_clear()
    for _ in range(2):
        shared.settle_threads(process=1)
    assert given == expected, "once: a number that is set later stays"
    shared.settle_threads.cache_clear()
