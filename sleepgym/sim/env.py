"""SimEnv: one simulated environment, made and used as the real one."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from sleepgym.env.observation import Observation
from sleepgym.env.options import known_options
from sleepgym.env.spaces import Choices, action_error
from sleepgym.episode.card import Card
from sleepgym.facts.world import Split, checked_split
from sleepgym.sim.response import Response
from sleepgym.sim.snapshot import Snapshot
from sleepgym.sim.streams import streams_of
from sleepgym.sim.vector import SimVectorEnv

_OPTIONS = {"readings", "split", "stream"}
"""Options of a reset."""


class SimEnv(gym.Env[Observation, Any]):
    """The environment of a card without its model: a response that was fitted to real episodes stands in for it.

    Spaces, masks, streams, rewards and infos are those of :class:`~sleepgym.env.sleep_env.SleepEnv`, whose docstring is
    the page of both. A score of it is a simulated score, and never to be reported without that word. It has no
    pictures, and one perplexity ratio, while the real one is measured on more text when an episode is over.

    ```python
    env = gym.make("SleepSim-v0", fit="my.safetensors")
    ```

    Args:
        card: Id of a card, path of a TOML file, or a card that has been read.
        fit: File of a fit, or a response; None for the one that is shipped for the card.
        split: Of no effect, since streams have no texts; taken so that both kinds are made alike.
        render_mode: None, since there is no picture.
        flat: Whether observations are one vector.
        **overrides: Sections of the card with the keys to replace.

    Raises:
        ValueError: There is no such split, or a render mode is asked for.
        CardError: The card cannot be read, or a key is unknown, missing or has an impossible value.
        FitError: There is no such fit, or none for the card.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        card: str | Path | Card = "SleepLLM-v0",
        fit: str | Path | Response | None = None,
        split: Split = "train",
        render_mode: str | None = None,
        flat: bool = False,
        **overrides: Mapping[str, Any],
    ) -> None:
        if render_mode is not None:
            raise ValueError(f"expected render_mode=None, since a simulation has no picture, found {render_mode!r}")
        self._one = SimVectorEnv(1, card, fit, AutoresetMode.DISABLED, flat, split, **overrides)
        self.card, self.split, self.flat = self._one.card, split, flat
        self.action_space = self._one.single_action_space
        self.observation_space = self._one.single_observation_space
        self.over = False
        """Whether the present episode has ended."""

    @property
    def choices(self) -> Choices:
        """What the actions mean."""
        return self._one.tables.single

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Seed of everything random in it; left out, the episode follows from those before.
            options: ``{"stream": ...}`` plays a stream of the real environment, ``env.unwrapped.episode.stream``, to
                compare with it; on a card with notes ``{"readings": ...}`` goes with it,
                ``env.unwrapped.episode.readings``. ``{"split": ...}`` has no effect.

        Raises:
            ValueError: An option is not known, there is no such split, or the stream is of another card; the present
                episode goes on.
        """
        options = known_options(options, _OPTIONS)
        readings = [options["readings"]] if "readings" in options else []
        streams = {"streams": streams_of(self.card, [options["stream"]], readings)} if "stream" in options else {}
        checked_split(options.get("split", self.split))
        super().reset(seed=seed)
        observation, info = self._one.reset(seed=[seed], options=streams)
        self.over = False
        return _first(observation), _first_info(info)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Performs an action.

        Raises:
            ActionError: It is not in the action space; nothing has happened.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        try:
            chosen = np.asarray(action)[None]
        except ValueError:  # a ragged list
            raise action_error(f"expected an action in {self.action_space}", action) from None
        observation, rewards, terminated, truncated, info = self._one.step(chosen)
        self.over = bool(terminated[0] or truncated[0])
        return _first(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first_info(info)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now; see :meth:`SleepEnv.action_masks`."""
        return self._one.action_masks()[0]

    def snapshot(self) -> Snapshot:
        """This moment, to be restored later, here or in another environment with this card and fit."""
        return self._one.snapshot()

    def restore(self, snapshot: Snapshot) -> tuple[Observation, dict[str, Any]]:
        """Goes back to a moment, and on from there bit for bit.

        Returns:
            What that moment looks like, as after :meth:`reset`.
        """
        observation, info = self._one.restore(snapshot)
        self.over = bool(snapshot.ended[0])
        return _first(observation), _first_info(info)

    def fork(self) -> SimEnv:
        """A second environment that goes on from here independently, without any wrappers."""
        return deepcopy(self)


def _first(observation: Any) -> Any:
    if isinstance(observation, np.ndarray):
        return observation[0]
    return {name: part[0] for name, part in observation.items()}


def _first_info(info: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the only environment, with the types of :class:`SleepEnv`: truth values as 0-d arrays."""
    first = {name: values[0] for name, values in info.items() if not name.startswith("_")}
    return {name: np.array(value) if isinstance(value, np.bool_) else value for name, value in first.items()}
