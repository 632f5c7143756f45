"""Ends the process by an exception, so that whatever is under way is rolled back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


@contextmanager
def terminating_cleanly() -> Iterator[None]:
    """Turns SIGTERM into ``SystemExit(143)`` for the block, in the main thread.

    143 is 128 + 15, what a shell reports of a process that the signal ended.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        # None: a handler that was not set from Python, and cannot be put back from it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
