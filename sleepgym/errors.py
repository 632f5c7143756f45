"""The base class of every error that this package raises on purpose."""

from __future__ import annotations


class SleepGymError(Exception):
    """Something that was asked for cannot be done; the message says what was expected, found, and what to do.

    Each room has errors of its own that derive from this one, and from the built-in error that Python's own functions
    would raise in their place.
    """
