"""Text form of schedulers: a name with optional fields after a colon, as in ``night-owl:load_at=0.05``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sleepgym.errors import SleepGymError
from sleepgym.schedulers.adaptive import BudgetAware, Drowsiness, NightOwl, PressureRule
from sleepgym.schedulers.base import Scheduler
from sleepgym.schedulers.caretaker import Caretaker
from sleepgym.schedulers.look_ahead import LookAhead
from sleepgym.schedulers.noting import NoteFirst, NotesOnly, PopularFirst
from sleepgym.schedulers.repairing import Mender, Rounds
from sleepgym.schedulers.simple import AlwaysSleep, FixedPeriod, NeverSleep, RandomScheduler

if TYPE_CHECKING:
    from sleepgym.env.sleep_env import SleepEnv

RULES: Mapping[str, type[Scheduler]] = {
    "always-sleep": AlwaysSleep,
    "budget-aware": BudgetAware,
    "caretaker": Caretaker,
    "drowsiness": Drowsiness,
    "fixed-period": FixedPeriod,
    "mender": Mender,
    "never-sleep": NeverSleep,
    "night-owl": NightOwl,
    "pressure-rule": PressureRule,
    "rounds": Rounds,
}
"""Schedulers that decide by the observation alone, by name."""

NOTE_RULES: Mapping[str, type[Scheduler]] = {
    "note-first": NoteFirst,
    "notes-only": NotesOnly,
    "popular-first": PopularFirst,
}
"""Further ones that play cards with notes only."""

EVERY_RULE: Mapping[str, type[Scheduler]] = {**RULES, **NOTE_RULES}

RANDOM, LOOK_AHEAD = "random", "look-ahead"
"""Names of schedulers that are made for each episode, from its seed or from its environment."""

SchedulerMaker = Callable[["SleepEnv", int], Scheduler]
"""Factory of a scheduler for one episode, called with its environment and seed."""


class SchedulerNameError(SleepGymError, ValueError):
    """A text names no scheduler, or its fields are invalid."""


def scheduler_named(text: str) -> Scheduler | SchedulerMaker:
    """Parses the text form of a scheduler, for :func:`sleepgym.evaluation.evaluate`.

    - ``night-owl`` has default fields, ``night-owl:load_at=0.05,traffic_at=0.2`` others; fields are those of the class,
      and ``none`` is None.
    - ``random`` draws from each episode's seed.
    - ``look-ahead:depth=16,width=4,rule=night-owl`` plans in its environment. Its rule is required and comes last; all
      that follows belongs to the rule, as in ``look-ahead:depth=16,rule=night-owl:load_at=0.05,traffic_at=0.2``.

    Args:
        text: Text form of the scheduler.

    Returns:
        The scheduler, or a factory for those that are made for each episode.

    Raises:
        SchedulerNameError: The name or a field is unknown, or a value is invalid.
    """
    name, colon, numbers = text.partition(":")
    if name == LOOK_AHEAD:
        return _look_ahead(numbers)
    if name == RANDOM:
        if colon:
            raise SchedulerNameError(
                f"expected {RANDOM} without numbers, since it draws from each episode's seed, found {text!r}"
            )
        return lambda env, seed: RandomScheduler(seed)
    return _rule(text)


def known_schedulers() -> str:
    """Returns all names with their fields, in one line."""
    rules = [_described(name, _kinds(rule)) for name, rule in EVERY_RULE.items()]
    return "; ".join([*rules, RANDOM, _described(LOOK_AHEAD, [*_kinds(LookAhead), "rule"])])


def _rule(text: str) -> Scheduler:
    name, colon, numbers = text.partition(":")
    if name not in EVERY_RULE:
        raise SchedulerNameError(f"expected a scheduler, found {name!r}; known are {known_schedulers()}")
    return _made(text, EVERY_RULE[name], _numbers(name, _kinds(EVERY_RULE[name]), numbers) if colon else {})


def spelled_out(text: str) -> str:
    """Returns the text form with all fields, since defaults may change with a version.

    Args:
        text: Text form of a scheduler.

    Raises:
        SchedulerNameError: See :func:`scheduler_named`.
    """
    made = scheduler_named(text)
    name, _, numbers = text.partition(":")
    if isinstance(made, Scheduler):
        return written(name, made)
    if name == RANDOM:
        return text
    own, rule = _look_ahead_parts(numbers)
    usual = {field.name: field.default for field in fields(LookAhead)}
    return f"{_written(name, LookAhead, usual | own)},rule={spelled_out(rule)}"


def written(name: str, rule: Scheduler) -> str:
    """Returns the text form of a scheduler with all fields.

    Args:
        name: Its name.
        rule: The scheduler.
    """
    return _written(name, type(rule), vars(rule))


def _written(name: str, kind: type[Scheduler], values: Mapping[str, Any]) -> str:
    numbers = ",".join(f"{field}={'none' if values[field] is None else values[field]}" for field in _kinds(kind))
    return f"{name}:{numbers}" if numbers else name


def _look_ahead(numbers: str) -> SchedulerMaker:
    own, rule_text = _look_ahead_parts(numbers)
    rule = _rule(rule_text)

    def make(env: SleepEnv, seed: int) -> Scheduler:
        return LookAhead(env, rule, **own)

    # Made once here, without an environment, so that invalid values are reported before the first episode.
    _made(f"{LOOK_AHEAD}:{numbers}", lambda **values: LookAhead(None, rule, **values), own)  # type: ignore[arg-type]
    return make


def _look_ahead_parts(numbers: str) -> tuple[dict[str, Any], str]:
    """Splits the fields of LookAhead into its own values and the text form of its rule."""
    before, found, after = f",{numbers}".partition(",rule=")
    if not found:
        raise SchedulerNameError(f"expected {LOOK_AHEAD} with a rule, as in {LOOK_AHEAD}:rule=night-owl; found none")
    if "," in after.partition(":")[0]:
        raise SchedulerNameError(f"expected the rule of {LOOK_AHEAD} at the end, found {numbers!r}; put rule=... last")
    return _numbers(LOOK_AHEAD, _kinds(LookAhead), before[1:]) if before else {}, after


def _made(text: str, make: Callable[..., Scheduler], numbers: Mapping[str, Any]) -> Scheduler:
    try:
        return make(**numbers)
    except ValueError as error:
        raise SchedulerNameError(f"{text}: {error}") from error


def _kinds(kind: type[Scheduler]) -> dict[str, tuple[type, ...]]:
    """Returns the numeric fields of a scheduler with their types."""
    # Numbers alone matter, and the class of environments would bring torch.
    hints = get_type_hints(kind, localns={"SleepEnv": object})
    kinds = {field.name: get_args(hints[field.name]) or (hints[field.name],) for field in fields(kind) if field.init}  # type: ignore[arg-type]
    return {name: types for name, types in kinds.items() if set(types) <= {int, float, NoneType}}


def _numbers(name: str, kinds: Mapping[str, tuple[type, ...]], text: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for part in text.split(","):
        field, equals, value = part.partition("=")
        if not equals or field not in kinds:
            raise SchedulerNameError(
                f"expected field=number, found {part!r}; known are {_described(name, kinds) if kinds else 'none'}"
            )
        if field in out:
            raise SchedulerNameError(f"expected each field of {name} once, found {field} twice in {text!r}")
        out[field] = _number(f"{name}:{field}", kinds[field], value)
    return out


def _number(where: str, types: tuple[type, ...], text: str) -> float | int | None:
    if NoneType in types and text == "none":
        return None
    kind = float if float in types else int
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        expected = "a number" if kind is float else "a whole number"
        raise SchedulerNameError(f"expected {expected} for {where}, found {text!r}")
    return value


def _described(name: str, names: Mapping[str, Any] | list[str]) -> str:
    return f"{name} ({', '.join(names)})" if names else name
