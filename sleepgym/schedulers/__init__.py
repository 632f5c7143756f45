"""Hand-written schedulers, the baselines of learned ones."""

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
