"""Files of others, read with care: no links, no pipes, nothing larger than expected."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal

from sleepgym.notes.errors import NotesError

MAX_FILE_BYTES = 16 * 2**20
"""Size of the largest file of notes."""
MAX_IMPORT_BYTES = 64 * 2**20
"""Size of the largest file that is imported."""


def read_bytes(path: Path, limit: int, follow: bool = False) -> bytes | None:
    """A regular file's content; None if there is no such file.

    Args:
        path: Where.
        limit: Bytes that it may have; its size is asked for before anything is read.
        follow: Whether it may be a link.

    Raises:
        NotesError: It is a link, no regular file, or too large.
        OSError: It cannot be read.
    """
    try:
        # Not blocking: to open a pipe would wait for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotesError(f"expected a file at {path}, found a link; put the file itself there") from error
        raise
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotesError(f"expected a file at {path}, found something else; name another one")
        if found.st_size > limit:
            raise NotesError(_too_large(path, limit, found.st_size))
        # One more than allowed: it may have grown meanwhile.
        data = file.read(limit + 1)
    if len(data) > limit:
        raise NotesError(_too_large(path, limit, len(data)))
    return data


def read_text(
    path: Path, limit: int, errors: Literal["strict", "replace"] = "strict", follow: bool = False
) -> str | None:
    """As :func:`read_bytes`, in UTF-8.

    Args:
        path: As there.
        limit: As there.
        errors: Whether bytes that are no text are an error, or become replacement characters.
        follow: As there.

    Raises:
        NotesError: As there; or it is no text, and that is an error.
        OSError: It cannot be read.
    """
    data = read_bytes(path, limit, follow)
    try:
        return None if data is None else data.decode(errors=errors)
    except UnicodeDecodeError as error:
        raise NotesError(
            f"expected UTF-8 text in {path}, found byte 0x{error.object[error.start]:02x} at {error.start}; "
            "save the file in that encoding"
        ) from error


def _too_large(path: Path, limit: int, size: int) -> str:
    return f"expected at most {limit} bytes in {path}, found {size}; make several files of it"
