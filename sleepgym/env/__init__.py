"""The Gymnasium faces of an episode: spaces, observation, environments, wrappers, rendering.

Names are imported on first use: registering the ids must not load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym.lazily import on_first_use

if TYPE_CHECKING:
    from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES, column, stat
    from sleepgym.env.sleep_env import SleepEnv
    from sleepgym.env.vector import SleepVectorEnv, act_together
    from sleepgym.env.wrappers import ActionMask, FlattenLedger, PadLedger, RecordSleepStatistics, RLlibActionMask
    from sleepgym.episode.actions import Action

_EXPORTS = {
    "LEDGER_FEATURES": "sleepgym.env.observation",
    "STATS_FEATURES": "sleepgym.env.observation",
    "Action": "sleepgym.episode.actions",
    "ActionMask": "sleepgym.env.wrappers",
    "FlattenLedger": "sleepgym.env.wrappers",
    "PadLedger": "sleepgym.env.wrappers",
    "RLlibActionMask": "sleepgym.env.wrappers",
    "RecordSleepStatistics": "sleepgym.env.wrappers",
    "SleepEnv": "sleepgym.env.sleep_env",
    "SleepVectorEnv": "sleepgym.env.vector",
    "act_together": "sleepgym.env.vector",
    "column": "sleepgym.env.observation",
    "stat": "sleepgym.env.observation",
}

__all__ = [
    "LEDGER_FEATURES",
    "STATS_FEATURES",
    "Action",
    "ActionMask",
    "FlattenLedger",
    "PadLedger",
    "RLlibActionMask",
    "RecordSleepStatistics",
    "SleepEnv",
    "SleepVectorEnv",
    "act_together",
    "column",
    "stat",
]


__getattr__ = on_first_use(__name__, _EXPORTS)
