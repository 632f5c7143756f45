"""Wall times of calls that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Call = Callable[[], object]
Spread = dict[str, float]
"""``median``, ``lowest`` and ``highest`` of repeated timings."""
Row = dict[str, str | float]
"""A timed pair, as records hold it."""

UNITS = {"s": 1.0, "ms": 1e3}


def seconds(call: Call) -> float:
    """Wall time of a call, with what it leaves running on a GPU."""
    _synchronise()
    started = time.perf_counter()
    call()
    _synchronise()
    return time.perf_counter() - started


def in_turns(calls: Mapping[str, Call], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call in every round; in a round, each call runs once.

    Args:
        calls: Calls by name, in the order of a round.
        repeats: Rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def median_ms(call: Call, repeats: int) -> float:
    """Median milliseconds of a call after one warm-up."""
    call()
    return 1e3 * statistics.median(in_turns({"": call}, repeats)[""])


def spread(values: Sequence[float]) -> Spread:
    """Median and range."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratio(first: Sequence[float], second: Sequence[float]) -> Spread:
    """Ratio of the medians of two columns of timings, with the range of the ratios within one round."""
    within = [a / b for a, b in zip(first, second, strict=True)]
    return {
        "ratio": statistics.median(first) / statistics.median(second), "lowest": min(within), "highest": max(within),
    }  # fmt: skip


def pair(name: str, slow: Call, fast: Call, repeats: int, unit: str = "ms", warm_up: Sequence[Call] = ()) -> Row:
    """Two calls timed in turns, as a row of a record.

    Args:
        name: What is compared.
        slow: Numerator of the ratio.
        fast: Denominator.
        repeats: Timings of each.
        unit: ``s`` or ``ms``.
        warm_up: Calls made once before the first timing.
    """
    for call in warm_up:
        call()
    times = in_turns({"slow": slow, "fast": fast}, repeats)
    medians = {f"{side} ({unit})": UNITS[unit] * statistics.median(of) for side, of in times.items()}
    return {"what": name, **medians, **ratio(times["slow"], times["fast"])}


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
