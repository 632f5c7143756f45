"""A word about gates, which nothing that is exported has."""

from __future__ import annotations

import warnings

from sleepgym.memory.overlay import Memory


class GatesLostWarning(UserWarning):
    """What is exported acts where the memory does not."""


def warn_of_gates(memory: Memory) -> None:
    """Warns if a memory has terms with a gate that are not switched off."""
    if memory.gated:
        warnings.warn(
            f"{memory.gated} of {len(memory.terms)} terms act on their own subjects only, which neither an adapter nor "
            "weights can express: there they act everywhere, and answers about others move. A memory that is to be "
            "exported is best taught without gates (SleepingLM.from_pretrained(..., gate=0.0)); checkpoints keep them",
            GatesLostWarning,
            stacklevel=4,
        )
