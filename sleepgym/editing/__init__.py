"""MEMIT on an overlay, in the paper's steps: targets, keys, solve."""

from sleepgym.editing.calibrate import Calibration, calibrate, spec_for
from sleepgym.editing.editor import Editor
from sleepgym.editing.presets import PRESETS, preset
from sleepgym.editing.solver import NormalMatrix
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.editing.statistics import ModelStatistics, statistics_for
from sleepgym.editing.targets import Target, optimize_targets

__all__ = [
    "PRESETS",
    "Calibration",
    "EditError",
    "EditSpec",
    "Editor",
    "ModelStatistics",
    "NormalMatrix",
    "Target",
    "calibrate",
    "optimize_targets",
    "preset",
    "spec_for",
    "statistics_for",
]
