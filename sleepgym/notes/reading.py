"""Files of notes, read with care: no links, no pipes, nothing larger than expected."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sleepgym import reading
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
        return reading.read_bytes(path, limit, follow_symlinks=follow)
    except FileNotFoundError:
        return None
    except reading.UnreadableError as error:
        raise NotesError(str(error)) from error


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
