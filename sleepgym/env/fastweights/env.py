"""FastWeightsEnv: the Gymnasium face of a life of windows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sleepgym.env.fastweights.card import FastWeightsCard, load_fast_card
from sleepgym.env.fastweights.features import observed, space
from sleepgym.env.fastweights.life import Life, Moment
from sleepgym.env.fastweights.snapshot import FastSnapshotError, Snapshot
from sleepgym.env.fastweights.stream import draw_stream
from sleepgym.env.options import known_options
from sleepgym.env.render.rendering import Rendering
from sleepgym.env.spaces import action_error
from sleepgym.episode.card import require_sections
from sleepgym.facts.world import Split, checked_split
from sleepgym.fastweights import Trained, load_model, shipped

Observation = NDArray[np.float32]


def model_path(file: str) -> Path:
    """Path of a model that a card names: of one that ships, or of any other."""
    path = shipped(file)
    return path if path.exists() else Path(file)


@cache
def shared_model(file: str, device: str) -> Trained:
    """The model of a card, loaded on first use; it is never written to, so that all environments share it."""
    trained = load_model(model_path(file))
    trained.model.to(device)
    return trained


class FastWeightsEnv(Rendering, gym.Env[Observation, Any]):
    """Decide how many passes a model makes over its context before it is gone, and when.

    ```python
    import gymnasium as gym

    env = gym.make("sleepgym:FastWeights-v0")
    observation, info = env.reset(seed=0)
    action = env.action_space.sample(info["action_mask"])
    observation, reward, terminated, truncated, info = env.step(action)
    ```

    Names such as `stream.documents` are keys of the environment's card, a TOML file with every number of it.

    ## Description

    A small causal model reads documents window by window. When a window's time is over, its tokens, keys and values
    are gone; what crosses to the next window is S, the state of its delta-rule layers. A pass over the window writes
    S, and further passes, which carry the residual stream and S on, work out more of what questions will need (offline
    recurrence: Lee et al. 2026, "Do Language Models Need Sleep?", arXiv 2605.26099). Questions are answered from S, in
    one pass. While it makes passes over its context, the model answers nobody.

    How deep the questions about a document go is hidden. On `FastWeights-v0` a document is a cycle of people of the
    task `hops`, half of it in each window. Who is next is known after one pass, who is two steps on after two, and who
    is three steps on hardly ever: [fast weights](../fastweights.md). Readers come in waves: passes cost less in quiet
    times, but until they are made, nothing can be answered. While the first window is there nothing is asked, since
    the cycle is not complete.

    What happens in a tick:

    1. The agent acts. The effect on S is there at once.
    2. For as many ticks as the action takes, questions are asked about the windows of the document that have come.
    3. After `stream.window_ticks` ticks the window is gone, and the next one comes. S is empty for a new document.

    ## Action Space

    `Discrete(4)` with a mask: `passes.choices` lists the passes of each action.

    | Num | Passes | Ticks | Allowed when |
    |-----|--------|-------|--------------|
    | 0   | 0      | 1, answering | always |
    | 1   | 1      | 1, offline   | the window stays so long, and had no more than `passes.most` with these |
    | 2   | 2      | 2, offline   | the same |
    | 3   | 4      | 4, offline   | the same |

    Passes over one window add up: 1 and then 2 leave the S that 3 would. An action that is not allowed changes
    nothing, is a tick of waiting, costs a penalty and sets `info["invalid_action"]`. The mask is in
    `info["action_mask"]` (int8) and `env.unwrapped.action_masks()` (bool).

    ## Observation Space

    A float32 `Box` of eight numbers in [0, 1], which are `FEATURES` in `sleepgym.env.fastweights.features`: norm of S,
    its change in the last pass, loss on public questions (`questions.public` of each document, whose answers are
    known), passes over the window, its place in the document, the time it has left, traffic, and progress.

    ## Rewards

    Per tick: traffic x the share of its questions that are answered correctly, and for an invalid action minus
    `reward.invalid`. The figure to report is `info["score"]` in [0, 1], the share of all questions so far that were
    answered correctly, with `info["slept"]` beside it.

    ## Info

    The same keys at every reset and step, with values of numpy whose types and shapes never change.

    | Key | Type | Meaning |
    |-----|------|---------|
    | `action_mask` | int8 `[4]` | which actions are allowed |
    | `invalid_action` | bool `[]` | whether the last action was not |
    | `score` | float64 | share of questions answered correctly so far |
    | `right` | float64 | share of the document's questions that would be answered correctly now: the truth |
    | `depth` | int64 | depth of the document's questions: the truth |
    | `passes`, `slept`, `tick` | int64 | passes over the window; ticks spent on passes; clock |

    ## Starting State

    The first window of the first document, an empty S, no passes. Depths of documents are drawn with equal
    probability, busy and quiet times have geometric lengths. Contents of the splits `train`, `validation` and `test`
    are disjoint. Equal seeds and equal actions give equal trajectories, bit for bit, on one machine.

    ## Episode End

    Truncation after `stream.documents` documents. There is no termination.

    ## Arguments

    `card` (id, path or a card that was read), `split` ("train", "validation" or "test"), `render_mode`, and any section
    of the card with keys to replace, such as `stream={"documents": 2}`.

    ## Rendering

    | Mode | `render()` |
    |------|------------|
    | `"rgb_array"` | a picture, uint8 `(480, 640, 3)`: traffic, passes, and what was answered, tick by tick |
    | `"human"` | nothing: the same picture in a window |
    | `"ansi"` | text: the same in four lines |
    | `None` | nothing |

    ## Snapshots

    `env.snapshot()` is a moment, `env.restore(moment)` goes back to it bit for bit, later episodes included, and
    `env.fork()` is a second environment that goes on from here. `moment.save(path)` writes JSON: where the stream
    comes from and what was done; `Snapshot.load(path, env.card, env.trained)` of `sleepgym.env.fastweights.snapshot`
    draws and does it again.

    ## Version History

    - v0: initial version.
    """

    metadata = {"render_modes": ["human", "rgb_array", "ansi"], "render_fps": 4}  # noqa: RUF012 (as gymnasium declares it)

    def __init__(
        self,
        card: str | Path | FastWeightsCard,
        split: Split = "train",
        render_mode: str | None = None,
        **overrides: Mapping[str, Any],
    ) -> None:
        """Reads the card and loads its model; see the class.

        Raises:
            ValueError: There is no such split or render mode.
            CardError: The card cannot be read, or a key is unknown, missing or has an impossible value.
            UnknownArgumentError: An argument is no section of a card; a CardError and a TypeError.
            CheckpointError: The model cannot be read.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"expected a render_mode in {self.metadata['render_modes']}, found {render_mode!r}")
        name = "card" if isinstance(card, FastWeightsCard) else Path(card).name
        require_sections(overrides, name, ("card", "split", "render_mode"), FastWeightsCard)
        self.card = load_fast_card(card, **overrides)
        self.split, self.render_mode = checked_split(split), render_mode
        self.trained = shared_model(self.card.model.file, self.card.model.device)
        self.action_space = gym.spaces.Discrete(len(self.card.passes.choices))
        self.observation_space: gym.spaces.Box = space()  # type: ignore[assignment]
        self.ready: Moment | None = None
        """The moment after the passes of the next action, where a vector has made them already."""
        self._life: Life | None = None
        self._origin: Mapping[str, Any] = {}

    @property
    def life(self) -> Life:
        """The present episode.

        Raises:
            gymnasium.error.ResetNeeded: There is none yet.
        """
        if self._life is None:
            raise gym.error.ResetNeeded("expected an episode, found none; call reset() first")
        return self._life

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Seed of everything random in it; left out, the episode follows from those before.
            options: ``{"split": ...}`` switches to documents of another split.

        Raises:
            ValueError: An option is not known, or there is no such split; the present episode goes on.
        """
        options = known_options(options, {"split"})
        split = checked_split(options.get("split", self.split))
        super().reset(seed=seed)
        self.split, self.ready = split, None
        self._origin = self.np_random.bit_generator.state
        stream = draw_stream(self.card, self.trained.task, split, self.np_random)
        self._life = Life(self.card, self.trained.model, stream)
        self._show()
        return observed(self.life), self._info(False)

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Performs an action; see the class.

        Raises:
            ActionError: It is not in the action space; nothing has happened.
            gymnasium.error.ResetNeeded: No episode is running.
        """
        self.check(action)
        if self.life.over:
            raise gym.error.ResetNeeded("expected a running episode, found one that has ended; call reset() first")
        ready, self.ready = self.ready, None
        reward, invalid = self.life.step(int(action), ready)
        self._show()
        return observed(self.life), reward, False, self.life.over, self._info(invalid)

    def check(self, action: Any) -> None:
        """Raises an ActionError unless the action is in the action space."""
        try:
            known = self.action_space.contains(np.asarray(action)[()])
        except (ValueError, TypeError, OverflowError):
            known = False
        if not known:
            raise action_error(f"expected an action in {self.action_space}", action)

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are allowed now, ``[actions]``."""
        return self.life.mask()

    def snapshot(self) -> Snapshot:
        """This moment, to be restored later, here or in another environment with this card."""
        life = self.life
        return Snapshot(self.card, life.stream, self._origin, life.now, deepcopy(self.np_random), self.split)

    def restore(self, snapshot: Snapshot) -> tuple[Observation, dict[str, Any]]:
        """Goes back to a moment, and on from there bit for bit, later episodes included.

        Returns:
            What that moment looks like, as after :meth:`reset`.

        Raises:
            FastSnapshotError: The snapshot is of another card; the environment is as it was.
        """
        if snapshot.card != self.card:
            raise FastSnapshotError("expected a snapshot of an environment with this card, found one of another card")
        self._life = Life(self.card, self.trained.model, snapshot.stream)
        self._life.now, self._origin = snapshot.moment, snapshot.origin
        self.split, self.ready = snapshot.split, None
        # Not through the property: it would forget the seed.
        self._np_random = deepcopy(snapshot.generator)
        return observed(self.life), self._info(False)

    def fork(self) -> FastWeightsEnv:
        """A second environment on the same model that goes on from here independently, without any wrappers."""
        other = FastWeightsEnv(self.card, self.split, None if self.render_mode == "human" else self.render_mode)
        other.spec = deepcopy(self.spec)
        other.restore(self.snapshot())
        return other

    def __getstate__(self) -> dict[str, Any]:
        # A pickle holds no model: whoever unpickles it loads the model of the card.
        moment = None if self._life is None else self.snapshot()
        return {**vars(self), "trained": None, "_life": None, "_window": None, "moment": moment}

    def __setstate__(self, state: dict[str, Any]) -> None:
        moment = state.pop("moment")
        self.__dict__.update(state)
        self.trained = shared_model(self.card.model.file, self.card.model.device)
        if moment is not None:
            self.restore(moment)

    def _text(self) -> str:
        # Here, because matplotlib takes long to load and training never renders.
        from sleepgym.env.fastweights.pictures import text

        return text(self.life)

    def _picture(self) -> NDArray[np.uint8]:
        from sleepgym.env.fastweights.pictures import picture

        return picture(self.life)

    def _title(self) -> str:
        return "FastWeights"

    def _info(self, invalid: bool) -> dict[str, Any]:
        life, integer, real = self.life, np.int64, np.float64
        return {
            "action_mask": life.mask().astype(np.int8),
            # An array without axes: in vectors, Gymnasium keeps its dtype, but makes objects of np.bool_.
            "invalid_action": np.array(invalid, np.bool_),
            "score": real(life.score),
            "right": real(life.now.right.mean()),
            "depth": integer(life.stream.depth(life.tick)),
            "passes": integer(life.now.digested.passes),
            "slept": integer(life.slept),
            "tick": integer(life.tick),
        }
