"""Parallel evaluation in several processes, which on a CPU is faster than more threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from transformers.utils import logging

Job = TypeVar("Job")
Result = TypeVar("Result")

PRELOADED = (__name__, "sleepgym.env.sleep_env")
"""Modules that a server of processes loads once for all of them: this one, and one that brings a model's libraries."""


def in_processes(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    """Yields the result of a function for each job, in the order of the jobs, as they become available.

    Each process gets an equal share of the cores for torch's threads. With one process, jobs run in the current one,
    with its threads.

    Args:
        work: Function at the top level of a module; it loads what it needs, such as the model, in its own process.
        jobs: Arguments of the function; functions, jobs and results must be picklable.
        processes: Number of processes.

    Raises:
        ValueError: ``processes`` is below 1.
        concurrent.futures.process.BrokenProcessPool: A process was killed, for instance for lack of memory.
    """
    if processes < 1:
        raise ValueError(f"expected at least one process, found {processes}")
    if processes == 1:
        yield from map(work, jobs)
        return
    threads = max(1, (os.cpu_count() or 1) // processes)
    # A fork of this process would copy the locks of torch's threads, but not the threads. The server has none; it loads
    # torch and transformers, which takes seconds, once for all processes of this and of later calls.
    # Where there is none (Windows), each process loads them.
    method = next(each for each in ("forkserver", "spawn") if each in multiprocessing.get_all_start_methods())
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([*PRELOADED])
    # The server keeps the environment of its start, and processes shall have today's.
    begin = partial(_begin, threads, dict(os.environ))
    # An executor, since multiprocessing.Pool would wait forever for a process that was killed.
    with ProcessPoolExecutor(processes, context, begin) as pool:
        yield from pool.map(work, jobs)


def chunks(seeds: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Divides streams into consecutive lots, so that processes with small jobs end at about the same time.

    Args:
        seeds: Seeds of the streams.
        size: Number of streams per lot; the last lot may have fewer.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"expected at least one stream in a lot, found {size}")
    return (seeds[start : start + size] for start in range(0, len(seeds), size))


def _begin(threads: int, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # The variable too: without it, environments in a worker take one thread.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    # Progress bars of several processes would overwrite each other.
    logging.disable_progress_bar()
