"""sleepgym: learn when a language model should write facts into its weights, and when it should sleep.

Importing it registers the environments with Gymnasium and nothing more: torch is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleepgym import moved
from sleepgym._version import __version__
from sleepgym.env.registration import register_cards
from sleepgym.lazily import on_first_use
from sleepgym.sim.registration import register_sims

if TYPE_CHECKING:
    from sleepgym.consolidation.spec import SleepSpec
    from sleepgym.editing.spec import EditSpec
    from sleepgym.errors import SleepGymError
    from sleepgym.facts.fact import Fact
    from sleepgym.facts.world import World
    from sleepgym.sleeper import SleepingLM

_EXPORTS = {
    "EditSpec": "sleepgym.editing.spec",
    "Fact": "sleepgym.facts.fact",
    "SleepGymError": "sleepgym.errors",
    "SleepSpec": "sleepgym.consolidation.spec",
    "SleepingLM": "sleepgym.sleeper",
    "World": "sleepgym.facts.world",
}

__all__ = ["EditSpec", "Fact", "SleepGymError", "SleepSpec", "SleepingLM", "World", "__version__"]


__getattr__ = on_first_use(__name__, _EXPORTS)


register_cards()
register_sims()
moved.install()
