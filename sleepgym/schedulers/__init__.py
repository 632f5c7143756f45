"""Hand-written schedulers, the baselines of learned ones.

Names are imported on first use: rules need no torch, and planners on the real model do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym.lazily import on_first_use

if TYPE_CHECKING:
    from sleepgym.schedulers.adaptive import BudgetAware, Drowsiness, NightOwl, PressureRule
    from sleepgym.schedulers.base import Scheduler, allowed, keep_up
    from sleepgym.schedulers.caretaker import Caretaker
    from sleepgym.schedulers.look_ahead import LookAhead
    from sleepgym.schedulers.named import SchedulerMaker, SchedulerNameError, known_schedulers, scheduler_named
    from sleepgym.schedulers.noting import NoteFirst, NotesOnly, PopularFirst
    from sleepgym.schedulers.own import FunctionScheduler, Predictor, SchedulerTypeError, as_scheduler
    from sleepgym.schedulers.repairing import Mender, Rounds
    from sleepgym.schedulers.sim_look_ahead import SimLookAhead
    from sleepgym.schedulers.sim_planner import SimPlanner
    from sleepgym.schedulers.simple import AlwaysSleep, FixedPeriod, NeverSleep, RandomScheduler

_EXPORTS = {
    "AlwaysSleep": "sleepgym.schedulers.simple",
    "BudgetAware": "sleepgym.schedulers.adaptive",
    "Caretaker": "sleepgym.schedulers.caretaker",
    "Drowsiness": "sleepgym.schedulers.adaptive",
    "FixedPeriod": "sleepgym.schedulers.simple",
    "FunctionScheduler": "sleepgym.schedulers.own",
    "LookAhead": "sleepgym.schedulers.look_ahead",
    "Mender": "sleepgym.schedulers.repairing",
    "NeverSleep": "sleepgym.schedulers.simple",
    "NightOwl": "sleepgym.schedulers.adaptive",
    "NoteFirst": "sleepgym.schedulers.noting",
    "NotesOnly": "sleepgym.schedulers.noting",
    "PopularFirst": "sleepgym.schedulers.noting",
    "Predictor": "sleepgym.schedulers.own",
    "PressureRule": "sleepgym.schedulers.adaptive",
    "RandomScheduler": "sleepgym.schedulers.simple",
    "Rounds": "sleepgym.schedulers.repairing",
    "Scheduler": "sleepgym.schedulers.base",
    "SchedulerMaker": "sleepgym.schedulers.named",
    "SchedulerNameError": "sleepgym.schedulers.named",
    "SchedulerTypeError": "sleepgym.schedulers.own",
    "SimLookAhead": "sleepgym.schedulers.sim_look_ahead",
    "SimPlanner": "sleepgym.schedulers.sim_planner",
    "allowed": "sleepgym.schedulers.base",
    "as_scheduler": "sleepgym.schedulers.own",
    "keep_up": "sleepgym.schedulers.base",
    "known_schedulers": "sleepgym.schedulers.named",
    "scheduler_named": "sleepgym.schedulers.named",
}

__all__ = [
    "AlwaysSleep",
    "BudgetAware",
    "Caretaker",
    "Drowsiness",
    "FixedPeriod",
    "FunctionScheduler",
    "LookAhead",
    "Mender",
    "NeverSleep",
    "NightOwl",
    "NoteFirst",
    "NotesOnly",
    "PopularFirst",
    "Predictor",
    "PressureRule",
    "RandomScheduler",
    "Rounds",
    "Scheduler",
    "SchedulerMaker",
    "SchedulerNameError",
    "SchedulerTypeError",
    "SimLookAhead",
    "SimPlanner",
    "allowed",
    "as_scheduler",
    "keep_up",
    "known_schedulers",
    "scheduler_named",
]


__getattr__ = on_first_use(__name__, _EXPORTS)
