"""Non-adaptive schedulers: at random, never sleeping, always sleeping, and at fixed intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sleepgym.episode.actions import OPERATORS, Action, Operator
from sleepgym.schedulers.base import Mask, Observation, Scheduler, check_days, days_passed, first_allowed, keep_up


@dataclass
class RandomScheduler(Scheduler):
    """Draws uniformly from the allowed actions.

    Source: the usual lower reference, as random play is for Atari (Mnih et al. 2015, "Human-level control through deep
    reinforcement learning").

    Attributes:
        seed: Seed of its draws; named ``random``, it uses each episode's seed.
    """

    seed: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        return OPERATORS[int(self._rng.choice(np.flatnonzero(mask)))]


@dataclass(frozen=True)
class NeverSleep(Scheduler):
    """Writes pending facts and never sleeps.

    Source: the usual lower reference, without sleep. Its normalised score is 0.

    Attributes:
        nap_days: Days between naps, at most 2, after which it refreshes degraded facts; None for no naps.

    Raises:
        ValueError: A field is out of range.
    """

    nap_days: float | None = None

    def __post_init__(self) -> None:
        if self.nap_days is not None:
            check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        busy = keep_up(observation, mask)
        if busy == Action.WAIT and self.nap_days is not None and days_passed(observation, "since_audit", self.nap_days):
            return first_allowed(mask, Action.NAP)
        return busy


@dataclass(frozen=True)
class AlwaysSleep(Scheduler):
    """Sleeps whenever no fact is pending; it never prunes, so that a full ledger stays full.

    Source: the opposite reference to never sleeping, which ignores the cost of sleep.
    """

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        return first_allowed(mask, Action.INJECT, Action.SLEEP)


@dataclass(frozen=True)
class FixedPeriod(Scheduler):
    """Sleeps at fixed intervals.

    Source: periodic schedules, as of cron jobs.

    Attributes:
        days: Days between the end of a night and the beginning of the next, at most 2.

    Raises:
        ValueError: A field is out of range.
    """

    days: float = 1.75

    def __post_init__(self) -> None:
        check_days("days", self.days)

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        if mask[Action.SLEEP] and days_passed(observation, "since_sleep", self.days):
            return Action.SLEEP
        return keep_up(observation, mask)
