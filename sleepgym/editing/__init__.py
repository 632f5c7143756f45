"""MEMIT on an overlay, in the paper's steps: targets, keys, solve.

Names are imported on first use: settings of edits must not load a model's libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym.lazily import on_first_use

if TYPE_CHECKING:
    from sleepgym.editing.calibration import Calibration, calibrate, spec_for
    from sleepgym.editing.editor import Editor
    from sleepgym.editing.presets import PRESETS, preset
    from sleepgym.editing.solver import NormalMatrix
    from sleepgym.editing.spec import EditError, EditSpec
    from sleepgym.editing.statistics import ModelStatistics, statistics_for
    from sleepgym.editing.targets import Target, optimize_targets

_EXPORTS = {
    "PRESETS": "sleepgym.editing.presets",
    "Calibration": "sleepgym.editing.calibration",
    "EditError": "sleepgym.editing.spec",
    "EditSpec": "sleepgym.editing.spec",
    "Editor": "sleepgym.editing.editor",
    "ModelStatistics": "sleepgym.editing.statistics",
    "NormalMatrix": "sleepgym.editing.solver",
    "Target": "sleepgym.editing.targets",
    "calibrate": "sleepgym.editing.calibration",
    "optimize_targets": "sleepgym.editing.targets",
    "preset": "sleepgym.editing.presets",
    "spec_for": "sleepgym.editing.calibration",
    "statistics_for": "sleepgym.editing.statistics",
}

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


__getattr__ = on_first_use(__name__, _EXPORTS)
