"""Slow weights of a learner: one adapter that nights continue to train, or extend by fresh adapters or gated rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from sleepgym.consolidation.lora import new_adapter
from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.base import Base
from sleepgym.memory.ledger import Key
from sleepgym.memory.overlay import Factors, Memory, Term
from sleepgym.memory.owners import ADAPTER, ROW, owner_of, row_of
from sleepgym.memory.state import State
from sleepgym.memory.terms import gates_of


def tonights_adapter(base: Base, state: State, spec: SleepSpec, trained: Sequence[Key]) -> Term:
    """Returns the adapter that a night's training starts from.

    Args:
        base: The model.
        state: State of the learner; a gated adapter gets rows for the trained facts that have none.
        spec: Kind of adapter.
        trained: Keys of the facts that are trained.

    Returns:
        The stored adapter, or a fresh one with zero output, or all rows of a gated one.

    Raises:
        EditError: Rows of a gated adapter cannot be solved for.
        SleepError: The model has no block or no linear that ``spec`` asks for.
    """
    if spec.adapter == "gated":
        _solve_rows(base, state, spec, trained)
        return adapter_in(state.memory, spec)
    stored = state.memory.terms.get(ADAPTER)
    if stored is not None and spec.adapter == "continued":
        return stored
    return Term(new_adapter(base.lm, spec, lowest_block(base, spec), state.rng))


def rows_in(memory: Memory) -> dict[str, Term]:
    """Returns the rows of a memory's gated adapter, by owner."""
    return {owner: term for owner, term in memory.terms.items() if owner.startswith(ROW)}


def _solve_rows(base: Base, state: State, spec: SleepSpec, trained: Sequence[Key]) -> None:
    """Puts gated terms of the trained facts without one into the memory, solved for jointly on the frozen base.

    The keys of the other facts are left without output as those of neighbours are.
    """
    new = [state.ledger[key].fact for key in trained if row_of(key) not in state.memory.terms]
    if not new:
        return
    written = {fact.subject for fact in new}
    others = [fact for fact in state.ledger.facts if fact.subject not in written]
    beside = base.neighbourhood.beside(new, state.subjects, spec.neighbours)
    draft = Memory()
    base.editor.write(draft, new, (), [*others, *beside], spec.row_gate)
    for fact in new:
        term = draft.terms[owner_of(fact)]
        state.memory.put(row_of(fact.key), term.factors, gates=term.gates)


def joined_terms(terms: Sequence[Term]) -> Term:
    """Returns one term whose output is the sum of those of terms at full scale; ranks add up, gates stay."""
    factors: Factors = {}
    for term in terms:
        factors = joined(factors, term.factors)
    gated = {name for term in terms for name in term.gates}
    gates = {name: torch.cat([gates_of(term, name) for term in terms if name in term.factors]) for name in gated}
    return Term(factors, gates=gates)


def lowest_block(base: Base, spec: SleepSpec) -> int:
    """Returns the index of the lowest block with adapters: ``spec.first_layer``, or by default above all edits."""
    if spec.first_layer is not None:
        return spec.first_layer
    depth = len(base.lm.blocks)
    return min(max(depth // 2, base.editor.spec.layers[-1] + 1), depth - 1)


def keep(state: State, trained: Factors, spec: SleepSpec) -> float:
    """Stores a night's trained adapter in the memory; a fresh one is joined to the stored one.

    Args:
        state: State of the learner; its memory is changed.
        trained: Adapter that the night trained.
        spec: Kind of adapter and maximum rank, beyond which a joined adapter is recompressed.

    Returns:
        Relative error of the recompression, see :func:`recompressed`; 0 without recompression.
    """
    stored, error = state.memory.terms.get(ADAPTER), 0.0
    if stored is not None and spec.adapter == "fresh":
        trained = joined(stored.factors, trained)
        if max(a.shape[0] for a, _ in trained.values()) > spec.max_rank:
            trained, error = recompressed(trained, spec.max_rank)
    put_adapter(state.memory, trained, spec)
    return error


def put_adapter(memory: Memory, trained: Factors, spec: SleepSpec) -> None:
    """Replaces the adapter of a memory; of a gated one, the outputs of its rows."""
    if spec.adapter != "gated":
        memory.put(ADAPTER, trained)
        return
    before: Counter[str] = Counter()  # columns by module: rows of another recipe may be on other modules
    for owner, term in rows_in(memory).items():
        row = {}
        for name, (a, _) in term.factors.items():
            start = before[name]
            before[name] += len(a)
            row[name] = (a, trained[name][1][:, start : before[name]].contiguous())
        memory.put(owner, row, gates=term.gates)


def adapter_in(memory: Memory, spec: SleepSpec) -> Term:
    """Returns the adapter of a memory; of a gated one, all its rows as one term.

    Raises:
        KeyError: There is none.
    """
    return joined_terms(list(rows_in(memory).values())) if spec.adapter == "gated" else memory.terms[ADAPTER]


def joined(first: Factors, second: Factors) -> Factors:
    """Returns one adapter whose output is the sum of both; ranks add up."""
    out = dict(first)
    for name, (a, b) in second.items():
        if name in out:
            out[name] = (torch.cat([out[name][0], a]), torch.cat([out[name][1], b], 1))
        else:
            out[name] = (a, b)
    return out


def recompressed(factors: Factors, rank: int) -> tuple[Factors, float]:
    """Truncates an adapter to a lower rank: per module, the leading singular triples of ``B A``.

    ``B A`` is never formed: with ``B = Q_b R_b`` and ``A^T = Q_a R_a`` its singular values are those of the small
    ``R_b R_a^T``.

    Args:
        factors: Adapter to truncate.
        rank: Maximum rank per module.

    Returns:
        The truncated adapter, and its relative error: the Frobenius norm of the difference divided by that of
        ``B A``, over all modules together.
    """
    out: dict[str, tuple[Tensor, Tensor]] = {}
    lost = total = 0.0
    for name, (a, b) in factors.items():
        q_b, r_b = torch.linalg.qr(b.double())
        q_a, r_a = torch.linalg.qr(a.double().T)
        u, s, vh = torch.linalg.svd(r_b @ r_a.T)
        root = s[:rank].sqrt()
        out[name] = ((root[:, None] * (vh[:rank] @ q_a.T)).to(a.dtype), ((q_b @ u[:, :rank]) * root).to(b.dtype))
        lost += float(s[rank:].square().sum())
        total += float(s.square().sum())
    return out, (lost / total) ** 0.5 if total else 0.0
