"""Checks that settings dataclasses make of their own values."""

from __future__ import annotations

from sleepgym.errors import SleepGymError


class SettingError(SleepGymError, ValueError):
    """A setting has an impossible value.

    Attributes:
        key: Name of the setting; empty where the container names it.
        expected: What it should be.
        found: What it is.
    """

    def __init__(self, key: str, expected: str, found: object) -> None:
        super().__init__(f"{key}: expected {expected}, found {found!r}")
        self.key, self.expected, self.found = key, expected, found


def require(holds: bool, key: str, expected: str, found: object) -> None:
    """Raises :class:`SettingError` unless the condition holds."""
    if not holds:
        raise SettingError(key, expected, found)


def at_least(settings: object, low: float, *keys: str) -> None:
    """Requires attributes to be ``low`` or more."""
    for key in keys:
        require(getattr(settings, key) >= low, key, f"at least {low}", getattr(settings, key))


def above_zero(settings: object, *keys: str) -> None:
    """Requires attributes to be more than 0."""
    for key in keys:
        require(getattr(settings, key) > 0, key, "more than 0", getattr(settings, key))
