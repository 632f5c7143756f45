"""Schedulers of one's own by name: ``module:name`` of what can be imported, or ``path/to/file.py:name``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from sleepgym.errors import SleepGymError
from sleepgym.schedulers import Scheduler, SchedulerTypeError, as_scheduler


class PlayerNameError(SleepGymError, ValueError):
    """A text names no player."""


def names_own(text: str) -> bool:
    """Whether a text has the form ``module:name`` or ``file.py:name``."""
    where, _, name = text.rpartition(":")
    return name.isidentifier() and (
        where.endswith(".py") or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", where) is not None
    )


def own_scheduler(text: str) -> tuple[Any, str]:
    """The scheduler that a text names, and the rule that identifies it.

    Modules are found as ``python`` finds them in the present folder. Importing one runs what is in it.

    Args:
        text: Its module or file, and its name there: a :class:`Scheduler`, its class, or a function.

    Returns:
        What :func:`~sleepgym.evaluation.evaluate` plays; and its name with its fields, if it is a dataclass, and the
        first digits of the SHA-256 of its source, since a scheduler is what its file says.

    Raises:
        PlayerNameError: There is no such module, file or name, it cannot be imported, or it is no scheduler.
    """
    where, _, name = text.rpartition(":")
    module = _module(where)
    if not hasattr(module, name):
        candidates = _schedulers_in(module)
        near = get_close_matches(name, [each for each in vars(module) if not each.startswith("_")], 1)
        raise PlayerNameError(
            f"expected a scheduler called {name!r} in {where}, found none; it has "
            f"{', '.join(candidates) or 'no class or function of its own'}"
            f"{f'; did you mean {near[0]!r}?' if near and near[0] not in candidates else ''}"
        )
    given = getattr(module, name)
    try:
        plays = as_scheduler(given)
    except SchedulerTypeError as error:
        raise PlayerNameError(f"{text}: {error}") from error
    return plays, f"{text}{_numbers(given)}, source {_digest(module)}"


def _module(where: str) -> ModuleType:
    try:
        with _folder_first():
            return _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and (where == error.name or where.startswith(f"{error.name}.")):
            raise PlayerNameError(
                f"expected a module {where!r}, found none in {Path.cwd()} or where Python looks for modules; "
                f"name its file, as path/to/{where.rpartition('.')[2]}.py:NAME"
            ) from error
        raise PlayerNameError(_failed(where, error)) from error
    except PlayerNameError:
        raise
    except Exception as error:
        raise PlayerNameError(_failed(where, error)) from error


def _failed(where: str, error: Exception) -> str:
    return (
        f"expected to import {where}, found {type(error).__name__}: {error}; mend it, and try `python -c` with it first"
    )


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PlayerNameError(f"expected a file {path}, found none; check the name")
    # By the path, so that two files of one name do not take each other's place.
    name = f"sleepgym_own_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # for a file that ends in .py there is one
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it is imported.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _folder_first() -> Iterator[None]:
    """Lets imports look into the present folder, as `python -m` does; a program's own folder stands there otherwise."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _schedulers_in(module: ModuleType) -> list[str]:
    """Names of what was written in the module and may be meant."""
    own = [(name, each) for name, each in vars(module).items() if not name.startswith("_")]
    return [
        name
        for name, each in own
        if isinstance(each, Scheduler) or (callable(each) and getattr(each, "__module__", "") == module.__name__)
    ]


def _numbers(given: Any) -> str:
    """Fields of a dataclass with their values: a class's defaults, an instance's own."""
    if not is_dataclass(given):
        return ""
    kind = given if isinstance(given, type) else type(given)
    shown = ", ".join(
        f"{field.name}={getattr(given, field.name, field.default)!r}"
        for field in fields(kind)
        if field.init and field.repr
    )
    return f"({shown})" if isinstance(given, type) else f" = {kind.__name__}({shown})"


def _digest(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file and Path(file).is_file() else "unknown"
