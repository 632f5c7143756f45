"""One process at a time: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sleepgym.notes.errors import NotesError

_PAUSE_SECONDS = 0.005


@contextmanager
def locked(path: Path, wait_seconds: float) -> Iterator[None]:
    """Holds a lock for the block, against other processes and other threads.

    Args:
        path: File of the lock, made if needed and left there: to delete it would let two others hold one each.
        wait_seconds: How long to wait for whoever holds it.

    Raises:
        NotesError: It is still held then, or a link is in its place.
        OSError: The file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise NotesError(f"expected a file at {path}, found a link; take it away") from error
    try:
        deadline = time.monotonic() + wait_seconds
        # flock and not lockf: the latter is not held against other threads, and any close of the file gives it up.
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise NotesError(
                    f"expected {path} to be free within {wait_seconds:g} s, found another process writing; "
                    "try again when it is done"
                )
            time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
