"""Several processes that play at once: on a CPU, models are played faster so than by more threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import torch
from transformers.utils import logging

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_processes(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    """What a function returns for each job, in the order of the jobs, as soon as it is there.

    Each process has an equal share of the cores for torch's threads. One process is this one, with the threads that it
    has.

    Args:
        work: A function at the top level of a module; it loads what it needs, such as the model, in its own process.
        jobs: What it is called with; functions, jobs and results are pickled on their way.
        processes: How many.

    Raises:
        ValueError: There is not one process.
        concurrent.futures.process.BrokenProcessPool: One was killed, perhaps for want of memory.
    """
    if processes < 1:
        raise ValueError(f"expected at least one process, found {processes}")
    if processes == 1:
        yield from map(work, jobs)
        return
    threads = max(1, (os.cpu_count() or 1) // processes)
    # "spawn": a fork would copy the locks of torch's threads, but not the threads.
    # An executor, not a pool: that one would wait for ever for a process that was killed, as for want of memory.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (threads,)) as pool:
        yield from pool.map(work, jobs)


def chunks(seeds: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Streams in lots, in their order: jobs small enough that all processes end at about the same time.

    Args:
        seeds: Of the streams.
        size: Streams of a lot; the last may have fewer.

    Raises:
        ValueError: There is not one stream in a lot.
    """
    if size < 1:
        raise ValueError(f"expected at least one stream in a lot, found {size}")
    return (seeds[start : start + size] for start in range(0, len(seeds), size))


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    # Bars of several processes would be drawn over each other.
    logging.disable_progress_bar()
