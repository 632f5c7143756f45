"""SimVectorEnv: thousands of simulated episodes, each step of which is a few hundred operations on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from sleepgym.env.batches import require_running
from sleepgym.env.observation import Observation, Observer
from sleepgym.env.options import known_options
from sleepgym.episode.card import Card
from sleepgym.facts.world import Split, checked_split
from sleepgym.sim.actions import Tables
from sleepgym.sim.dice import Keys, keys_of
from sleepgym.sim.episodes import Episodes, Steps, drawn
from sleepgym.sim.infos import infos
from sleepgym.sim.maker import setting_and_response
from sleepgym.sim.observation import flattened, observations
from sleepgym.sim.response import Response
from sleepgym.sim.snapshot import Snapshot
from sleepgym.sim.streams import Streams

_OPTIONS = {"reset_mask", "split", "streams"}
"""Options of a reset."""


class SimVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """A vector of simulated environments: a fitted response stands in for the model of a card.

    Spaces, masks, streams, rewards and infos are those of :class:`~sleepgym.env.vector.SleepVectorEnv` with the same
    card; only what the model would answer is drawn from the fit. A score of it is a simulated score.
    ``gym.make_vec("SleepSim-v0", num_envs=4096)`` makes one. Environment ``i`` lives through what a single environment
    with its seed and actions lives through, bit for bit. Seeds and autoreset are those of
    :class:`gymnasium.vector.SyncVectorEnv`.

    Args:
        num_envs: Number of episodes.
        card: Id of a card, path of a TOML file, or a card that has been read.
        fit: File of a fit, or a response; None for the one that is shipped for the card.
        autoreset_mode: When an episode that has ended makes way for the next.
        flat: Whether observations are one vector.
        split: Of no effect, since streams have no texts; taken so that both kinds are made alike.
        **overrides: Sections of the card with the keys to replace.

    Raises:
        ValueError: There are no environments, or there is no such split.
        CardError: The card cannot be read, or a key is unknown, missing or has an impossible value.
        FitError: There is no such fit, or none for the card.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        num_envs: int = 1,
        card: str | Path | Card = "SleepLLM-v0",
        fit: str | Path | Response | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        flat: bool = False,
        split: Split = "train",
        **overrides: Mapping[str, Any],
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"expected at least one environment, found num_envs={num_envs}")
        self.setting, self.response = setting_and_response(card, fit, overrides)
        self.card = self.setting.card
        self.num_envs, self.flat, self.split = num_envs, flat, checked_split(split)
        self.tables = Tables(self.card)
        """What the actions mean."""
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        space = Observer(self.card).space
        self.single_observation_space = gym.spaces.flatten_space(space) if flat else space
        self.single_action_space = self.tables.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._keys: Keys = np.zeros(num_envs, np.uint64)
        self._played = np.zeros(num_envs, np.int64)
        self._episodes: Episodes | None = None
        self._masks = np.zeros((num_envs, 0), bool)
        self._ended = np.zeros(num_envs, bool)
        self._seeded = np.zeros(num_envs, bool)

    @property
    def episodes(self) -> Episodes:
        """The present episodes.

        Raises:
            gymnasium.error.ResetNeeded: There are none yet.
        """
        if self._episodes is None:
            raise gym.error.ResetNeeded("expected episodes, found none; call reset() first")
        return self._episodes

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode in every environment, or in those of a mask.

        Args:
            seed: Seed of the first environment, the others take those that follow; or one per environment; None to go
                on from the seeds before.
            options: ``{"reset_mask": bool [num_envs]}`` resets some environments only; ``{"streams": Streams}`` has
                them play these streams, one row per environment, such as those of
                :func:`~sleepgym.sim.streams.streams_of`, to compare with real episodes. ``{"split": ...}`` has no
                effect.

        Raises:
            ValueError: An option or a split is not known, a seed is below 0, there are not as many seeds or streams as
                environments, or the mask is of another shape; the present episodes go on.
        """
        options = known_options(options, _OPTIONS)
        checked_split(options.get("split", self.split))
        mask, given = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool))), options.get("streams")
        if given is not None and len(given) != self.num_envs:
            raise ValueError(f"expected a stream for each of {self.num_envs} environments, found {len(given)}")
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(f"expected a reset_mask of {self.num_envs} truth values, one of them true, found {mask!r}")
        self._seed(seed, mask)
        rows = np.flatnonzero(mask if self._episodes is not None else np.ones(self.num_envs, bool))
        streams, dice = self._drawn(rows)
        streams = streams if given is None else given.rows(rows)
        if self._episodes is None:
            self._episodes = Episodes(self.setting, self.response, streams, dice)
        else:
            self._episodes.begin(rows, streams, dice)
        self._ended[rows] = False
        return self._observed(), self._infos(None, mask)

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One action per environment.

        Raises:
            ActionError: Actions are not in the action space; no environment has moved.
            gymnasium.error.ResetNeeded: An environment was not reset, or not after its episode ended, with autoreset
                disabled; no environment has moved.
        """
        choices, episodes = self.tables.decoded(actions, self.num_envs), self.episodes
        if self.autoreset_mode == AutoresetMode.DISABLED:
            require_running(np.flatnonzero(self._ended).tolist())
        resting = self._ended
        done = episodes.step(choices, resting, self._masks)
        if resting.any():
            self._renew(np.flatnonzero(resting))
        terminated, truncated = episodes.collapsed & ~resting, episodes.truncated & ~resting
        rewards, ended, final = done.rewards.total, terminated | truncated, {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and ended.any():
            final = self._final(np.flatnonzero(ended), done)
            self._renew(np.flatnonzero(ended))
            done = _forgotten(done, ended)
            self._ended = np.zeros(self.num_envs, bool)
        else:
            self._ended = ended
        return self._observed(), rewards, terminated, truncated, {**self._infos(done), **final}

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``[num_envs, actions]``; see :meth:`SleepEnv.action_masks`."""
        return self.tables.flat_masks(self.episodes.masks)

    def snapshot(self) -> Snapshot:
        """Returns this moment of all environments, to be restored later."""
        episodes = self.episodes
        return Snapshot(
            episodes.streams.copy(), episodes.state.copy(), self._keys.copy(), self._played.copy(), self._ended.copy()
        )

    def restore(self, snapshot: Snapshot) -> tuple[Any, dict[str, Any]]:
        """Goes back to a moment, of this vector or of one with the same card and number of environments.

        Raises:
            ValueError: The snapshot is of another number of environments.
        """
        if len(snapshot.keys) != self.num_envs:
            raise ValueError(f"expected a snapshot of {self.num_envs} environments, found {len(snapshot.keys)}")
        if self._episodes is None:
            self._episodes = Episodes(self.setting, self.response, snapshot.streams.copy(), snapshot.keys)
        self._episodes.streams, self._episodes.state = snapshot.streams.copy(), snapshot.state.copy()
        self._keys, self._played, self._ended = snapshot.keys.copy(), snapshot.played.copy(), snapshot.ended.copy()
        self._seeded[:] = True
        return self._observed(), self._infos(None)

    def _seed(self, seed: int | Sequence[int | None] | None, mask: NDArray[np.bool_]) -> None:
        seeds: Sequence[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seeds = [int(seed) + row for row in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected a seed for each of {self.num_envs} environments, found {len(seeds)}")
        if negative := [value for value in seeds if value is not None and value < 0]:
            raise ValueError(f"expected seeds from 0 on, found {negative}")
        given = np.array([value is not None for value in seeds]) & mask
        # Whoever has never had a seed gets one from the system, as Gymnasium's environments do.
        chance = np.random.SeedSequence().generate_state(self.num_envs, np.uint64)
        numbers = [other if value is None else value for value, other in zip(seeds, chance, strict=True)]
        new = given | ~self._seeded
        self._keys[new], self._played[new] = keys_of(np.array(numbers, np.uint64))[new], 0
        self._seeded[new] = True

    def _drawn(self, rows: NDArray[np.int64]) -> tuple[Streams, Keys]:
        """Draws the next episodes of some environments."""
        played = self._played[rows]
        self._played[rows] += 1
        return drawn(self.setting, self.response, self._keys[rows], played)

    def _renew(self, rows: NDArray[np.int64]) -> None:
        self.episodes.begin(rows, *self._drawn(rows))

    def _observed(self) -> Any:
        episodes = self.episodes
        return self._laid_out(observations(self.setting, episodes.streams, episodes.state))

    def _laid_out(self, seen: Observation) -> Any:
        return flattened(seen) if self.flat else seen

    def _infos(self, steps: Steps | None, there: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        self._masks = self.episodes.masks
        there = np.ones(self.num_envs, bool) if there is None else there
        return _with_masks(infos(self.episodes, self._masks, steps), there, self.tables)

    def _final(self, rows: NDArray[np.int64], steps: Steps) -> dict[str, Any]:
        """Returns the last observations and infos of episodes that ended, as Gymnasium's vectors do."""
        episodes = self.episodes
        seen = self._laid_out(observations(self.setting, episodes.streams.rows(rows), episodes.state.rows(rows)))
        about = infos(episodes, episodes.masks, steps)
        ended = np.zeros(self.num_envs, bool)
        ended[rows] = True
        last = np.full(self.num_envs, None, object)
        for place, row in enumerate(rows.tolist()):  # each is an object of its own
            last[row] = seen[place] if self.flat else {name: part[place] for name, part in seen.items()}
        of_ended = _with_masks(about, ended, self.tables)
        return {"final_obs": last, "_final_obs": ended, "final_info": of_ended, "_final_info": ended}


def _forgotten(steps: Steps, rows: NDArray[np.bool_]) -> Steps:
    """Returns steps of which some environments know nothing any more, since they have begun anew."""
    rewards = type(steps.rewards)(*(np.where(rows, 0.0, term) for term in vars(steps.rewards).values()))
    return Steps(rewards, steps.invalid & ~rows, steps.undone & ~rows)


def _with_masks(values: dict[str, NDArray[Any]], there: NDArray[np.bool_], tables: Tables) -> dict[str, Any]:
    """Returns infos as Gymnasium's vectors have them: each value with a mask of the environments that have it."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        value = tables.sample_masks(value) if name == "action_mask" else value
        if not there.all():
            value = value.copy()
            value[~there] = None if value.dtype == object else 0
        out[name], out[f"_{name}"] = value, there.copy()
    return out
