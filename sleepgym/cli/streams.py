"""Standard streams that take any text, whatever encoding the terminal or the pipe has."""

from __future__ import annotations

import codecs
import io
from typing import IO


def write_anything(stream: IO[str] | None) -> None:
    """Lets a stream write what its encoding does not have as escapes in place of an error."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def read_anything(stream: IO[str] | None) -> None:
    """Lets a stream read any bytes: those that are no text become replacement characters.

    A stream that is said to be ASCII is read as UTF-8, which ASCII is a part of: "C" says nothing of what is typed.
    """
    if isinstance(stream, io.TextIOWrapper):
        encoding = "utf-8" if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding
        stream.reconfigure(encoding=encoding, errors="replace")
