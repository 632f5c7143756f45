"""Adaptive schedulers, which react to sleep pressure, audits, traffic or the edit budget."""

from __future__ import annotations

from dataclasses import dataclass

from sleepgym.env.observation import stat
from sleepgym.episode.actions import Action, Operator
from sleepgym.schedulers.base import (
    ROUNDING,
    Mask,
    Observation,
    Scheduler,
    check_days,
    days_passed,
    first_allowed,
    is_rich,
    keep_up,
)


@dataclass(frozen=True)
class PressureRule(Scheduler):
    """Naps and sleeps when sleep pressure exceeds thresholds.

    Source: the rule of the "Sleeping LLM" papers. Pressure that builds up awake and is relieved by sleep is process S
    of the two-process model (Borbely 1982, "A two process model of sleep regulation").

    Attributes:
        nap_at: Pressure from which it naps; pressure is at most 1, so that 2 disables naps.
        sleep_at: Pressure from which it sleeps; above 1, it sleeps by night alone, if at all.
        nap_days: Minimum number of days between audits, at most 2; naps do not lower pressure.
        night_relief: Reduction of both thresholds at night, when few questions are missed.

    Raises:
        ValueError: A field is out of range.
    """

    nap_at: float = 2.0
    sleep_at: float = 1.05
    nap_days: float = 0.5
    night_relief: float = 0.45

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Operator:
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
    """Naps at fixed intervals, and sleeps when audits have found a large share of the facts degraded.

    The threshold is a share and not a count, so that it does not depend on how many facts are written. It never prunes,
    and leaves refreshing to nights.

    Source: of this project. To act on what is measured, not on a timetable, is condition-based maintenance (Jardine et
    al. 2006, "A review on machinery diagnostics and prognostics implementing condition-based maintenance").

    Attributes:
        degraded_at: Number of known degraded facts from which it sleeps, as a share of the written ones.
        nap_days: Days between audits, at most 2.

    Raises:
        ValueError: A field is out of range.
    """

    degraded_at: float = 0.7
    nap_days: float = 2.0

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Operator:
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
    """Sleeps when traffic is low and the load of edits is high enough.

    Source: of this project. It uses a maintenance window, as servers do that are serviced while traffic is low.

    Attributes:
        traffic_at: Traffic relative to its peak up to which it sleeps.
        load_at: Load (sum of the scales of all edits relative to the ledger's capacity) from which it sleeps.
        anyway_at: Load from which it sleeps at any traffic.
    """

    traffic_at: float = 0.2
    load_at: float = 0.35
    anyway_at: float = 1.2

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        load, quiet = stat(observation, "load"), stat(observation, "traffic") <= self.traffic_at + ROUNDING
        if mask[Action.SLEEP] and (load >= self.anyway_at or (quiet and load >= self.load_at)):
            return Action.SLEEP
        return keep_up(observation, mask)


@dataclass(frozen=True)
class BudgetAware(Scheduler):
    """Sleeps as :class:`NightOwl`, and naps and refreshes by day while the budget left exceeds a reserve.

    Source: of this project. The budget left is compared with even spending, as in the budget pacing of advertisements
    (Agarwal et al. 2014, "Budget pacing for targeted online advertisements at LinkedIn").

    Attributes:
        traffic_at: Traffic relative to its peak up to which it sleeps.
        load_at: Load (sum of the scales of all edits relative to the ledger's capacity) from which it sleeps.
        nap_days: Days between audits, at most 2.
        reserve: Edits kept for arrivals, as a multiple of the budget that even spending would have left.

    Raises:
        ValueError: A field is out of range.
    """

    traffic_at: float = 0.2
    load_at: float = 0.4
    nap_days: float = 2.0
    reserve: float = 1.1

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        quiet = stat(observation, "traffic") <= self.traffic_at + ROUNDING
        if mask[Action.SLEEP] and quiet and stat(observation, "load") >= self.load_at:
            return Action.SLEEP
        rich = is_rich(observation, self.reserve)
        busy = keep_up(observation, mask)
        if busy == Action.REFRESH and not rich:
            return Action.WAIT
        if busy == Action.WAIT and rich and not quiet and days_passed(observation, "since_audit", self.nap_days):
            return first_allowed(mask, Action.NAP)
        return busy
