"""Tab completion of commands, where Python has readline."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from types import ModuleType

readline: ModuleType | None = None
with suppress(ImportError):  # not everywhere; importing it gives input() history and editing
    import readline


def complete_commands(starts: Collection[str]) -> None:
    """Completes the first word of a line at the tab key.

    Args:
        starts: What a line can start with, such as ``/sleep``.
    """
    if readline is None:
        return
    readline.set_completer_delims(" ")  # by default a slash ends a word
    readline.set_completer(lambda text, number: [*matches(typed(), text, starts), None][number])
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")


def matches(line: str, word: str, starts: Collection[str]) -> list[str]:
    """What a word can be completed to: nothing, unless the line consists of it."""
    if line.lstrip() != word:
        return []
    return [f"{start} " for start in starts if start.startswith(word)]


def typed() -> str:
    """What stands on the line that is being typed, as far as can be told."""
    return "" if readline is None else str(readline.get_line_buffer())
