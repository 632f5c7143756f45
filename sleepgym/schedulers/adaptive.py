"""Schedulers that adapt: to sleep pressure, to what audits find, to the traffic, to the budget."""

from __future__ import annotations

from dataclasses import dataclass

from sleepgym.env.observation import stat
from sleepgym.episode.actions import Action
from sleepgym.schedulers.base import Mask, Observation, Scheduler, check_days, days_passed, first_allowed, keep_up


@dataclass(frozen=True)
class PressureRule(Scheduler):
    """Naps when sleep pressure is noticeable and sleeps when it is high.

    Source: the rule of the "Sleeping LLM" papers. Pressure that builds up awake and is relieved by sleep is process S
    of the two-process model (Borbely 1982, "A two process model of sleep regulation").

    Attributes:
        nap_at: Pressure from which it naps; pressure is at most 1, so that with 2 it never does.
        sleep_at: Pressure from which it sleeps.
        nap_days: Days between audits at least, at most 2; pressure does not fall by napping.
        night_relief: How much lower both thresholds are at night, when few questions are missed.

    Raises:
        ValueError: A number is out of range.
    """

    nap_at: float = 2.0
    sleep_at: float = 0.6
    nap_days: float = 0.5
    night_relief: float = 0.3

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        pressure = stat(observation, "pressure") + self.night_relief * stat(observation, "night")
        if mask[Action.SLEEP] and pressure >= self.sleep_at:
            return Action.SLEEP
        busy = keep_up(observation, mask)
        if busy == Action.WAIT and pressure >= self.nap_at and days_passed(observation, "since_audit", self.nap_days):
            return first_allowed(mask, Action.NAP)
        return busy


@dataclass(frozen=True)
class Drowsiness(Scheduler):
    """Naps regularly, and sleeps when audits have found a large share of the facts degraded; it never prunes.

    A share and not a count, so that it means the same however many facts are written. Nor does it refresh: nights do.

    Source: of this project. To act on what is measured, not on a timetable, is condition-based maintenance (Jardine et
    al. 2006, "A review on machinery diagnostics and prognostics implementing condition-based maintenance").

    Attributes:
        degraded_at: Known degraded facts, as a share of the written ones, from which it sleeps.
        nap_days: Days between audits, at most 2.

    Raises:
        ValueError: A number is out of range.
    """

    degraded_at: float = 0.15
    nap_days: float = 0.5

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        degraded, written = stat(observation, "degraded"), stat(observation, "ledger_fill")
        if mask[Action.SLEEP] and degraded > 0 and degraded >= self.degraded_at * written:
            return Action.SLEEP
        busy = first_allowed(mask, Action.INJECT)
        if busy == Action.WAIT and days_passed(observation, "since_audit", self.nap_days):
            return first_allowed(mask, Action.NAP)
        return busy


@dataclass(frozen=True)
class NightOwl(Scheduler):
    """Sleeps when few questions are asked and enough new edits are worth it.

    Source: of this project. It keeps to a maintenance window, as servers do that are serviced while traffic is low.

    Attributes:
        traffic_at: Traffic, relative to its peak, up to which it sleeps.
        load_at: Sum of the scales of all edits, relative to the ledger's capacity, from which it sleeps.
        anyway_at: Load from which it does not wait for the traffic to fall.
    """

    traffic_at: float = 0.15
    load_at: float = 0.12
    anyway_at: float = 1.0

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        load, quiet = stat(observation, "load"), stat(observation, "traffic") <= self.traffic_at + 1e-4
        if mask[Action.SLEEP] and (load >= self.anyway_at or (quiet and load >= self.load_at)):
            return Action.SLEEP
        return keep_up(observation, mask)


@dataclass(frozen=True)
class BudgetAware(Scheduler):
    """A night owl that naps and refreshes by day, as long as edits are left for what may still arrive.

    Source: of this project. What is left is compared with even spending, as in the budget pacing of advertisements
    (Agarwal et al. 2014, "Budget pacing for targeted online advertisements at LinkedIn").

    Attributes:
        traffic_at: Traffic, relative to its peak, up to which it sleeps.
        load_at: Sum of the scales of all edits, relative to the ledger's capacity, from which it sleeps.
        nap_days: Days between audits, at most 2.
        reserve: Edits kept for arrivals, in units of those that an even spending would have left.

    Raises:
        ValueError: A number is out of range.
    """

    traffic_at: float = 0.15
    load_at: float = 0.12
    nap_days: float = 1.0
    reserve: float = 1.1

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        quiet = stat(observation, "traffic") <= self.traffic_at + 1e-4
        if mask[Action.SLEEP] and quiet and stat(observation, "load") >= self.load_at:
            return Action.SLEEP
        rich = stat(observation, "budget_left") > self.reserve * (1 - stat(observation, "progress"))
        busy = keep_up(observation, mask)
        if busy == Action.REFRESH and not rich:
            return Action.WAIT
        if busy == Action.WAIT and rich and not quiet and days_passed(observation, "since_audit", self.nap_days):
            return first_allowed(mask, Action.NAP)
        return busy
