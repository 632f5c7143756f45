"""Layer 3: MEMIT on an overlay, split where the paper is split: targets, keys, solve."""

from sleepgym.editing.editor import Editor, owner_of
from sleepgym.editing.solver import NormalMatrix
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.editing.statistics import ModelStatistics, statistics_for
from sleepgym.editing.targets import optimize_targets

__all__ = [
    "EditError",
    "EditSpec",
    "Editor",
    "ModelStatistics",
    "NormalMatrix",
    "optimize_targets",
    "owner_of",
    "statistics_for",
]
