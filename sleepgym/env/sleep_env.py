"""SleepEnv: the Gymnasium face of an episode."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import Observation, Observer
from sleepgym.env.options import known_options
from sleepgym.env.render.rendering import Rendering
from sleepgym.env.shared import held_out, is_known, shared_base
from sleepgym.env.spaces import Choices
from sleepgym.episode.actions import Outcome
from sleepgym.episode.card import Card, load_card, require_sections
from sleepgym.episode.episode import Episode
from sleepgym.episode.snapshot import ModelId, Randomness, Snapshot
from sleepgym.episode.stream import draw_stream, source_of
from sleepgym.facts.world import Split, checked_split
from sleepgym.sleeper import SleepingLM

NOTHING = Outcome()
"""What has happened before the first action."""

OPTIONS = frozenset({"split"})
"""What :meth:`SleepEnv.reset` can be told in its ``options``."""


class SleepEnv(Rendering, gym.Env[Observation, Any]):
    """Decide when a language model writes facts into its weights, and when it sleeps.

    ```python
    >>> import gymnasium as gym
    >>> env = gym.make("sleepgym:SleepLLM-v0")
    >>> observation, info = env.reset(seed=0)
    >>> action = env.action_space.sample(info["action_mask"])
    >>> observation, reward, terminated, truncated, info = env.step(action)

    ```

    Names such as `ticks.sleep` are keys of the environment's card, a TOML file with every number of it.

    ## Description

    A causal language model is told facts while it is in use. A fact can be written into its weights at once, as a
    low-rank edit; but edits wear each other out, and after a few dozen the early ones are forgotten. Two things help.
    A refresh solves worn edits again, jointly. A night moves facts into an adapter, where they hold better; but a
    model that sleeps answers nobody, and each night shifts a little what the model knew before.

    The agent decides, tick by tick, when to write, when to look, when to repair, when to sleep and when to leave the
    model alone. No timetable is right for every episode: how much arrives, how often facts change, when the night
    falls, how long it is and how many edits are allowed is drawn anew at each reset, and shown in the observation.

    What happens in a tick:

    1. The facts of the tick arrive in the inbox. If it is full, the fact that has waited longest is lost.
    2. The agent acts. The effect on the model is there at once.
    3. For as many ticks as the action takes, questions are asked and further facts arrive.

    The whole stream of facts and questions is drawn at reset. No action can change it.

    ## Action Space

    `Discrete(6)` with a mask. On a card with a section `[parameters]` it is `MultiDiscrete`: the number of the action,
    then places in the lists `parameters.facts` (facts that `INJECT` and `REFRESH` write at most) and `parameters.sleep`
    (ticks of `SLEEP`). On a card with a section `[notes]` it is `Discrete(10)`, with further features and infos:
    [SleepLLM-Notes](notes.md).

    | Num | Action    | Allowed when | Effect |
    |-----|-----------|--------------|--------|
    | 0   | `WAIT`    | always | nothing |
    | 1   | `INJECT`  | a fact waits, edits are left, the ledger has room for it | writes a batch of facts |
    | 2   | `REFRESH` | the last audit found a fact degraded, edits are left | re-solves such facts jointly |
    | 3   | `NAP`     | the ledger is not empty | audits every fact of the ledger |
    | 4   | `SLEEP`   | the ledger is not empty | moves facts into the adapter, see below |
    | 5   | `PRUNE`   | a fact has reached the last stage | takes such facts out of the ledger |

    - `INJECT` writes the facts that have waited longest, `budget.inject` at most, in one batch: an edit for each.
    - `REFRESH` re-solves the worst of the facts that are known to be degraded and still true, `budget.refresh` at most,
      and holds the others still: an edit for each.
    - `SLEEP` audits, refreshes what is degraded (an edit for each), trains the adapter on the facts whose turn it is
      (`sleep.facts` at most; new ones and those it failed to hold every night, the others after `sleep.spacing` nights
      at most), dissolves the edits of those it holds, and validates.
    - A night that would raise perplexity too much or lower recall undoes itself. It still takes its time; edits that
      it had spent on refreshing are undone with it, and not charged.
    - A night takes a fact one stage up if the adapter holds it, further where edits stand in the way of what the
      adapter knows, and back to the first if it does not. The scale of its edit falls with the stage (`sleep.scales`);
      at the last stage the adapter holds the fact alone.
    - `PRUNE` makes room. What it takes out is still asked; it is no longer a lesson of later nights, but they hold the
      adapter to what it answered the night before (`sleep.settled` facts a night at most, in turn; 0 lets it fade).
    - The edit budget is hard. `INJECT` and `REFRESH` write no more than is left, and a night refreshes the worst facts
      that the budget covers.
    - An action that is not allowed, or that fails, changes nothing, takes as long as a `WAIT`, costs a penalty and sets
      `info["invalid_action"]`. If it was tried and failed, `info["error_code"]` is not 0, and `env.unwrapped.error`
      says why.
    - The mask is in `info["action_mask"]` (int8, as `Discrete.sample` asks for) and `env.unwrapped.action_masks()`
      (bool, as sb3-contrib asks for).

    ## Observation Space

    `Dict` of two float32 boxes, clipped to their ranges. They hold what an agent could know: the ledger shows what the
    last audit saw; whether a fact is recalled *now* is in `info` only.

    | Key | Shape | Content |
    |-----|-------|---------|
    | `ledger` | `(budget.capacity + budget.pending, features)` | a row per fact; zeros where there is none |
    | `stats`  | `(features,)` | clock, rhythm of the episode, budget, pressure, drift, lately served recall |

    Rows of the ledger are the written facts in the order of writing, then those that wait.

    Sleep pressure is the sum of three parts, each at most at its weight: `pressure.edits_weight` times
    (load / `pressure.edits`) to the power of `pressure.exponent`, where the load counts full-strength edits;
    `pressure.ticks_weight` times (ticks awake / `pressure.ticks`); and `pressure.perplexity_weight` times (relative
    rise of perplexity / `pressure.perplexity`).

    The features are `LEDGER_FEATURES` and `STATS_FEATURES` in `sleepgym.env.observation`;
    `stat(observation, "pressure")` reads one, `column(observation, "age")` one of every row.

    With `flat=True` it is one float32 `Box`: the rows of `ledger` one after the other, then `stats`. Every id has a
    second one that says so, for scripts that take an id alone: `SleepLLM-Flat-v0`, `SleepLLM-Mini-Flat-v0` and so on.

    ## Rewards

    Per tick: `reward.served` x traffic x served - `reward.drift` x drift, and for an invalid action minus
    `reward.invalid` on top.

    - Served is the probability that a question of the tick is answered with exactly the right object. A share
      `stream.known_share` of the questions is about facts that the model learned in pretraining, the others are about
      facts that have arrived, by popularity and recency. A fact that waits, was lost, or changed since it was written
      counts as wrong, and so does every question while the model is offline.
    - Drift is how much perplexity on held-out text exceeds that of the bare model, as a ratio minus one, measured at
      `episode.perplexity_tokens` of its tokens. A fall earns
      nothing, and a rise counts up to the ratio at which the episode ends, so that every reward is finite.

    The figure to report is `info["score"]` in [0, 1]: the share of all questions of the episode so far that were
    answered correctly. It has no term for drift; report `info["ppl_ratio"]` beside it.

    ## Info

    The same keys at every reset and step, with values of numpy whose types and shapes never change. Equal runs have
    equal infos.

    | Key | Type | Meaning |
    |-----|------|---------|
    | `action_mask` | int8 `[6]` | which actions are allowed; with `[parameters]` a tuple of one array per part |
    | `invalid_action` | bool `[]` | whether the last action was forbidden, or failed |
    | `error_code` | int64 | why it failed, if tried: 1 editing, 2 facts, 3 a full ledger, 4 sleep; else 0 |
    | `reward_served`, `reward_drift`, `reward_invalid` | float64 | the reward by term, summed over the action's ticks |
    | `recall` | float64 | share of all arrived facts that would be answered correctly now: the truth, not for agents |
    | `score` | float64 | share of questions answered correctly so far |
    | `edits_used`, `edits_left` | int64 | edits; their sum is the episode's budget |
    | `ppl_ratio` | float64 | perplexity relative to the bare model, on a sample of tokens; on all when it is over |
    | `tick`, `sleeps`, `naps` | int64 | clock and counts |
    | `arrived`, `pending`, `lost` | int64 | facts that have arrived, wait, and were lost to a full inbox |
    | `degraded` | int64 | facts that the last audit found degraded and that are still true |
    | `rolled_back` | bool `[]` | whether the last action was a night that undid itself |

    Two things are attributes of the environment instead: `env.unwrapped.seconds`, the measured time of the present
    episode, which no two runs share, and `env.unwrapped.error`, the words to `error_code`, empty for 0.

    ## Starting State

    The bare model, an empty ledger, and the facts of tick 0 in the inbox. Drawn per episode, from ranges in the card:
    facts per tick (`stream.arrival_rate`), the share of them that change an earlier one (`stream.update_share`), when
    the night begins and how long it is (`stream.night_start`, `stream.night_ticks`), and the edits per expected fact
    (`budget.edits`).

    The facts of the splits `train`, `validation` and `test` are about different subjects.

    Equal seeds and equal actions give equal trajectories, bit for bit, on one machine with one number of threads and
    the same cached targets: a target that was optimised in other company may differ in its last bits.

    ## Episode End

    1. Termination: perplexity relative to the bare model exceeds `episode.max_perplexity_ratio` (collapse). The
       questions that remain count as wrong in the score.
    2. Truncation: the horizon of `episode.days` x `stream.ticks_per_day` ticks is reached.

    ## Arguments

    ```python
    >>> env = gym.make("SleepLLM-v0", split="test", episode={"days": 2}, reward={"drift": 0.5})
    >>> env.unwrapped.card.horizon
    32

    ```

    | Parameter | Type | Default | Description |
    |-----------|------|---------|-------------|
    | `split` | str | `"train"` | or `"validation"`, `"test"`; `reset(options={"split": "test"})` switches later |
    | `card` | str | the id | id of a card, path of a TOML file, or a card that has been read |
    | `render_mode` | str | `None` | see below |
    | `flat` | bool | `False` | whether observations are one vector |
    | any section of the card | dict | | keys to replace |

    All environments of a process share the loaded model, which is never written to. To make an environment of your own,
    copy a card from `envs/` and pass its path: `gym.make("sleepgym:SleepLLM-v0", card="mine.toml")`. A mistake in a
    card is reported with file, key, what was expected and what was found. `sleepgym.env.wrappers` has wrappers that
    flatten the observation, put the mask into it, and sum episodes up.

    ## Rendering

    | Mode | `render()` |
    |------|------------|
    | `"rgb_array"` | a picture, uint8 `(480, 640, 3)`: hypnogram, every fact over time, recall, budget, perplexity |
    | `"human"` | nothing: the same picture in a window, after every reset and step |
    | `"ansi"` | text with colours for terminals, 100 columns: vitals, the last ticks, the facts that are worst off |
    | `None` | nothing |

    A window needs a display, and Tk, Qt or another toolkit that matplotlib knows. `gymnasium.wrappers.RecordVideo`
    makes a film of the pictures (it needs moviepy), `render_mode="rgb_array_list"` a list. All of them show the truth,
    which the observation does not.

    ## Version History

    - v0: initial version.
    """

    metadata = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        card: str | Path | Card = "SleepLLM-v0",
        split: Split = "train",
        render_mode: str | None = None,
        flat: bool = False,
        **overrides: Mapping[str, Any],
    ) -> None:
        """Reads the card and loads its model, unless another environment of this process has done so; see the class.

        Args:
            card: Id of a card, path of a TOML file, or a card that has been read.
            split: Split that facts are drawn from.
            render_mode: One of ``metadata["render_modes"]``, or None.
            flat: Whether observations are one vector, as :class:`~sleepgym.env.wrappers.FlattenLedger` makes them.
            **overrides: Sections of the card with the keys to replace.

        Raises:
            ValueError: There is no such split or render mode.
            TypeError: ``flat`` is no truth value.
            CardError: The card cannot be read, or a key is unknown, missing or has an impossible value.
            UnknownArgumentError: An argument is no section of a card; a CardError and a TypeError.
            ModelLoadError: The model cannot be loaded.
            ArchitectureError: The model has no MLP that can be edited, or is no decoder.
            EditError: The model does not have the blocks that the card edits.
            FactError: The file of real facts cannot be read.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"expected a render_mode in {self.metadata['render_modes']}, found {render_mode!r}")
        if not isinstance(flat, bool):
            raise TypeError(f"expected flat=True or flat=False, found {flat!r}")
        name = "card" if isinstance(card, Card) else Path(card).name
        require_sections(overrides, name, ("card", "split", "render_mode", "flat"))
        self.card: Card = load_card(card, **overrides)
        self.card_id = "" if isinstance(card, Card) else Path(card).name
        """What the card is called; empty for one that was read already."""
        self.overrides = overrides
        """What was replaced in it."""
        self.split = checked_split(split)
        self.render_mode = render_mode
        model = self.card.model
        self.base = shared_base(model, self.card.edit)
        self._held_out = held_out(model, self.card.edit, self.card.episode)
        self._source = source_of(self.card.stream)
        self._observer = Observer(self.card)
        self.choices = Choices(self.card)
        """What the actions mean."""
        self.action_space = self.choices.space
        self.flat = flat
        """Whether observations are one vector."""
        space = self._observer.space
        self.observation_space = gym.spaces.flatten_space(space) if flat else space  # type: ignore[assignment]
        self._episode: Episode | None = None
        self._stream_seed = 0
        self.over = False
        """Whether the present episode has ended."""
        self.seconds = 0.0
        """Measured seconds of the present episode's operators and questions."""
        self.error = ""
        """Why the last action failed; empty if it did not."""

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
            seed: Seed of everything random in it; left out, the episode follows from those before.
            options: ``{"split": ...}`` switches to the facts of another split.

        Raises:
            ValueError: An option is not known, or there is no such split; the present episode goes on.
            FactError: The split has fewer facts than the card wants.
        """
        options = known_options(options, OPTIONS)
        split = checked_split(options.get("split", self.split))
        super().reset(seed=seed)
        self.split = split
        # Two seeds drawn at once: neither the stream nor the learner can shift the other's draws.
        self._stream_seed, learner_seed = (int(s) for s in self.np_random.integers(2**62, size=2))
        rng = np.random.default_rng(self._stream_seed)
        with self.base.lm.guard.usual():
            stream = draw_stream(self.card, self._source, self.split, rng, partial(is_known, self.card.model))
            learner = SleepingLM(self.base, self.card.sleep, self.card.budget.capacity, learner_seed, stream.known)
            self._episode = Episode(self.card, stream, learner, self._held_out)
            self.over, self.seconds, self.error = False, 0.0, ""
            self._show()
            return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Performs an action; see the class.

        Args:
            action: An integer; on a card with parameters, three of them.

        Raises:
            ActionError: It is not in the action space; nothing has happened. It is a ValueError, and for what is of
                another type a TypeError as well.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        choice, episode = self.choices.of(action), self.episode
        if self.over:
            raise gym.error.ResetNeeded("expected a running episode, found one that has ended; call reset() first")
        start = time.perf_counter()
        with self.base.lm.guard.usual():
            done = episode.step(choice)
            terminated, truncated = bool(episode.collapsed), bool(episode.truncated)
            self.over = terminated or truncated
            self.error = done.outcome.error
            observation = self._observe()
            info = self._info(done.outcome, done.reward_terms)
        # An attribute and not an info: with a measured time in it, no two infos of equal trajectories would be equal.
        self.seconds += time.perf_counter() - start
        self._show()
        return observation, float(sum(done.reward_terms.values())), terminated, truncated, info

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
            state=episode.pause(),
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
        with self.base.lm.guard.usual():
            return self._observe(), self._info()

    def fork(self) -> SleepEnv:
        """A second environment on the same model that goes on from here independently, without any wrappers.

        Where a window shows this one, the other is not shown: it has no render mode.

        Raises:
            gymnasium.error.ResetNeeded: There is no episode yet.
        """
        other = self._twin(self.snapshot())
        if self.render_mode == "human":
            # What a planner tries out would otherwise flicker through the window of what happens.
            other.render_mode = None
        return other

    def __copy__(self) -> SleepEnv:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> SleepEnv:
        """A second environment on the same model, as by :meth:`fork`, also before the first episode."""
        return self._twin(None if self._episode is None else self.snapshot())

    def _twin(self, snapshot: Snapshot | None) -> SleepEnv:
        other = object.__new__(type(self))
        other.__dict__.update(vars(self))
        other._window = None
        # Samples from one environment's spaces must not shift those from the other's.
        other.action_space, other.observation_space = deepcopy((self.action_space, self.observation_space))
        if snapshot is None:
            other._np_random = deepcopy(self._np_random)
        else:
            other._go_back_to(snapshot)
            other.error = self.error
        return other

    def __getstate__(self) -> dict[str, Any]:
        # A pickle holds no model: whoever unpickles it loads the model of the card, unless it is loaded there already.
        episode = None if self._episode is None else self.snapshot()
        return {**vars(self), "base": self.base.lm.fingerprint, "_episode": episode, "_window": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        error, snapshot, fingerprint = state["error"], state["_episode"], state["base"]
        self.__dict__.update({**state, "_episode": None})
        self.base = shared_base(self.card.model, self.card.edit)
        if self.base.lm.fingerprint != fingerprint:
            raise UnpicklingError(
                f"expected the model {self.card.model.name!r} with fingerprint {fingerprint[:12]}, as when the "
                f"environment was pickled, found {self.base.lm.fingerprint[:12]}; put those weights back"
            )
        if snapshot is not None:
            self._go_back_to(snapshot)
            self.error = error

    def _go_back_to(self, snapshot: Snapshot) -> None:
        self._episode = snapshot.episode(self.base, self.card, self._held_out)
        self.split, self.over, self.seconds = snapshot.split, snapshot.over, snapshot.seconds
        self.error = ""
        # Not through the property: it would forget the seed.
        self._np_random, self._np_random_seed = snapshot.generator(), snapshot.randomness.seed
        self._stream_seed = snapshot.randomness.stream

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``[6]``; on a card with parameters, see :meth:`Choices.flat_mask`."""
        return self.choices.flat_mask(self.episode.mask())

    def _text(self) -> str:
        # Here, because matplotlib takes long to load and training never renders.
        from sleepgym.env.render.text import text

        return text(self.episode)

    def _picture(self) -> NDArray[np.uint8]:
        from sleepgym.env.render.picture import figure, to_array

        return to_array(figure(self.episode.history, self.card.horizon))

    def _title(self) -> str:
        return self.card_id or "SleepLLM"

    def _observe(self) -> Observation:
        seen = self._observer(self.episode)
        if self.flat:
            # As gymnasium.spaces.flatten lays it out, which takes ten times as long.
            return np.concatenate((seen["ledger"].ravel(), seen["stats"]))  # type: ignore[return-value]
        return seen

    def _info(self, outcome: Outcome = NOTHING, reward_terms: Mapping[str, float] | None = None) -> dict[str, Any]:
        """What is known besides; see decision 11 for why it is always these keys, and these types."""
        episode, integer, real = self.episode, np.int64, np.float64
        terms = reward_terms or {term.name: 0.0 for term in episode.reward.terms}
        state, inbox = episode.state, episode.inbox
        return {
            "action_mask": self.choices.sample_mask(episode.mask()),
            # Arrays without axes: in vectors, Gymnasium keeps their dtype, but makes objects of np.bool_.
            "invalid_action": np.array(outcome.invalid, np.bool_),
            "error_code": integer(outcome.error_code),
            **{f"reward_{name}": real(term) for name, term in terms.items()},
            "recall": real(episode.recall()),
            "score": real(episode.score),
            "edits_used": integer(state.edits_used),
            "edits_left": integer(state.edits_left),
            "ppl_ratio": real(episode.examiner.whole_ratio() if self.over else episode.examiner.perplexity_ratio()),
            "tick": integer(state.tick),
            "sleeps": integer(state.sleeps),
            "naps": integer(state.naps),
            "arrived": integer(len(inbox.current)),
            "pending": integer(len(inbox.pending)),
            "lost": integer(inbox.lost),
            "degraded": integer(len(episode.degraded())),
            "rolled_back": np.array(outcome.night is not None and outcome.night.rolled_back, np.bool_),
            **(self._notes_info() if self.card.notes is not None else {}),
        }

    def _notes_info(self) -> dict[str, Any]:
        """What is known besides on a card with notes."""
        state, notes = self.episode.state, self.episode.notes
        return {
            "notes": np.int64(len(notes.told)),
            "archived": np.int64(len(notes.archived)),
            "look_ups": np.float64(notes.looked_up / state.asked if state.asked else 0.0),
            "tokens_read": np.float64(notes.tokens_read / state.asked if state.asked else 0.0),
        }
