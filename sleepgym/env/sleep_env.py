"""SleepEnv: the Gymnasium face of an episode."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from sleepgym.env.actions import Action, Outcome
from sleepgym.env.card import Card, load_card
from sleepgym.env.episode import Episode
from sleepgym.env.observation import Observation, Observer
from sleepgym.env.shared import bare_perplexity, shared_base
from sleepgym.env.snapshot import ModelId, Randomness, Snapshot
from sleepgym.env.stream import draw_stream, source_of
from sleepgym.facts.world import SPLITS, Split
from sleepgym.sleeper import SleepingLM


class SleepEnv(gym.Env[Observation, np.int64]):
    """Decide when a language model writes facts into its weights, and when it sleeps.

    ## Description

    A causal language model is told facts while it is in use. Writing them into its weights is fast, but each
    write wears the earlier ones out. Sleeping moves facts into slower weights, where they hold; but a model
    that sleeps answers nobody, and every night shifts the rest of what it knows a little. The agent
    decides, tick by tick, when to write, when to repair, when to sleep and when to leave the model alone.

    ## Action Space

    `Discrete(6)`. Ticks are those of the default card.

    | Num | Action  | Ticks | Allowed when | Effect |
    |-----|---------|-------|--------------|--------|
    | 0   | WAIT    | 1 | always | nothing |
    | 1   | INJECT  | 1 | facts wait, edits are left, the ledger has room | writes the oldest of them, at most a batch |
    | 2   | REFRESH | 1 | the last audit found facts degraded, and edits are left | re-solves the worst jointly |
    | 3   | NAP     | 1, offline | the ledger holds facts | audits every fact of the ledger |
    | 4   | SLEEP   | 6, offline | the ledger holds facts | audit, refresh, consolidate, dissolve, validate |
    | 5   | PRUNE   | 1 | some fact is at the last stage | takes those facts out of the ledger; they are still asked |

    An action that is not allowed is a WAIT with a penalty and `info["invalid_action"]`. The mask is in
    `action_masks()` (bool, as sb3-contrib asks for) and `info["action_mask"]` (int8).

    ## Observation Space

    `Dict` of two float32 boxes; every entry is clipped to its range. Features and ranges are listed in
    `sleepgym.env.observation` and on the environment's page.

    | Key      | Shape | Content |
    |----------|-------|---------|
    | `ledger` | (capacity + pending, 11) | a row per fact: the written ones first, then those that wait, then zeros |
    | `stats`  | (21,) | clock, rhythm of the episode, budget, pressure, drift, lately served recall |

    The ledger shows what the last audit saw. The truth is in `info["recall"]`.

    ## Rewards

    Per tick, traffic times the probability that a question is answered correctly: over all facts that have
    arrived (by popularity and recency) and a sample of pretrained ones. Facts that wait, were lost or changed
    since they were written count as wrong, and so does every question while the model is offline. From this
    is taken the relative rise of perplexity times a weight, and a penalty for an invalid action.
    `info["reward_terms"]` has the terms.

    ## Starting State

    The bare model, an empty ledger, and the facts that arrive at tick 0. Arrival rate, share of updates,
    night and edit budget are drawn per episode.

    ## Episode End

    1. Termination: perplexity relative to the bare model exceeds the card's limit (collapse).
    2. Truncation: the horizon is reached.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import sleepgym
    >>> env = gym.make("SleepLLM-v0", split="validation", episode={"days": 2})
    >>> env.action_space
    Discrete(6)

    ```

    | Parameter     | Type | Default | Description |
    |---------------|------|---------|-------------|
    | `card`        | str | the id | id of a card, path of a TOML file, or a card that has been read |
    | `split`       | str | `"train"` | `train`, `validation` or `test`; also `reset(options={"split": ...})` |
    | `render_mode` | str | `None` | `"rgb_array"` (a hypnogram) or `"ansi"` |
    | any section   | dict | | keys of the card to replace |

    ## Version History

    * v0: Initial version.
    """

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        card: str | Path | Card = "SleepLLM-v0",
        split: Split = "train",
        render_mode: str | None = None,
        **overrides: Mapping[str, Any],
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"expected a render_mode in {self.metadata['render_modes']}, found {render_mode!r}")
        self.card: Card = load_card(card, **overrides)
        self.card_id = "" if isinstance(card, Card) else Path(card).name
        """What the card is called; empty for one that was read already."""
        self.overrides = overrides
        """What was replaced in it."""
        self.split = _checked(split)
        self.render_mode = render_mode
        model = self.card.model
        self.base = shared_base(model.name, self.card.edit, model.device)
        rows = self.card.episode.perplexity_rows
        self._bare_perplexity = bare_perplexity(model.name, self.card.edit, model.device, rows)
        self._source = source_of(self.card.stream)
        self._observer = Observer(self.card)
        self.action_space = spaces.Discrete(len(Action))
        self.observation_space = self._observer.space  # type: ignore[assignment]  # Dict[Any] is one of Space[dict]
        self._episode: Episode | None = None
        self._stream_seed = 0
        self.over = False
        """Whether the present episode has ended."""
        self.seconds = 0.0
        """Measured seconds of the present episode's operators and questions."""

    @property
    def episode(self) -> Episode:
        """The present episode.

        Raises:
            gymnasium.error.ResetNeeded: There is none yet.
        """
        if self._episode is None:
            raise gym.error.ResetNeeded("expected an episode, found none; call reset() first")
        return self._episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Seed of everything random in it.
            options: ``{"split": ...}`` switches to the facts of another split.
        """
        super().reset(seed=seed)
        self.split = _checked((options or {}).get("split", self.split))
        # Two seeds drawn at once: neither the stream nor the learner can shift the other's draws.
        self._stream_seed, learner_seed = (int(s) for s in self.np_random.integers(2**62, size=2))
        stream = draw_stream(self.card, self._source, self.split, np.random.default_rng(self._stream_seed))
        learner = SleepingLM(self.base, self.card.sleep, self.card.budget.capacity, learner_seed)
        self._episode = Episode(self.card, stream, learner, self._bare_perplexity)
        self.over, self.seconds = False, 0.0
        return self._observer(self._episode.view()), self._info()

    def step(self, action: int | np.integer) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Performs an action; see the class."""
        if not self.action_space.contains(action):
            raise ValueError(f"expected an action in 0..{len(Action) - 1}, found {action!r}")
        episode = self.episode
        if self.over:
            raise gym.error.ResetNeeded("expected a running episode, found one that has ended; call reset() first")
        start = time.perf_counter()
        done = episode.step(Action(int(action)))
        terminated, truncated = episode.collapsed, episode.truncated
        observation = self._observer(episode.view())
        info = self._info(done.outcome, done.reward_terms)
        self.seconds += time.perf_counter() - start
        self.over = terminated or truncated
        if self.over:
            # Only here: with a measured time in it, no two infos of equal trajectories would be equal.
            info["seconds"] = self.seconds
        return observation, sum(done.reward_terms.values()), terminated, truncated, info

    def snapshot(self) -> Snapshot:
        """This moment, to be restored later, here or in another environment with this card.

        Raises:
            gymnasium.error.ResetNeeded: There is no episode yet.
        """
        episode = self.episode
        return Snapshot(
            card=self.card,
            model=ModelId.of(self.base.lm),
            split=self.split,
            stream=episode.stream,
            paused=episode.pause(),
            randomness=Randomness(deepcopy(self.np_random), self.np_random_seed, self._stream_seed),
            over=self.over,
            seconds=self.seconds,
        )

    def restore(self, snapshot: Snapshot) -> tuple[Observation, dict[str, Any]]:
        """Goes back to a moment, and on from there as the environment did that the snapshot was taken of.

        Bit for bit, later episodes included. Only `action_space.sample()` is as random as it was: it is the agent's.

        Returns:
            What that moment looks like, as after :meth:`reset`.

        Raises:
            SnapshotError: The snapshot is of another card or model; the environment is as it was.
        """
        self._go_back_to(snapshot)
        return self._observer(self.episode.view()), self._info()

    def fork(self) -> SleepEnv:
        """A second environment on the same model that goes on from here independently, without any wrappers.

        Raises:
            gymnasium.error.ResetNeeded: There is no episode yet.
        """
        other = copy(self)
        # Samples from one environment's spaces must not shift those from the other's.
        other.action_space, other.observation_space = deepcopy((self.action_space, self.observation_space))
        other._go_back_to(self.snapshot())
        return other

    def _go_back_to(self, snapshot: Snapshot) -> None:
        self._episode = snapshot.episode(self.base, self.card, self._bare_perplexity)
        self.split, self.over, self.seconds = snapshot.split, snapshot.over, snapshot.seconds
        # Not through the property: it would forget the seed.
        self._np_random, self._np_random_seed = snapshot.generator(), snapshot.randomness.seed
        self._stream_seed = snapshot.randomness.stream

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now."""
        return self.episode.mask()

    def render(self) -> Any:
        """The episode so far, as a picture or as text."""
        # Here, because matplotlib takes long to load and training never renders.
        from sleepgym.env.render import figure, text, to_array

        if self.render_mode == "rgb_array":
            return to_array(figure(self.episode.history, self.card.horizon))
        return text(self.episode.history) if self.render_mode == "ansi" else None

    def _info(self, outcome: Outcome | None = None, reward_terms: dict[str, float] | None = None) -> dict[str, Any]:
        episode = self.episode
        outcome = outcome or Outcome()
        info: dict[str, Any] = {
            "action_mask": episode.mask().astype(np.int8),
            "invalid_action": outcome.invalid,
            "reward_terms": reward_terms or {term.name: 0.0 for term in episode.reward.terms},
            "recall": episode.recall(),
            "score": episode.score,
            "edits_used": episode.edits_used,
            "edits_left": episode.edits_left,
            "ppl_ratio": episode.examiner.perplexity_ratio(),
            "tick": episode.tick,
            "sleeps": episode.counts.sleeps,
            "naps": episode.counts.naps,
            "arrived": len(episode.inbox.current),
            "pending": len(episode.inbox.pending),
            "lost": episode.inbox.lost,
        }
        if outcome.error:
            info["error"] = outcome.error
        if outcome.night is not None:
            info["rolled_back"] = outcome.night.rolled_back
        return info


def _checked(split: str) -> Split:
    if split not in SPLITS:
        raise ValueError(f"expected a split in {SPLITS}, found {split!r}")
    return split
