"""Sleep: facts move from edits into a LoRA adapter, one stage a night."""

from sleepgym.consolidation.spec import SleepError, SleepSpec

__all__ = ["SleepError", "SleepSpec"]
