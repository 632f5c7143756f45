"""The error of this room."""

from __future__ import annotations

from sleepgym.errors import SleepGymError


class NotesError(SleepGymError, ValueError):
    """Notes cannot be read or changed as asked; every note is as it was."""
