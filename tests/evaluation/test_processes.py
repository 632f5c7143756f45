"""Several processes return what one would, in its order."""

from __future__ import annotations

import os
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest
import torch

from sleepgym.env.shared import settle_threads
from sleepgym.evaluation import chunks, in_processes


def threads(job: int) -> tuple[int, int, int]:
    """The job, who did it, and with how many threads once there is an environment."""
    if job < 0:
        raise ValueError(f"found {job}")
    settle_threads(os.getpid())
    return job, os.getpid(), torch.get_num_threads()


def die(job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_the_order_of_the_jobs_from_processes_that_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    found = list(in_processes(threads, [3, 1, 2], 2))
    assert [job for job, *_ in found] == [3, 1, 2]
    assert all(who != os.getpid() for _, who, _ in found)
    assert {count for *_, count in found} == {3}


def test_one_process_is_this_one_with_the_threads_that_it_has() -> None:
    assert list(in_processes(threads, [2, 1], 1)) == [(job, os.getpid(), torch.get_num_threads()) for job in (2, 1)]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_job_raises_is_raised(processes: int) -> None:
    with pytest.raises(ValueError, match="found -1"):
        list(in_processes(threads, [1, -1], processes))


def test_a_process_that_is_killed_is_not_waited_for() -> None:
    with pytest.raises(BrokenProcessPool):
        list(in_processes(die, [1, 2], 2))


def test_no_process_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one process, found 0"):
        list(in_processes(threads, [1], 0))


def test_lots_keep_the_order_and_the_last_is_what_is_left() -> None:
    assert list(chunks(range(3, 8), 2)) == [range(3, 5), range(5, 7), range(7, 8)]
    assert list(chunks((), 2)) == []
    with pytest.raises(ValueError, match="expected at least one stream in a lot, found 0"):
        chunks(range(3), 0)
