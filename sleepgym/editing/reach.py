"""Rows of gated terms that act at every bare prompt of their facts, and not only at the mean over contexts.

A key is the mean over a bare prompt and the same prompt after prefixes (Meng et al. 2023, eq. 19). Where the subject
stands first, the two have little in common: its token is another one without a blank before it, and a model without a
start token makes an attention sink of whatever comes first. A row that is solved for the mean may then stay below its
gate in the bare prompt, which is how a fact is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sleepgym.memory.terms import Term, gates_of


def falls_short(terms: Sequence[Term], modules: Sequence[str], keys: Tensor) -> bool:
    """Whether a term of rank one does not act at its key in any of several modules.

    Args:
        terms: Terms.
        modules: Names of modules that all of them are on.
        keys: Key of every term in every module, ``[modules, terms, d_in]``.
    """
    for module, at in zip(modules, keys, strict=True):
        A = torch.cat([term.factors[module][0] for term in terms]).to(at)
        gates = torch.cat([gates_of(term, module) for term in terms]).to(at)
        if bool(((A * at).sum(1) < gates).any()):
            return True
    return False


def reaching(
    row: Tensor,
    key: Tensor,
    others: Tensor,
    gate: float,
    solved_for: Callable[[Tensor], Tensor],
    text: Tensor,
) -> Tensor:
    """Returns a row whose activation is 1 at its key and, where that leaves text alone, at least its gate at others.

    It is a sum of the row and of those that are solved for the other keys of which it falls short, the worst first,
    until none is left: there it is 1 as well. A row that reaches all of them is returned as it is.

    Args:
        row: Row of a term, ``[d_in]``, whose activation is 1 at its key.
        key: Its key, ``[d_in]``.
        others: Keys of the same term in other contexts, ``[n, d_in]``.
        gate: Least activation at which the term acts.
        solved_for: Returns the row of the same least squares for one more key, at any scale.
        text: Keys of other text, ``[m, d_in]``, at none of which a sum may act.

    Returns:
        The row, ``[d_in]``; the one that was given if a sum would act in other text. That of an attention sink does,
        since keys at the start of any text are alike there.
    """
    found, span, held = row, row[None], key[None]
    while len(held) <= len(others) and (activations := others @ found).min() < gate:
        worst = others[activations.argmin()]
        span, held = torch.cat([span, solved_for(worst)[None]]), torch.cat([held, worst[None]])
        mixture, singular = torch.linalg.solve_ex(held @ span.T, held.new_ones(len(held)))
        found = mixture @ span
        # Compared so that NaN does not pass.
        if singular or not (text @ found < gate).all():
            return row
    return found
