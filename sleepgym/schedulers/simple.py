"""Schedulers that do not look at how the model is doing: chance, never, always, and by the clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sleepgym.episode.actions import Action
from sleepgym.schedulers.base import Mask, Observation, Scheduler, check_days, days_passed, first_allowed, keep_up


@dataclass
class RandomScheduler(Scheduler):
    """Draws evenly from the allowed actions.

    Source: the usual lower reference, as random play is for Atari (Mnih et al. 2015, "Human-level control through deep
    reinforcement learning").

    Attributes:
        seed: Of its draws; called by its name, it takes each episode's.
    """

    seed: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        return Action(int(self._rng.choice(np.flatnonzero(mask))))


@dataclass(frozen=True)
class NeverSleep(Scheduler):
    """Writes what waits and never sleeps.

    Source: the usual lower reference, what there is without sleep. Normalised scores call it 0.

    Attributes:
        nap_days: Days between naps, after which it refreshes what they find, at most 2; None for no naps.

    Raises:
        ValueError: A number is out of range.
    """

    nap_days: float | None = None

    def __post_init__(self) -> None:
        if self.nap_days is not None:
            check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        busy = keep_up(observation, mask)
        if busy == Action.WAIT and self.nap_days is not None and days_passed(observation, "since_audit", self.nap_days):
            return first_allowed(mask, Action.NAP)
        return busy


@dataclass(frozen=True)
class AlwaysSleep(Scheduler):
    """Sleeps whenever nothing waits to be written; it never prunes, so that a full ledger stays full.

    Source: the usual reference at the other end, sleep without any thought of its price.
    """

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        return first_allowed(mask, Action.INJECT, Action.SLEEP)


@dataclass(frozen=True)
class FixedPeriod(Scheduler):
    """Sleeps at fixed intervals, whatever the day brings.

    Source: a timetable, as cron runs jobs.

    Attributes:
        days: Days between the end of a night and the beginning of the next, at most 2.

    Raises:
        ValueError: A number is out of range.
    """

    days: float = 0.75

    def __post_init__(self) -> None:
        check_days("days", self.days)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        if mask[Action.SLEEP] and days_passed(observation, "since_sleep", self.days):
            return Action.SLEEP
        return keep_up(observation, mask)
