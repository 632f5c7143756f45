"""SimLookAhead: plans in the sim for a real episode. It knows the episode's stream, and so is a reference only."""

from __future__ import annotations

from dataclasses import dataclass, field

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import OPERATORS, Choice, Operator
from sleepgym.schedulers.base import Mask, Observation, Scheduler
from sleepgym.schedulers.sim_planner import SimPlanner, SimPlanning
from sleepgym.sim.response import Response
from sleepgym.sim.shadow import Shadow


@dataclass
class SimLookAhead(Scheduler):
    """Acts in a real environment as a :class:`SimPlanner` would from there on.

    As :class:`LookAhead` it knows the true stream and the truth about the model at present, but what the model will
    answer is simulated: hundreds of futures cost less than one on the real model. Its score is a real one.

    Attributes:
        env: Environment that it acts in, which is never changed.
        planner: Rule and numbers.
        response: What stands in for the model.

    Raises:
        ShadowError: The environment is asked about other steps than all of an episode, one after the other.
    """

    env: SleepEnv
    planner: SimPlanner
    response: Response
    _shadow: Shadow | None = field(default=None, init=False, repr=False, compare=False)
    _planning: SimPlanning | None = field(default=None, init=False, repr=False, compare=False)
    _last: Choice | None = field(default=None, init=False, repr=False, compare=False)

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        if self._planning is None or self._shadow is None or self._last is None or self.env.episode.tick == 0:
            self._shadow = Shadow(self.env, self.response)
            self._planning = self.planner.on(self._shadow)
        else:
            self._shadow.follow(self._last)
        batch = {name: part[None] for name, part in observation.items()}
        chosen = OPERATORS[int(self._planning.predict(batch, action_masks=mask[None])[0][0])]
        self._last = self.env.choices.of(self.env.choices.usual(chosen))
        return chosen
