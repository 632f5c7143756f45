"""Environment cards: all settings of an environment in one validated TOML file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ValidationError, model_validator

from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.episode.card_sections import (
    BudgetCard,
    CheckedEditSpec,
    CheckedSleepSpec,
    EpisodeCard,
    ModelCard,
    NotesCard,
    ParametersCard,
    PressureCard,
    RewardCard,
    Section,
    StreamCard,
    TicksCard,
)
from sleepgym.errors import SleepGymError
from sleepgym.files import card_paths
from sleepgym.reading import UnreadableError, read_toml
from sleepgym.settings import require


class CardError(SleepGymError, ValueError):
    """A card is invalid; the message names the file, the key, what was expected and what was found."""


class UnknownArgumentError(CardError, TypeError):
    """A keyword argument is neither an argument of its own nor a section of a card.

    Also a TypeError, as for any function of Python: libraries that try arguments out go by that.
    """


_LARGEST_INTEGER, _LARGEST_FLOAT = 10_000_000, 1e12
_MAX_TICKS, _MAX_ARRIVALS, _MAX_PLACES = 1_000_000, 1_000_000, 100_000
_MISTAKES = 20
"""Mistakes that a message lists."""
_QUOTED = 200
"""Characters of a value that a message quotes."""

C = TypeVar("C", bound=Section)
"""Kind of a card."""


class Card(Section):
    """Settings of an environment. Without ``parameters``, an action is an operator alone."""

    model: ModelCard
    edit: CheckedEditSpec
    sleep: CheckedSleepSpec
    stream: StreamCard
    budget: BudgetCard
    ticks: TicksCard
    parameters: ParametersCard | None = None
    notes: NotesCard | None = None
    pressure: PressureCard
    reward: RewardCard
    episode: EpisodeCard

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        """Refuses numbers that no machine has room for: cards come with recordings and snapshots of others."""
        for section, table in self:
            for key, value in vars(table).items() if table is not None else ():
                for number in value if isinstance(value, tuple) else (value,):
                    most = _LARGEST_INTEGER if isinstance(number, int) else _LARGEST_FLOAT
                    fits = not isinstance(number, int | float) or abs(number) <= most
                    require(fits, f"{section}.{key}", f"at most {most:g}", number)
        require(self.horizon <= _MAX_TICKS, "episode.days", f"at most {_MAX_TICKS} ticks in all", self.horizon)
        arrivals = self.stream.arrival_rate[1] * self.horizon
        require(arrivals <= _MAX_ARRIVALS, "stream.arrival_rate", f"at most {_MAX_ARRIVALS} expected facts", arrivals)
        places = max(self.budget.capacity, self.budget.pending)
        require(places <= _MAX_PLACES, "budget.capacity", f"at most {_MAX_PLACES}, as for budget.pending", places)
        require(self.stream.burst <= _MAX_PLACES, "stream.burst", f"at most {_MAX_PLACES}", self.stream.burst)
        return self

    @model_validator(mode="after")
    def _notes_without_parameters(self) -> Self:
        both = self.notes is not None and self.parameters is not None
        require(not both, "notes", "notes on a card without [parameters]", "both")
        return self

    @model_validator(mode="after")
    def _usual_numbers_can_be_chosen(self) -> Self:
        if self.parameters is not None:
            for options, key, usual in (
                (self.parameters.facts, "budget.inject", self.budget.inject),
                (self.parameters.facts, "budget.refresh", self.budget.refresh),
                (self.parameters.sleep, "ticks.sleep", self.ticks.sleep),
            ):
                require(usual in options, key, f"one of the parameters {list(options)}", usual)
        return self

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators of the action space, in its order."""
        return OPERATORS if self.notes is not None else tuple(Action)

    @property
    def horizon(self) -> int:
        """Length of an episode in ticks."""
        return self.episode.days * self.stream.ticks_per_day

    @property
    def max_edits(self) -> int:
        """Maximum edit budget of an episode."""
        return round(self.budget.edits[1] * self.stream.arrival_rate[1] * self.horizon)


def load_card(path_or_id: str | Path | Card, /, **overrides: Mapping[str, Any]) -> Card:
    """Reads a card.

    Args:
        path_or_id: Registered id such as ``"SleepLLM-v0"``, TOML file, or card.
        **overrides: Keys to replace by section, such as ``episode={"days": 2}``.

    Raises:
        CardError: The card is missing or not TOML, or a key is unknown, missing or has an invalid value.
        UnknownArgumentError: A keyword is no section; a CardError and a TypeError.
    """
    return read_card(Card, card_paths(), path_or_id, overrides)


