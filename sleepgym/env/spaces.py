"""What an agent chooses from: the operators, and on cards that say so how far they go."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.episode.actions import Action, Choice
from sleepgym.episode.card import Card


class Choices:
    """Translates between the actions of a card's action space and what they do.

    A card without ``[parameters]`` has ``Discrete(6)``: an operator, with the numbers of ``[budget]`` and ``[ticks]``.
    With them, an action is ``[operator, facts, night]``, where the latter two are places in the card's lists. What an
    operator has no use for is ignored.

    Args:
        card: The environment's card.

    Attributes:
        space: ``Discrete(6)``, or ``MultiDiscrete([6, facts, nights])``.
    """

    def __init__(self, card: Card) -> None:
        facts = {Action.INJECT: card.budget.inject, Action.REFRESH: card.budget.refresh}
        self._usual = {
            action: Choice(action, facts.get(action, 0), getattr(card.ticks, action.name.lower())) for action in Action
        }
        self._parameters = card.parameters
        self.space: spaces.Discrete | spaces.MultiDiscrete = spaces.Discrete(len(Action))
        if card.parameters is not None:
            self.space = spaces.MultiDiscrete([len(Action), len(card.parameters.facts), len(card.parameters.sleep)])

    def of(self, action: Any) -> Choice:
        """What an action does.

        Args:
            action: As ``step`` takes it: an integer, or three of them.

        Raises:
            ValueError: It is not in the action space.
        """
        if not self.space.contains(action):
            raise ValueError(f"expected an action in {self.space}, found {action!r}")
        usual = self._usual[operator_of(action)]
        if self._parameters is None:
            return usual
        _, facts, night = np.asarray(action).tolist()
        return Choice(
            usual.action,
            self._parameters.facts[facts] if usual.facts else 0,
            self._parameters.sleep[night] if usual.action == Action.SLEEP else usual.ticks,
        )

    def usual(self, action: Action) -> NDArray[np.int64]:
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
            operators: Which operators are allowed, ``[6]``.

        Returns:
            ``[6]``, or ``[6 + facts + nights]``, where every parameter goes with every operator.
        """
        return np.concatenate(self._masks(operators))

    def sample_mask(self, operators: NDArray[np.bool_]) -> NDArray[np.int8] | tuple[NDArray[np.int8], ...]:
        """The mask that ``space.sample(mask=...)`` asks for: int8 ``[6]``, or a tuple of one array per part.

        Args:
            operators: Which operators are allowed, ``[6]``.
        """
        masks = tuple(mask.astype(np.int8) for mask in self._masks(operators))
        return masks[0] if self._parameters is None else masks

    def _masks(self, operators: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
        """One per part; a parameter is an upper bound, which budget and inbox cut, so that none is ever forbidden."""
        if self._parameters is None:
            return [operators]
        parts = (self._parameters.facts, self._parameters.sleep)
        return [operators, *(np.ones(len(part), dtype=bool) for part in parts)]


def operator_of(action: Any) -> Action:
    """The operator of an action, with or without parameters."""
    return Action(int(np.ravel(action)[0]))
