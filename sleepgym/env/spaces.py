"""What an agent chooses from: the operators, and on cards that say so how far they go."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.episode.actions import OPERATORS, Action, Choice, NoteAction, Operator
from sleepgym.episode.card import Card
from sleepgym.errors import SleepGymError


class ActionError(SleepGymError, ValueError):
    """A value is not in the action space; nothing has happened."""


class ActionTypeError(ActionError, TypeError):
    """A value has a type that no action has, such as a string, a float or None."""


class Choices:
    """Translates between the actions of a card's action space and what they do.

    A card without ``[parameters]`` has ``Discrete(6)``: an operator, with the numbers of ``[budget]`` and ``[ticks]``.
    With ``[notes]`` it has ``Discrete(10)``.
    With them, an action is ``[operator, facts, night]``, where the latter two are places in the card's lists. What an
    operator has no use for is ignored.

    Args:
        card: The environment's card.

    Attributes:
        space: ``Discrete(6)``, ``Discrete(10)``, or ``MultiDiscrete([6, facts, nights])``.
    """

    def __init__(self, card: Card) -> None:
        facts: dict[Operator, int] = {Action.INJECT: card.budget.inject, Action.REFRESH: card.budget.refresh}
        self._usual = {action: Choice(action, facts.get(action, 0), _ticks(card, action)) for action in card.operators}
        self._parameters = card.parameters
        self.space: spaces.Discrete | spaces.MultiDiscrete = spaces.Discrete(len(card.operators))
        if card.parameters is not None:
            self.space = spaces.MultiDiscrete([len(Action), len(card.parameters.facts), len(card.parameters.sleep)])

    def of(self, action: Any) -> Choice:
        """What an action does.

        Args:
            action: As ``step`` takes it: an integer, or three of them.

        Raises:
            ActionError: It is not in the action space.
            ActionTypeError: The same, since it is of another type.
        """
        if not _contains(self.space, action):
            raise action_error(f"expected an action in {self.space}", action)
        usual = self._usual[operator_of(action)]
        if self._parameters is None:
            return usual
        _, facts, night = np.asarray(action).tolist()
        return Choice(
            usual.action,
            self._parameters.facts[facts] if usual.facts else 0,
            self._parameters.sleep[night] if usual.action == Action.SLEEP else usual.ticks,
        )

    def usual(self, action: Operator) -> NDArray[np.int64]:
        """The action that performs an operator as on a card without parameters: ``[]`` or ``[3]``."""
        choice, parameters = self._usual[action], self._parameters
        if parameters is None:
            return np.asarray(action, dtype=np.int64)
        facts = parameters.facts.index(choice.facts) if choice.facts else 0
        night = parameters.sleep.index(choice.ticks) if action == Action.SLEEP else 0
        return np.array([action, facts, night], dtype=np.int64)

    def flat_mask(self, operators: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The mask that sb3-contrib asks for: those of all parts of an action, one after the other.

        Args:
            operators: Which operators are allowed, ``[operators]``.

        Returns:
            ``[operators]``, or ``[6 + facts + nights]``, where every parameter goes with every operator.
        """
        return np.concatenate(self._masks(operators))

    def sample_mask(self, operators: NDArray[np.bool_]) -> NDArray[np.int8] | tuple[NDArray[np.int8], ...]:
        """The mask that ``space.sample(mask=...)`` asks for: int8 ``[operators]``, or a tuple of one array per part.

        Args:
            operators: Which operators are allowed, ``[operators]``.
        """
        masks = tuple(mask.astype(np.int8) for mask in self._masks(operators))
        return masks[0] if self._parameters is None else masks

    def _masks(self, operators: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
        """One per part; a parameter is an upper bound, which budget and inbox cut, so that none is ever forbidden."""
        if self._parameters is None:
            return [operators]
        parts = (self._parameters.facts, self._parameters.sleep)
        return [operators, *(np.ones(len(part), dtype=bool) for part in parts)]


def _ticks(card: Card, action: Operator) -> int:
    """Returns the ticks of an operator; to say how questions are answered takes as long as a WAIT."""
    if isinstance(action, NoteAction):
        assert card.notes is not None
        return card.notes.ticks if action == NoteAction.NOTE else card.ticks.wait
    return int(getattr(card.ticks, action.name.lower()))


def _contains(space: spaces.Space[Any], action: Any) -> bool:
    """Whether an action is in a space; spaces themselves raise for ragged lists and for huge numbers."""
    try:
        return space.contains(action)
    except (ValueError, TypeError, OverflowError):
        return False


def action_error(expected: str, found: Any) -> ActionError:
    """Returns the error for an invalid action.

    Args:
        expected: What was expected, in words.
        found: What was found.

    Returns:
        An :class:`ActionTypeError` if it is of a type that no action has, else an :class:`ActionError`.
    """
    shown = f"{expected}, found {found!r}"
    if isinstance(found, str):
        named = found.strip().upper() in Action.__members__
        hint = f"; say Action.{found.strip().upper()}" if named else ""
        return ActionTypeError(f"{shown}, a text{hint}")
    if isinstance(found, type):
        return ActionTypeError(f"{shown}, a class; say one of its values, as Action.WAIT")
    try:
        values = np.asarray(found)
    except ValueError:  # a ragged list
        return ActionTypeError(shown)
    if isinstance(found, int):
        return ActionError(shown)
    if values.dtype.kind not in "iu":
        kind = type(found).__name__ if values.dtype == object else values.dtype.name
        return ActionTypeError(f"{shown} of type {kind}; actions are whole numbers, as int(action) makes them")
    hint = f", an array of shape {list(values.shape)}" if values.ndim else ""
    hint += "; take its only entry, action[0]" if values.shape == (1,) else ""
    return ActionError(f"{shown}{hint}")


def operator_of(action: Any) -> Operator:
    """The operator of an action, with or without parameters."""
    return OPERATORS[int(np.ravel(action)[0])]
