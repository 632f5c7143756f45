"""All tasks by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sleepgym.errors import SleepGymError
from sleepgym.fastweights.hops import Hops
from sleepgym.fastweights.rule110 import Rule110
from sleepgym.fastweights.task import Task

TASKS: Mapping[str, type[Rule110] | type[Hops]] = {"rule110": Rule110, "hops": Hops}


class TaskError(SleepGymError, ValueError):
    """There is no such task, or it has no such setting."""


def task_named(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """A task.

    Args:
        name: Name of a task.
        settings: Fields of its dataclass that differ from the defaults.

    Raises:
        TaskError: There is no such task or setting.
        SettingError: A setting has an impossible value.
    """
    if name not in TASKS:
        raise TaskError(f"expected a task among {', '.join(TASKS)}, found {name!r}")
    known = TASKS[name].__dataclass_fields__
    if unknown := sorted(set(settings or {}) - set(known)):
        raise TaskError(f"{name}: expected settings among {', '.join(known)}, found {', '.join(unknown)}")
    return TASKS[name](**(settings or {}))


def name_of(task: Task) -> str:
    """The name of a task."""
    return next(name for name, kind in TASKS.items() if isinstance(task, kind))
