"""How deep facts have sunk: 0 (held by their edit alone) to the last stage (held by slow weights alone)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.editor import owner_of
from sleepgym.ledger import Key
from sleepgym.state import State


def set_stage(state: State, key: Key, stage: int, spec: SleepSpec) -> None:
    """Puts a fact at a stage, and its edit at the scale that goes with it."""
    scale = spec.scales[stage]
    state.ledger.update(key, stage=stage, scale=scale)
    owner = owner_of(state.ledger[key].fact)
    if owner in state.memory.terms:
        state.memory.scale(owner, scale)


def dissolve(state: State, passed: Mapping[Key, bool], spec: SleepSpec) -> None:
    """Moves each fact one stage up if it passed the gate, back to 0 if it did not.

    An edit at the last stage is kept at scale 0 until it is gone for good, so that a fact that fails a later
    gate gets its edit back at full strength.
    """
    for key, holds in passed.items():
        set_stage(state, key, min(state.ledger[key].stage + 1, spec.last_stage) if holds else 0, spec)


def dissolve_further(state: State, keys: Iterable[Key], spec: SleepSpec) -> None:
    """Takes edits that stand in the way of slow weights a stage on; from the last stage, back to 0.

    Two memories of one fact can spoil each other: what each recalls alone, they may miss together. Slow weights have
    shown at the gate that they need no edit, so it is the edit that gives way.
    """
    for key in keys:
        stage = state.ledger[key].stage
        set_stage(state, key, stage + 1 if stage < spec.last_stage else 0, spec)
