"""SleepSim: the environment of a card without its model, whose answers a fitted response model gives instead.

Names are imported on first use: registering the ids must not load what a sim needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym.lazily import on_first_use

if TYPE_CHECKING:
    from sleepgym.sim.env import SimEnv
    from sleepgym.sim.fit import FitError, fit_response
    from sleepgym.sim.fit_files import load_fit, save_fit
    from sleepgym.sim.recorder import Record, record_episode
    from sleepgym.sim.response import Response
    from sleepgym.sim.vector import SimVectorEnv

_EXPORTS = {
    "FitError": "sleepgym.sim.fit",
    "Record": "sleepgym.sim.recorder",
    "Response": "sleepgym.sim.response",
    "SimEnv": "sleepgym.sim.env",
    "SimVectorEnv": "sleepgym.sim.vector",
    "fit_response": "sleepgym.sim.fit",
    "load_fit": "sleepgym.sim.fit_files",
    "record_episode": "sleepgym.sim.recorder",
    "save_fit": "sleepgym.sim.fit_files",
}

__all__ = [
    "FitError",
    "Record",
    "Response",
    "SimEnv",
    "SimVectorEnv",
    "fit_response",
    "load_fit",
    "record_episode",
    "save_fit",
]


__getattr__ = on_first_use(__name__, _EXPORTS)