def parse_card(data: Mapping[str, Any], name: str, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Card:
    """Validates the data of a card.

    Args:
        data: Sections of the card.
        name: Name of the card in error messages.
        overrides: Keys to replace by section.

    Raises:
        CardError: A key is unknown, missing or has an invalid value.
    """
    return checked_card(Card, data, name, overrides)


def read_card(
    kind: type[C], known: Mapping[str, Path], path_or_id: str | Path | C, overrides: Mapping[str, Mapping[str, Any]]
) -> C:
    """Reads a card of any kind.

    Args:
        kind: Its sections.
        known: Cards of this kind by id.
        path_or_id: Id, TOML file, or card.
        overrides: Keys to replace by section.

    Raises:
        CardError: As :func:`load_card`.
        UnknownArgumentError: As :func:`load_card`.
    """
    if isinstance(path_or_id, kind):
        data = path_or_id.model_dump(mode="json", exclude_none=True)
        return checked_card(kind, data, "card", overrides) if overrides else path_or_id
    if not isinstance(path_or_id, str | Path):
        raise CardError(f"expected an id ({', '.join(known)}), a TOML file or a Card, found {path_or_id!r}; name one")
    path = known.get(str(path_or_id), Path(path_or_id))
    try:
        data = read_toml(path)
    except OSError as error:
        raise CardError(
            f"expected an id ({', '.join(known)}) or a TOML file, found {str(path_or_id)!r}, "
            f"which cannot be read ({error.strerror}); check the name"
        ) from error
    except UnreadableError as error:
        raise CardError(f"{path.name}: expected TOML, found {error.found}; correct the file") from error
    return checked_card(kind, data, path.name, overrides)


def checked_card(
    kind: type[C], data: Mapping[str, Any], name: str, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> C:
    """Validates the data of a card of any kind; see :func:`parse_card`."""
    data = dict(data)
    require_sections(overrides or {}, name, kind=kind)
    for section, changes in (overrides or {}).items():
        if not isinstance(changes, Mapping):
            raise CardError(
                f"{name}, override of {section}: expected a mapping such as {{'key': value}}, found {changes!r}"
            )
        if not isinstance(data.setdefault(section, {}), dict):
            raise CardError(f"{name}: expected a table [{section}] to override, found {data[section]!r}")
        data[section] = {**data[section], **changes}
    _require_plain(data, name)
    try:
        # In JSON mode, strict validation accepts a list for a tuple, but no "3" for a 3.
        return kind.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        found = error.errors()
        more = [f"and {len(found) - _MISTAKES} more"] if len(found) > _MISTAKES else []
        raise CardError("; ".join([*(_message(name, dict(e)) for e in found[:_MISTAKES]), *more])) from error


def require_sections(
    overrides: Mapping[str, Any], name: str, others: Iterable[str] = (), kind: type[Section] = Card
) -> None:
    """Checks that keyword arguments are sections of a card.

    Args:
        overrides: The arguments.
        name: What errors call the card.
        others: Arguments that were possible besides, to be listed.
        kind: Kind of the card.

    Raises:
        UnknownArgumentError: One is no section.
    """
    for section, found in overrides.items():
        if section not in kind.model_fields:
            known = [*others, *kind.model_fields]
            near = "".join(f"; did you mean {other!r}?" for other in get_close_matches(section, known, 1))
            raise UnknownArgumentError(
                f"{name}, key {section}: expected only known keys, found {found!r}: got an unexpected keyword argument "
                f"{section!r}; known are {', '.join(known)}{near}"
            )


def _require_plain(data: Mapping[str, Any], name: str) -> None:
    """Checks that values are JSON-serialisable, since cards are written into specs, recordings and snapshots."""
    for section, table in data.items():
        values = {f"{section}.{key}": v for key, v in table.items()} if isinstance(table, dict) else {section: table}
        for key, value in values.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError, RecursionError) as error:
                raise CardError(
                    f"{name}, key {_quoted(key, str)}: expected numbers, texts and lists of Python's own, found "
                    f"{_quoted(value)}; convert what comes from numpy with .item() or .tolist()"
                ) from error


def differences(expected: Card, found: Card) -> list[str]:
    """Lists the differences of two cards, as ``section.key: expected ..., found ...``; empty for equal cards."""
    left, right = _leaves(expected), _leaves(found)
    return [
        f"{key}: expected {left.get(key)!r}, found {right.get(key)!r}"
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    ]


def _leaves(card: Card) -> dict[str, Any]:
    """Returns the card's values by ``section.key``."""
    sections = card.model_dump(mode="json", exclude_none=True)
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}


def _message(file: str, error: dict[str, Any]) -> str:
    """Formats one of pydantic's errors as ``expected ..., found ...``."""
    key, found = ".".join(str(part) for part in error["loc"]), error["input"]
    match error["type"]:
        case "extra_forbidden":
            expected = "only known keys"
        case "missing":
            expected, found = "a value", None
        case "value_error":
            wrong = error["ctx"]["error"]
            key = ".".join(part for part in (key, wrong.key) if part)
            expected, found = wrong.expected, wrong.found
        case _:
            expected = str(error["msg"]).replace("Input should be ", "")
    return (
        f"{file}, key {_quoted(key, str)}: expected {expected}, found {'nothing' if found is None else _quoted(found)}"
    )


def _quoted(value: object, write: Callable[[object], str] = repr) -> str:
    """A value in a message: in one line, and no more of it than helps."""
    try:
        text = " ".join(write(value).split("\n"))
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}..."
