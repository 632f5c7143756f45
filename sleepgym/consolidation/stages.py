"""How deep facts have sunk: 0 (held by their edit alone) to the last stage (held by slow weights alone)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.memory.ledger import Key
from sleepgym.memory.owners import edit_of
from sleepgym.memory.state import State


def set_stage(state: State, key: Key, stage: int, spec: SleepSpec) -> None:
    """Puts a fact at a stage, and its edit at the scale that goes with it."""
    state.ledger.update(key, stage=stage)
    _scale(state, key, spec.scales[stage])


def dissolve(state: State, passed: Mapping[Key, bool], spec: SleepSpec) -> None:
    """Moves each fact one stage up if it passed the gate, back to 0 if it did not.

    An edit at the last stage is kept at scale 0 until it is gone for good, so that a fact that fails a later
    gate gets its edit back at full strength.
    """
    for key, holds in passed.items():
        set_stage(state, key, min(state.ledger[key].stage + 1, spec.last_stage) if holds else 0, spec)


def dissolve_further(state: State, stuck: Collection[Key], passed: Mapping[Key, bool], spec: SleepSpec) -> bool:
    """Takes edits that stand in the way of slow weights a stage on.

    Memories can spoil each other: what slow weights recall alone, they may miss beside edits. Those facts have shown at
    the gate that they need no edit, so theirs give way first, and then those of all facts that have passed. What is
    left are edits of facts that failed. If more is missed beside them than they hold at best, they are switched off;
    those of these facts that the audit then finds lost, the next night solves for anew.

    Args:
        state: Whose edits are scaled.
        stuck: Facts that passed the gate, but are not recalled with edits on.
        passed: What the gate found.
        spec: The stages.

    Returns:
        Whether there was an edit left that could give way.
    """
    yielding = {key for key in stuck if state.ledger[key].stage < spec.last_stage}
    if len(yielding) < len(stuck):
        # Some are missed although their own edits are off: it is the others' that they are missed beside.
        yielding = {key for key, holds in passed.items() if holds and state.ledger[key].stage < spec.last_stage}
    for key in yielding:
        set_stage(state, key, state.ledger[key].stage + 1, spec)
    if yielding:
        return True
    back = {key for key, holds in passed.items() if not holds and state.scale_of(key) > 0}
    if len(stuck) <= len(back):
        return False
    for key in back:
        # Not a stage: slow weights do not hold the fact.
        _scale(state, key, 0.0)
    return bool(back)


def _scale(state: State, key: Key, scale: float) -> None:
    owner = edit_of(key)
    if owner in state.memory.terms:
        state.memory.scale(owner, scale)
