"""Consolidation stages: from 0 (held by its edit alone) to the last stage (held by slow weights alone)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.memory.ledger import Key
from sleepgym.memory.owners import edit_of
from sleepgym.memory.state import State


def set_stage(state: State, key: Key, stage: int, spec: SleepSpec) -> None:
    """Sets the stage of a fact and the scale of its edit, ``spec.scales[stage]``.

    Raises:
        KeyError: The ledger has no such fact.
    """
    state.ledger.update(key, stage=stage)
    _scale(state, key, spec.scales[stage])


def dissolve(state: State, passed: Mapping[Key, bool], spec: SleepSpec) -> None:
    """Advances each fact by one stage if it passed the gate, and resets it to stage 0 if it failed.

    An edit at the last stage is kept at scale 0 until its fact is pruned, so that a fact that fails a later gate gets
    its edit back at full scale. Nights that slow weights have held a fact are counted beside.
    """
    for key, holds in passed.items():
        state.ledger.update(key, held=state.ledger[key].held + 1 if holds else 0)
        set_stage(state, key, min(state.ledger[key].stage + 1, spec.last_stage) if holds else 0, spec)


def dissolve_further(state: State, stuck: Collection[Key], passed: Mapping[Key, bool], spec: SleepSpec) -> bool:
    """Scales down edits that interfere with slow weights.

    Facts that slow weights recall alone can be missed while edits are on. The edits to scale down are, in this order:

    1. those of the stuck facts, by one stage: these facts have passed the gate and need no edit;
    2. those of all facts that passed, by one stage, if a stuck fact's own edit is off already;
    3. those of the facts that failed, to 0, if more facts are stuck than have failed. Those of them that the audit then
       finds degraded are refreshed by the next night.

    Args:
        state: State of the learner; its stages and scales are changed.
        stuck: Keys of facts that passed the gate, but are not recalled with edits on.
        passed: Whether each fact passed the gate.
        spec: Scales by stage.

    Returns:
        Whether an edit was scaled down.
    """
    advancing = {key for key in stuck if state.ledger[key].stage < spec.last_stage}
    if len(advancing) < len(stuck):
        # A stuck fact whose own edit is off already suffers from the edits of other facts.
        advancing = {key for key, holds in passed.items() if holds and state.ledger[key].stage < spec.last_stage}
    for key in advancing:
        set_stage(state, key, state.ledger[key].stage + 1, spec)
    if advancing:
        return True
    failed = {key for key, holds in passed.items() if not holds and state.scale_of(key) > 0}
    if len(stuck) <= len(failed):
        return False
    for key in failed:
        # The stage stays 0: slow weights do not hold the fact.
        _scale(state, key, 0.0)
    return bool(failed)


def _scale(state: State, key: Key, scale: float) -> None:
    owner = edit_of(key)
    if owner in state.memory.terms:
        state.memory.scale(owner, scale)
