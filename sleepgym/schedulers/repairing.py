"""Schedulers that audit and refresh as a person would who looks after what others rely on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sleepgym.env.observation import column, stat
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
    prune_if_crowded,
)


@dataclass(frozen=True)
class Rounds(Scheduler):
    """Makes rounds: audits at intervals in quiet moments, refreshes at once what the round finds, and sleeps by night.

    Source: of this project. Rounds at fixed intervals that lead to repairs are preventive maintenance by inspection
    (Barlow and Proschan 1965, "Mathematical theory of reliability").

    Attributes:
        nap_days: Days between audits, at most 2.
        nap_traffic: Traffic relative to its peak up to which it audits.
        reserve: Edits kept for arrivals when it refreshes, as a multiple of the budget that even spending would have
            left.
        traffic_at: Traffic up to which it sleeps.
        load_at: Load (sum of the scales of all edits relative to the ledger's capacity) from which it sleeps.

    Raises:
        ValueError: A field is out of range.
    """

    nap_days: float = 0.5
    nap_traffic: float = 0.3
    reserve: float = 0.3
    traffic_at: float = 0.3
    load_at: float = 0.55

    def __post_init__(self) -> None:
        check_days("nap_days", self.nap_days)

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        traffic = stat(observation, "traffic") - ROUNDING
        if mask[Action.SLEEP] and traffic <= self.traffic_at and stat(observation, "load") >= self.load_at:
            return Action.SLEEP
        if mask[Action.REFRESH] and is_rich(observation, self.reserve):
            return Action.REFRESH
        busy = first_allowed(mask, *prune_if_crowded(observation), Action.INJECT)
        is_due = traffic <= self.nap_traffic and days_passed(observation, "since_audit", self.nap_days)
        return first_allowed(mask, Action.NAP) if busy == Action.WAIT and is_due else busy


@dataclass(frozen=True)
class Mender(Scheduler):
    """Audits once enough edits are new, refreshes while that is affordable, and sleeps where repairs are not enough.

    It looks after edits as long as it can, and goes to sleep in quiet moments only if the ledger fills or so many facts
    are known to be degraded that refreshing them one batch after the other would take too long.

    Source: of this project. To repair at once what is cheap and to overhaul once the repairs add up is the repair-limit
    policy (Hastings 1969, "The repair limit replacement method").

    Attributes:
        unseen_at: Facts that were not audited since they were written, as a share of the ledger's capacity, from which
            it audits.
        degraded_at: Known degraded facts, as a share of the written ones, from which it sleeps instead of refreshing.
        fill_at: Share of the ledger's capacity from which it sleeps.
        traffic_at: Traffic relative to its peak up to which it sleeps.
        reserve: Edits kept for arrivals when it refreshes, as a multiple of the budget that even spending would have
            left.
    """

    unseen_at: float = 0.5
    degraded_at: float = 0.5
    fill_at: float = 0.8
    traffic_at: float = 0.3
    reserve: float = 0.3

    def act(self, observation: Observation, mask: Mask) -> Operator:
        """See :meth:`Scheduler.act`."""
        fill, degraded = stat(observation, "ledger_fill"), stat(observation, "degraded")
        quiet = stat(observation, "traffic") <= self.traffic_at + ROUNDING
        is_worn = degraded > self.degraded_at * fill
        is_new = stat(observation, "load") > 0
        if mask[Action.SLEEP] and quiet and is_new and (fill >= self.fill_at or is_worn):
            return Action.SLEEP
        if mask[Action.REFRESH] and is_rich(observation, self.reserve):
            return Action.REFRESH
        busy = first_allowed(mask, *prune_if_crowded(observation), Action.INJECT)
        is_due = unseen(observation) >= self.unseen_at
        return first_allowed(mask, Action.NAP) if busy == Action.WAIT and is_due else busy


def unseen(observation: Observation) -> float:
    """Returns the facts that were not audited since they were written, as a share of the ledger's capacity."""
    fill = stat(observation, "ledger_fill")
    written = column(observation, "present") * (1 - column(observation, "pending")) > 0
    count = np.count_nonzero(written)
    return fill * np.count_nonzero(written & (column(observation, "audited") == 0)) / count if count else 0.0
