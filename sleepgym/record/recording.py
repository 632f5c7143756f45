"""Recordings: the actions, rewards and score of an episode, with all that is needed to replay it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, model_validator

from sleepgym import files
from sleepgym._version import __version__
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import Choices
from sleepgym.episode.card import Card
from sleepgym.errors import SleepGymError
from sleepgym.facts.world import Split
from sleepgym.reading import UnreadableError, read_model


class RecordingError(SleepGymError, ValueError):
    """A recording cannot be read, written, made or replayed."""


class Recording(BaseModel):
    """Episode from its reset to its end, or to its last recorded step.

    Attributes:
        format: Version of the format.
        sleepgym: Version of the package.
        card_id: Id of the card; empty if it has none.
        overrides: Overrides of the card by section.
        card: The card with overrides applied.
        fingerprint: Fingerprint of the model.
        split: Split that facts are drawn from.
        seed: Seed of the reset; None for a reset without a seed.
        rng: State of the environment's random generator before a reset without a seed; None otherwise.
        actions: Actions, as integers or as triples of integers on a card with parameters.
        rewards: Reward of each action.
        score: Score after the last action.
        ended: Whether the episode ended with the last action.

    Raises:
        pydantic.ValidationError: An action is invalid, the numbers of actions and rewards differ, or not exactly one of
            ``seed`` and ``rng`` is given.
    """

    # JSON constants, since numbers of a damaged model can be infinite.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    format: Literal[1] = 1
    sleepgym: str
    card_id: str
    overrides: dict[str, dict[str, Any]]
    card: Card
    fingerprint: str
    split: Split
    seed: NonNegativeInt | None
    rng: dict[str, Any] | None
    actions: tuple[int | tuple[int, ...], ...]
    rewards: tuple[float, ...]
    score: float
    ended: bool

    @model_validator(mode="after")
    def _consistent(self) -> Recording:
        choices = Choices(self.card)
        for action in self.actions:
            choices.of(action)
        if len(self.actions) != len(self.rewards):
            raise ValueError(f"expected a reward per action, found {len(self.rewards)} for {len(self.actions)}")
        if (self.seed is None) == (self.rng is None):
            raise ValueError("expected either a seed or a random state")
        return self

    def save(self, path: str | Path) -> None:
        """Writes JSON atomically.

        Raises:
            RecordingError: The file cannot be written.
        """
        try:
            files.write_json(Path(path), self)
        except OSError as error:
            raise RecordingError(f"expected to write a recording to {path}, found {error}") from error

    @classmethod
    def load(cls, path: str | Path, inside: Path | None = None) -> Recording:
        """Reads a recording that :meth:`save` wrote.

        Args:
            path: Its file.
            inside: Folder that the file has to lie in, wherever links lead; None for anywhere.

        Raises:
            RecordingError: The file is missing, or not a recording of this format.
        """
        try:
            return read_model(Path(path), cls, inside=inside)
        except OSError as error:
            raise RecordingError(f"expected a recording, found {error}; check the name") from error
        except UnreadableError as error:
            raise RecordingError(
                f"expected a recording in {path}, found {error.found}; record the episode again"
            ) from error


class Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Wrapper that records every episode of a :class:`~sleepgym.env.sleep_env.SleepEnv` without changing it.

    It should be the innermost wrapper that sees unchanged actions and rewards: replays use the environment without
    wrappers.

    Args:
        env: Environment made by ``gym.make`` or :class:`SleepEnv` itself.
        folder: Folder in which each finished episode is saved, as ``episode-00000.json`` and so on; None for none.

    Raises:
        RecordingError: The environment is no SleepEnv.
    """

    def __init__(self, env: gym.Env[Any, Any], folder: str | Path | None = None) -> None:
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, SleepEnv):
            raise RecordingError(f"expected a SleepEnv to record, found {type(inner).__name__}")
        self._inner, self._folder, self._saved = inner, None if folder is None else Path(folder), 0
        self._episode: object = None
        self._start: dict[str, Any] = {}
        self._actions: list[int | tuple[int, ...]] = []
        self._rewards: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode and its recording."""
        rng = self._inner.np_random.bit_generator.state if seed is None else None
        out = super().reset(seed=seed, options=options)
        self._start = {"seed": None if seed is None else int(seed), "rng": rng, "split": self._inner.split}
        self._episode, self._actions, self._rewards = self._inner.episode, [], []
        return out

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Performs an action and records it.

        Raises:
            RecordingError: The finished episode cannot be written.
        """
        out = super().step(action)
        self._actions.append(_plain(action))
        self._rewards.append(float(out[1]))
        if self._folder is not None and self._inner.over and self._is_complete:
            self.recording.save(self._folder / f"episode-{self._saved:05}.json")
            self._saved += 1
        return out

    @property
    def _is_complete(self) -> bool:
        """Whether the current episode was recorded from its reset on; a restored episode was not."""
        return self._episode is not None and self._inner.episode is self._episode

    @property
    def recording(self) -> Recording:
        """Recording of the current episode so far.

        Raises:
            RecordingError: There is no episode, or it did not begin with this wrapper's reset.
        """
        if not self._is_complete:
            raise RecordingError("expected an episode that began with reset() of the Recorder, found none; call it")
        env = self._inner
        return Recording(
            sleepgym=__version__,
            card_id=env.card_id,
            overrides={section: dict(changes) for section, changes in env.overrides.items()},
            card=env.card,
            fingerprint=env.base.lm.fingerprint,
            actions=tuple(self._actions),
            rewards=tuple(self._rewards),
            score=float(env.episode.score),
            ended=env.over,
            **self._start,
        )


def _plain(action: Any) -> int | tuple[int, ...]:
    """Converts an action into plain integers, which JSON can hold."""
    found = np.asarray(action).tolist()
    return tuple(found) if isinstance(found, list) else found
