"""Audit and refresh of a learner's facts, used awake and at night."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sleepgym.editing.base import Base
from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.asking import chat_probe, margins, raw_probe
from sleepgym.memory.ledger import Key
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.owners import row_of
from sleepgym.memory.reports import AuditReport, RefreshReport
from sleepgym.memory.state import State

Ask = Callable[[Overlay, Sequence[Memory], Sequence[Sequence[Encoded]]], list[Tensor]]
"""Puts groups of probes to memories, as :func:`~sleepgym.memory.asking.margins` does."""


def audit(base: Base, states: Sequence[State], ask: Ask = margins) -> list[AuditReport]:
    """Asks every fact of every ledger in chat, as users do, and records margins in the ledgers.

    An edit wears off in chat before it does on the prompt that taught it; and one that was scaled down, since slow
    weights hold its fact, is weak on that prompt by design.

    Args:
        base: Base that all states share.
        states: States of learners; their ledgers are updated.
        ask: Measures the margins.

    Returns:
        One report per state.
    """
    probes = [[chat_probe(base.lm, fact) for fact in state.ledger.facts] for state in states]
    found = ask(base.overlay, [state.memory for state in states], probes)
    reports = []
    for state, seen in zip(states, found, strict=True):
        by_key = dict(zip(state.ledger, seen.tolist(), strict=True))
        for key, margin in by_key.items():
            state.ledger.update(key, margin=None if math.isnan(margin) else margin, audited_at=state.tick)
        reports.append(AuditReport(by_key, tuple(state.ledger.degraded)))
    return reports


def write(base: Base, state: State, facts: Sequence[Fact], protected: Sequence[Fact]) -> Tensor:
    """Writes facts into a learner's memory beside what it knows of others, see :meth:`Editor.write`.

    A row that a gated adapter has for one of the facts is removed: it would add to the edit, or contradict it.

    Args:
        base: The shared model.
        state: Draft of the learner's state; its memory is updated, its ledger is not.
        facts: Facts to write.
        protected: Facts whose keys are held.

    Returns:
        Margin of each fact on its own prompt after the write, ``[n]``.

    Raises:
        EditError: A loss became NaN or infinite, or the normal matrix cannot be factored.
        FactError: A fact cannot be tokenised as needed.
    """
    for fact in facts:
        if row_of(fact.key) in state.memory.terms:
            state.memory.remove(row_of(fact.key))
    taught = state.subjects | {fact.subject for fact in facts}
    others = base.neighbourhood.beside(facts, taught, base.editor.spec.neighbours)
    return base.editor.write(state.memory, facts, protected, others)


def refresh(base: Base, state: State, keys: Sequence[Key]) -> RefreshReport:
    """Re-solves facts jointly, protecting the keys of all other facts in the ledger.

    A refreshed edit replaces the old one at full scale, and its fact returns to stage 0.

    Args:
        base: The shared model.
        state: State of the learner; memory and ledger are updated.
        keys: Facts to re-solve.

    Raises:
        EditError: A loss became NaN or infinite, or the normal matrix cannot be factored.
        KeyError: The ledger has no such fact.
    """
    if not keys:
        return RefreshReport((), 1.0, 1.0, edits=0)
    facts = [state.ledger[key].fact for key in keys]
    chosen = set(keys)
    (before,) = margins(base.overlay, [state.memory], [[raw_probe(base.lm, fact) for fact in facts]])
    after = write(base, state, facts, [e.fact for k, e in state.ledger.items() if k not in chosen])
    for key in keys:
        # The margin from before the refresh is out of date.
        changes = {"stage": 0, "held": 0, "margin": None, "audited_at": -1}
        state.ledger.update(key, writes=state.ledger[key].writes + 1, **changes)
    return RefreshReport(tuple(keys), _share(before), _share(after), edits=len(facts))


def _share(found: torch.Tensor) -> float:
    return float((found > 0).float().mean())
