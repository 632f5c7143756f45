"""Consolidation: nights move facts from edits into a LoRA adapter, at most one stage per gate passed."""

from sleepgym.consolidation.spec import SleepError, SleepSpec

__all__ = ["SleepError", "SleepSpec"]
