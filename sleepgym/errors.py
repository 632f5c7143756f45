"""The base class of every error that this package raises on purpose."""

from __future__ import annotations

_LONGEST = 4_000
"""Characters of a message that are shown."""


class SleepGymError(Exception):
    """Something that was asked for cannot be done; the message says what was expected, found, and what to do.

    Each room has errors of its own that derive from this one, and from the built-in error that Python's own functions
    would raise in their place.
    """

    def __str__(self) -> str:
        """The message. Whatever it quotes, it can be printed and read: what is no text is escaped, what is long cut."""
        message = super().__str__().encode(errors="backslashreplace").decode()
        if len(message) <= _LONGEST:
            return message
        # What to do stands at the end.
        return f"{message[: _LONGEST // 4 * 3]} ... {message[-_LONGEST // 4 :]}"
