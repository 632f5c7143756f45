"""Conversion of user-defined schedulers: functions, classes and objects to what can be evaluated."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from sleepgym.episode.actions import Action
from sleepgym.errors import SleepGymError
from sleepgym.schedulers.base import Mask, Observation, Scheduler

if TYPE_CHECKING:
    from sleepgym.env.sleep_env import SleepEnv

FORMS = (
    "an instance of a Scheduler, a function of (observation, mask) that returns an Action, an object with predict() "
    "such as a model of Stable-Baselines3, or a function of (env, seed) that makes one of these for each episode"
)
"""Supported forms of a scheduler, in words."""


@runtime_checkable
class Predictor(Protocol):
    """Policy: a scheduler of this package, or a model of Stable-Baselines3 or sb3-contrib.

    It receives a batch: observations ``[rows, ...]``, one row per episode, and ``action_masks`` ``[rows, actions]``
    (see :meth:`SleepEnv.action_masks`) if its ``predict`` has an argument of that name.
    """

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """Returns actions ``[rows, ...]`` and the state for the next call.

        On a card with parameters, an action is an array of three, or the number of the operator alone.
        """


class SchedulerTypeError(SleepGymError, TypeError):
    """An object has none of the supported forms of a scheduler."""


class FunctionScheduler(Scheduler):
    """Scheduler defined by a function.

    Args:
        function: Function of an observation, as a dictionary, and a mask that returns an action.
        name: Name in errors and warnings; by default that of the function.
    """

    def __init__(self, function: Callable[[Any, Any], Any], name: str = "") -> None:
        self.function = function
        self._name = name or _name_of(function)

    @property
    def name(self) -> str:
        """See :attr:`Scheduler.name`."""
        return self._name

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        chosen: Action = self.function(observation, mask)
        return chosen


def as_scheduler(given: Any) -> Any:
    """Converts an object to a scheduler that can be evaluated.

    - An object with ``predict`` is returned as it is: a :class:`Scheduler`, or a model of a learning library.
    - A function of ``(observation, mask)``, or an object that has ``act`` alone, becomes a :class:`FunctionScheduler`.
    - A function of ``(env, seed)`` is a factory of one scheduler per episode, and is returned as it is.
    - A class is a factory of one instance per episode, if it needs no arguments, or ``env`` and ``seed``.

    Functions are told apart by the names of what they take. One whose names say nothing is taken for a maker as
    long as what it returns can play, and else for a function that chooses.

    Args:
        given: Object to convert.

    Returns:
        Object with ``predict``, or factory of one per episode, called with ``(env, seed)``.

    Raises:
        SchedulerTypeError: The object has none of these forms.
    """
    if isinstance(given, type):
        return _maker_of_class(given)
    if callable(getattr(given, "predict", None)):
        return given
    if callable(act := getattr(given, "act", None)):
        return FunctionScheduler(act, type(given).__name__)
    if not callable(given):
        raise SchedulerTypeError(f"expected {FORMS}, found {given!r}")
    names = _taken(given)
    if _chooses(names):
        return FunctionScheduler(given)
    if names is not None and len(names) != 2:
        raise SchedulerTypeError(
            f"expected a function of (observation, mask) or of (env, seed), found {_name_of(given)} of "
            f"({', '.join(names)})"
        )
    return _maker(given, sure=names is not None and (names[0].startswith("env") or names[1] == "seed"))


def made(maker: Callable[[SleepEnv, int], Any], env: SleepEnv, seed: int) -> Any:
    """Returns the scheduler that a factory makes for one episode, an object with ``predict``.

    Raises:
        SchedulerTypeError: The factory returns none of the supported forms, or another factory.
    """
    found = maker(env, seed)
    with suppress(SchedulerTypeError):
        plays = as_scheduler(found)
        if not isinstance(found, type) and callable(getattr(plays, "predict", None)):
            return plays
    forms = FORMS.partition(", or a function of (env")[0]
    raise SchedulerTypeError(f"expected {_name_of(maker)} to make {forms}, found {found!r}")


def _maker(given: Callable[..., Any], sure: bool) -> Callable[[SleepEnv, int], Any]:
    if sure:
        return given

    def make(env: SleepEnv, seed: int) -> Any:
        try:
            found = given(env, seed)
        except Exception as error:
            raise SchedulerTypeError(
                f"expected {_name_of(given)} to make a scheduler from an environment and a seed, found "
                f"{type(error).__name__}: {error}; if it chooses an action, name what it takes (observation, mask)"
            ) from error
        # What it returned was chosen by looking at nothing: a number, or nothing at all.
        return FunctionScheduler(given) if found is None or isinstance(found, (int, float, str, np.generic)) else found

    make.__qualname__ = make.__name__ = _name_of(given)
    return make


def _maker_of_class(given: type) -> Callable[[SleepEnv, int], Any]:
    if not any(callable(getattr(given, name, None)) for name in ("act", "predict")) and not any(
        "__call__" in vars(base) for base in given.__mro__
    ):
        raise SchedulerTypeError(f"expected {FORMS}, found the class {given.__name__}, which has no act()")
    if missing := sorted(getattr(given, "__abstractmethods__", ())):
        raise SchedulerTypeError(f"expected {given.__name__} to have {', '.join(missing)}(), found none; write it")
    needed = _needed(given)
    if not needed:
        make = lambda env, seed: given()  # noqa: E731  (named below)
    elif len(needed) == 2 and needed[0].startswith("env") and needed[1] == "seed":
        make = lambda env, seed: given(env, seed)  # noqa: E731
    else:
        raise SchedulerTypeError(
            f"expected an instance, found the class {given.__name__}, which needs {', '.join(needed)}; "
            f"make one, as {given.__name__}({', '.join(f'{name}=...' for name in needed)})"
        )
    make.__qualname__ = make.__name__ = given.__name__
    return make


def _chooses(names: list[str] | None) -> bool:
    """Whether parameter names are those of an observation and a mask."""
    if names is None or len(names) != 2:
        return False
    first, second = (name.strip("_").lower() for name in names)
    return first in ("o", "obs", "observation", "observations") or "mask" in second


def _taken(function: Callable[..., Any]) -> list[str] | None:
    """Names of the positional parameters of a function; None if it takes any number, or has no signature."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind == each.VAR_POSITIONAL for each in parameters):
        return None
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    needed = [each.name for each in places if each.default is each.empty]
    # Further ones that have a default, as loop variables are bound in a lambda, are nobody's business here.
    return needed if len(needed) >= 2 else [each.name for each in places][:2]


def _needed(given: type) -> list[str]:
    """Names of the arguments that a class requires."""
    try:
        parameters = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in optional]


def _name_of(function: Any) -> str:
    return str(getattr(function, "__qualname__", None) or type(function).__name__)
