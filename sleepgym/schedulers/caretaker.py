"""Caretaker: a rule with a threshold for everything, which is found by search in the sim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import SINCE_DAYS, stats_column
from sleepgym.episode.actions import Action
from sleepgym.schedulers.base import ROUNDING, Mask, Observation, Scheduler, is_rich


@dataclass(frozen=True)
class Caretaker(Scheduler):
    """Sleeps in quiet hours, writes in batches, audits by day, and refreshes what audits find, as the budget allows.

    In this order: it sleeps, prunes, writes, refreshes, or naps, whichever its thresholds ask for first; else it waits.

    Source: of this project. Its thresholds are found by :func:`sleepgym.evaluation.search.search_rule`.

    Attributes:
        sleep_traffic: Traffic relative to its peak up to which it sleeps.
        sleep_load: Load (sum of the scales of all edits relative to the ledger's capacity) from which it sleeps then.
        anyway_load: Load from which it sleeps at any traffic.
        prune_fill: Share of the ledger's capacity above which it prunes.
        inject_pending: Share of the inbox from which it writes.
        refresh_share: Known degraded facts, as a share of the written ones, from which it refreshes.
        refresh_reserve: Edits kept for arrivals when it refreshes, as a multiple of the budget that even spending would
            have left.
        nap_days: Days between audits, at most 2.
        nap_load: Load from which it naps.
        nap_traffic: Traffic up to which it naps.
        nap_reserve: Edits kept for arrivals when it naps, as ``refresh_reserve``.

    Raises:
        ValueError: A field is out of range.
    """

    sleep_traffic: float = 0.296
    sleep_load: float = 0.39
    anyway_load: float = 1.808
    prune_fill: float = 0.624
    inject_pending: float = 0.214
    refresh_share: float = 0.004
    refresh_reserve: float = 0.0
    nap_days: float = 0.0
    nap_load: float = 0.416
    nap_traffic: float = 0.314
    nap_reserve: float = 1.731

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = RANGES[field.name]
            value = getattr(self, field.name)
            if not low <= value <= high:
                raise ValueError(f"expected {field.name} in {low:g}..{high:g}, found {value}")

    def act(self, observation: Observation, mask: Mask) -> Action:
        """See :meth:`Scheduler.act`."""
        batch = {name: part[None] for name, part in observation.items()}
        return Action(int(decisions(vars(self), batch, mask[None])[0]))

    def choose(self, observation: Observation, masks: NDArray[np.bool_]) -> NDArray[np.int64]:
        """See :meth:`Scheduler.choose`."""
        return decisions(vars(self), observation, masks)


RANGES: Mapping[str, tuple[float, float]] = {
    "sleep_traffic": (0.0, 1.0),
    "sleep_load": (0.0, 1.0),
    "anyway_load": (0.0, 2.0),
    "prune_fill": (0.0, 1.0),
    "inject_pending": (0.0, 1.0),
    "refresh_share": (0.0, 1.0),
    "refresh_reserve": (0.0, 2.0),
    "nap_days": (0.0, float(SINCE_DAYS)),
    "nap_load": (0.0, 1.0),
    "nap_traffic": (0.0, 1.0),
    "nap_reserve": (0.0, 2.0),
}
"""Lowest and highest value of each threshold of a :class:`Caretaker`."""


def decisions(thresholds: Mapping[str, Any], observation: Observation, masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns what caretakers do, ``[rows]``.

    Args:
        thresholds: Of each name in :data:`RANGES` a number for all rows, or one per row, ``[rows]``.
        observation: Observations of all rows.
        masks: Allowed operators, ``[rows, actions]``.
    """

    def stat(name: str) -> NDArray[np.float32]:
        return stats_column(observation, name)

    load, traffic, t = stat("load"), stat("traffic") - ROUNDING, thresholds
    wanted = {
        Action.SLEEP: ((traffic <= t["sleep_traffic"]) & (load >= t["sleep_load"])) | (load >= t["anyway_load"]),
        Action.PRUNE: stat("ledger_fill") > t["prune_fill"],
        Action.INJECT: stat("pending") >= t["inject_pending"],
        Action.REFRESH: is_rich(observation, t["refresh_reserve"])
        & (stat("degraded") >= t["refresh_share"] * stat("ledger_fill")),
        Action.NAP: is_rich(observation, t["nap_reserve"])
        & (load >= t["nap_load"])
        & (traffic <= t["nap_traffic"])
        & (stat("since_audit") * SINCE_DAYS >= t["nap_days"] - ROUNDING),
    }
    chosen = np.full(len(masks), int(Action.WAIT), np.int64)
    # From the last to the first, so that the first that is wanted and allowed stays.
    for action in reversed(wanted):
        chosen[wanted[action] & masks[:, action]] = action
    return chosen
