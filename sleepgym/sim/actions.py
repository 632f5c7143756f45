"""Actions of many episodes, decoded by tables; what they mean is said by :class:`sleepgym.env.spaces.Choices`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sleepgym.env import spaces as single
from sleepgym.env.batches import actions_of
from sleepgym.episode.actions import Action
from sleepgym.episode.card import Card
from sleepgym.sim.episodes import Choices


class Tables:
    """Decodes batches of actions, and lays masks out.

    Args:
        card: The card.

    Attributes:
        single: Meaning of one action.
        space: Action space of one episode.
    """

    def __init__(self, card: Card) -> None:
        self.single = single.Choices(card)
        self.space = self.single.space
        self._parameters = card.parameters
        usual = [self.single.of(self.single.usual(action)) for action in card.operators]
        self._facts = np.array([choice.facts for choice in usual], np.int32)
        self._ticks = np.array([choice.ticks for choice in usual], np.int32)

    def decoded(self, actions: Any, rows: int) -> Choices:
        """Returns what actions do.

        Args:
            actions: Integers, ``[rows]``, or on a card with parameters ``[rows, 3]``.
            rows: Number of episodes.

        Raises:
            ActionError: They are not in the action space.
        """
        chosen = actions_of(actions, batch_space(self.space, rows), rows, self.space)
        operator = (chosen if self._parameters is None else chosen[:, 0]).astype(np.int32)
        facts, ticks = self._facts[operator], self._ticks[operator]
        if self._parameters is not None:
            facts = np.where(facts > 0, np.array(self._parameters.facts, np.int32)[chosen[:, 1]], 0)
            ticks = np.where(operator == Action.SLEEP, np.array(self._parameters.sleep, np.int32)[chosen[:, 2]], ticks)
        return Choices(operator, facts, ticks)

    def flat_masks(self, operators: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns the masks of all parts of actions, one after the other; see :meth:`single.Choices.flat_mask`.

        Args:
            operators: Which operators are allowed, bool ``[rows, actions]``.
        """
        if isinstance(self.space, spaces.Discrete):
            return operators
        width = int(self.space.nvec[1:].sum())
        return np.concatenate((operators, np.ones((len(operators), width), bool)), 1)

    def sample_masks(self, operators: NDArray[np.int8]) -> NDArray[Any]:
        """Returns a mask per episode as ``space.sample(mask=...)`` asks for: int8 ``[rows, actions]``, or tuples.

        Args:
            operators: Which operators are allowed, int8 ``[rows, actions]``.
        """
        if isinstance(self.space, spaces.Discrete):
            return operators
        rest = [np.ones(int(count), np.int8) for count in self.space.nvec[1:]]
        out = np.full(len(operators), None, object)
        for row, mask in enumerate(operators):  # tuples, as Gymnasium wants them
            out[row] = (mask, *rest)
        return out
