"""Shadow of a real episode: the mechanics on measured answers, so that branches of the present can be simulated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action, Choice, Operator
from sleepgym.errors import SleepGymError
from sleepgym.sim.dice import keys_of
from sleepgym.sim.episodes import Choices, Episodes
from sleepgym.sim.measured import Measured
from sleepgym.sim.recorder import answers_of
from sleepgym.sim.response import Response
from sleepgym.sim.setting import Setting
from sleepgym.sim.snapshot import Snapshot
from sleepgym.sim.streams import facts_in_order, streams_of


class ShadowError(SleepGymError, RuntimeError):
    """A shadow has lost the episode that it follows."""


class Shadow:
    """Follows a real episode from its beginning, and knows its stream and the truth about its model.

    It loses an episode of a card with notes whose nights refresh (``sleep.refresh``): what a night solves again after
    it has taught what notes tell depends on answers in between, which are not measured.

    Args:
        env: The real environment, just reset; it is never changed.
        response: What stands in for the model in branches.

    Attributes:
        setting: Numbers of the card.
        response: What stands in for the model in branches.

    Raises:
        ShadowError: The episode has begun already.
    """

    def __init__(self, env: SleepEnv, response: Response) -> None:
        if env.episode.tick:
            raise ShadowError(f"expected an episode at its beginning, found tick {env.episode.tick}; reset it first")
        self.env, self.response = env, response
        self.setting = Setting.of(env.card)
        self._keys = facts_in_order(env.episode.stream)
        self._version = env.episode.learner.state.memory.version
        self._measured = Measured(self._answers())
        seed = keys_of(np.zeros(1, np.uint64))
        readings = [env.episode.readings] if env.card.notes is not None else []
        streams = streams_of(env.card, [env.episode.stream], readings)
        self._episodes = Episodes(self.setting, self._measured, streams, seed)

    def follow(self, choice: Choice) -> None:
        """Takes the step that the real episode has taken last.

        Args:
            choice: The action.

        Raises:
            ShadowError: The real episode has taken another one.
        """
        state, clock = self.env.episode.state, self._episodes.state.clock
        happened: dict[Operator, bool] = {
            Action.WAIT: True,
            Action.INJECT: state.edits_used > clock.edits_used[0],
            Action.REFRESH: state.edits_used > clock.edits_used[0],
            Action.NAP: state.naps > clock.naps[0],
            Action.SLEEP: state.sleeps > clock.sleeps[0],
            Action.PRUNE: len(state.learner.ledger) < self._episodes.state.ledger.fill[0],
        }
        # What concerns notes alone never fails.
        has_happened = happened.get(choice.action, bool(self._episodes.masks[0, choice.action]))
        # Equal versions of a memory give equal answers, and most actions leave it alone.
        if state.learner.memory.version != self._version:
            self._version, self._measured.answers = state.learner.memory.version, self._answers()
        self._measured.undone = has_happened and state.learner.nights == clock.nights[0]
        allowed = np.full((1, len(self.setting.card.operators)), has_happened)
        taken = (np.array([number], np.int32) for number in (choice.action, choice.facts, choice.ticks))
        self._episodes.step(Choices(*taken), np.zeros(1, bool), allowed)
        found = (state.tick, state.edits_used, len(state.learner.ledger))
        own = (int(clock.tick[0]), int(clock.edits_used[0]), int(self._episodes.state.ledger.fill[0]))
        if found != own:
            raise ShadowError(
                f"expected an episode that has taken {choice.action.name}, at tick {own[0]} with {own[1]} edits spent "
                f"and {own[2]} facts written, found {found}; plan for every step of it, from its reset on"
            )

    def snapshot(self) -> Snapshot:
        """Returns this moment."""
        one = np.zeros(1, np.int64)
        streams, state = self._episodes.streams.copy(), self._episodes.state.copy()
        return Snapshot(streams, state, keys_of(np.zeros(1, np.uint64)), one, np.array([self.env.over]))

    def _answers(self) -> dict[str, NDArray[np.float64]]:
        return answers_of(self.env.episode, self.env.card, self._keys)
