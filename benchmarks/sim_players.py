"""Players of the sim: schedulers and exploring policies by name, and trained policies by file."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import Observation, Observer
from sleepgym.env.spaces import Choices
from sleepgym.episode.card import Card
from sleepgym.evaluation import Maker
from sleepgym.evaluation.episodes import takes_masks
from sleepgym.leaderboard.players import ALGORITHMS, Player, player_named
from sleepgym.schedulers import Predictor
from sleepgym.schedulers.exploring import explorer_named


class Spaces(gym.Env[Any, Any]):
    """The spaces of a card, and nothing to play.

    Args:
        card: The card.
    """

    def __init__(self, card: Card) -> None:
        self.observation_space = Observer(card).space
        self.action_space = Choices(card).space


class Trained:
    """Trained policy that is given observations as environments make them.

    Args:
        player: The policy, with the wrapper that it needs.
        card: Card that it plays.
    """

    def __init__(self, player: Player, card: Card) -> None:
        assert isinstance(player.scheduler, Predictor)
        self._policy, self._view = player.scheduler, player.wrap(Spaces(card))
        self._takes_masks = takes_masks(self._policy)

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[Any, Any]:
        """See :meth:`Predictor.predict`."""
        rows = [
            viewed(self._view, {name: part[row] for name, part in observation.items()})
            for row in range(len(observation["stats"]))
        ]
        stacked = (
            np.stack(rows) if isinstance(rows[0], np.ndarray) else {n: np.stack([r[n] for r in rows]) for n in rows[0]}
        )
        masks = {"action_masks": action_masks} if self._takes_masks else {}
        return self._policy.predict(stacked, state, episode_start=episode_start, deterministic=deterministic, **masks)


def viewed(env: gym.Env[Any, Any], observation: Any) -> Any:
    """Returns an observation as wrappers show it."""
    if isinstance(env, gym.ObservationWrapper):
        return env.observation(viewed(env.env, observation))
    return observation


def is_trained(text: str) -> bool:
    """Whether a text names a trained policy: a file that ends in .zip, alone or after its algorithm."""
    return text.endswith(".zip") or text.partition(":")[0] in ALGORITHMS


def simulated(text: str, card: Card) -> Any:
    """Returns what plays in the sim, a :class:`Predictor` or a factory of one per episode."""
    if is_trained(text):
        return Trained(player_named(text, Spaces(card)), card)
    found: Predictor | Maker = explorer_named(text)
    return found
