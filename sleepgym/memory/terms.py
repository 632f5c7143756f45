"""Low-rank terms on a frozen base, and memories: the terms of one learner.

A linear with a term computes ``y = W x + s B (A x)``. A gated term of rank one adds its output only where ``A x`` is at
least its gate: on keys like its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sleepgym.errors import SleepGymError
from sleepgym.lm.language_model import LanguageModel

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Low-rank factors ``(A [r, d_in], B [d_out, r])`` by module name."""


class OverlayError(SleepGymError, ValueError):
    """A term has invalid factors, or a batch cannot be divided among memories; the memory is unchanged."""


@dataclass(frozen=True)
class Term:
    """Low-rank factors of one owner over one or more modules, at one scale.

    Attributes:
        factors: ``A [r, d_in]`` and ``B [d_out, r]`` by module.
        scale: Factor ``s`` of the term's output.
        weight: Weight of the term's fact in the least squares that it was solved with. The forward pass ignores it;
            later solves that protect the term use it.
        gates: Least values of ``A x`` at which its rows act, ``[r]`` by module; rows of other modules always act.
    """

    factors: Factors
    scale: float = 1.0
    weight: float = 1.0
    gates: Mapping[str, Tensor] = field(default_factory=dict)

    def moved(self, move: Callable[[str, Tensor], Tensor]) -> Term:
        """Returns the term with what ``move`` makes of every tensor, given the module's name and the tensor."""
        factors = {name: (move(name, a), move(name, b)) for name, (a, b) in self.factors.items()}
        return replace(self, factors=factors, gates={name: move(name, gate) for name, gate in self.gates.items()})

    @property
    def rank(self) -> int:
        """Largest rank over the modules; 0 without any."""
        return max((a.shape[0] for a, _ in self.factors.values()), default=0)


class Memory:
    """Terms of one learner by owner, in the order in which they were added.

    Terms are immutable and shared between copies, so that :meth:`copy` copies a dictionary only.

    Args:
        terms: Initial terms by owner.
        version: Initial version.

    Attributes:
        version: Counter that increases with every change of the forward pass: equal versions of one memory mean
            equal logits.
    """

    def __init__(self, terms: Mapping[str, Term] | None = None, version: int = 0) -> None:
        self._terms: dict[str, Term] = dict(terms or {})
        self._stacked: dict[str, tuple[Tensor, Tensor] | None] = {}
        self._gates: dict[str, Tensor | None] = {}
        self.version = version

    @property
    def terms(self) -> Mapping[str, Term]:
        """Terms by owner."""
        return self._terms

    def rank(self, module: str) -> int:
        """Returns the sum of the ranks of all terms on a module, switched-off ones included."""
        return sum(t.factors[module][0].shape[0] for t in self._terms.values() if module in t.factors)

    @property
    def largest_rank(self) -> int:
        """Largest sum of ranks on a module, switched-off terms included; 0 without terms."""
        return max(map(self.rank, {module for term in self._terms.values() for module in term.factors}), default=0)

    @property
    def gated(self) -> int:
        """Number of terms with gates that are not switched off."""
        return sum(bool(term.gates) and term.scale != 0 for term in self._terms.values())

    @property
    def parameters(self) -> int:
        """Number of elements in the factors of all terms."""
        return sum(a.numel() + b.numel() for t in self._terms.values() for a, b in t.factors.values())

    def put(
        self,
        owner: str,
        factors: Factors,
        scale: float = 1.0,
        weight: float = 1.0,
        gates: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Adds a term, replacing the owner's earlier one.

        Args:
            owner: Name of the owner, see :mod:`sleepgym.memory.owners`.
            factors: ``A [r, d_in]`` and ``B [d_out, r]`` by module.
            scale: See :class:`Term`.
            weight: See :class:`Term`.
            gates: See :class:`Term`.

        Raises:
            OverlayError: ``A``, ``B`` and gates disagree on the rank, or hold NaN, or factors hold infinity.
        """
        for module, (a, b) in factors.items():
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
                raise OverlayError(
                    f"expected A [r, d_in] and B [d_out, r] for {module}, found {tuple(a.shape)} and {tuple(b.shape)}"
                )
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                raise OverlayError(f"expected finite factors for {module}, found NaN or infinity; nothing was added")
        for module, gate in (gates or {}).items():
            rank = len(factors[module][0]) if module in factors else 0
            if gate.shape != (rank,) or gate.isnan().any():
                raise OverlayError(
                    f"expected gates [{rank}] without NaN for {module}, found {gate}; give one for each row of A"
                )
        self._terms.pop(owner, None)
        self._terms[owner] = Term(dict(factors), scale, weight, dict(gates or {}))
        self._touch()

    def remove(self, owner: str) -> None:
        """Removes a term exactly: the logits are those of a memory without it, bit for bit.

        Raises:
            KeyError: The owner has no term.
        """
        del self._terms[owner]
        self._touch()

    def scale(self, owner: str, scale: float) -> None:
        """Sets the scale of a term; 0 switches it off but keeps its factors.

        Raises:
            KeyError: The owner has no term.
        """
        if self._terms[owner].scale != scale:
            self._terms[owner] = replace(self._terms[owner], scale=scale)
            self._touch()

    def clear(self) -> None:
        """Removes all terms."""
        self._terms.clear()
        self._touch()

    def copy(self) -> Memory:
        """Returns an independent memory with the same (immutable) terms."""
        return Memory(self._terms, self.version)

    def __copy__(self) -> Memory:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Memory:
        # Terms never change: they can be shared.
        return self.copy()

    def __getstate__(self) -> dict[str, Any]:
        # Copies of tensors: a view would take all of what it is a view of along, and whoever unpickles it need not
        # have the same devices.
        terms = {owner: term.moved(lambda _, part: part.cpu().clone()) for owner, term in self._terms.items()}
        return {"_terms": terms, "_stacked": {}, "_gates": {}, "version": self.version}

    def placed(self, lm: LanguageModel) -> Memory:
        """The memory with every factor where its module is; the same memory if it is there already."""
        device = {
            name: next(lm.linear(name).parameters()).device
            for name in {name for term in self._terms.values() for name in term.factors}
        }

        def strays(term: Term) -> bool:
            return any(a.device != device[name] or b.device != device[name] for name, (a, b) in term.factors.items())

        moved = {
            owner: term.moved(lambda name, part: part.to(device[name]))
            for owner, term in self._terms.items()
            if strays(term)
        }
        return Memory({**self._terms, **moved}, self.version) if moved else self

    def without(self, owners: Sequence[str]) -> Memory:
        """Returns a copy without the terms of the given owners; owners without a term are ignored."""
        removed = set(owners)
        return Memory({o: t for o, t in self._terms.items() if o not in removed}, self.version)

    def _touch(self) -> None:
        self._stacked.clear()
        self._gates.clear()
        self.version += 1

    def stacked(self, module: str) -> tuple[Tensor, Tensor] | None:
        """Concatenates all terms of a module that are not switched off.

        Returns:
            ``A [R, d_in]`` and ``B [d_out, R]`` with the scales multiplied into ``B``; None without such terms.
        """
        if module not in self._stacked:
            parts = [(t.factors[module], t.scale) for t in self._terms.values() if module in t.factors and t.scale != 0]
            self._stacked[module] = (
                (torch.cat([a for (a, _), _ in parts]), torch.cat([b * s for (_, b), s in parts], dim=1))
                if parts
                else None
            )
        return self._stacked[module]

    def gates(self, module: str) -> Tensor | None:
        """Returns the gates of the rows of :meth:`stacked`, ``[R]``, minus infinity for rows that always act.

        Returns:
            The gates, in the type and on the device of ``A``; None if all rows always act.
        """
        if module not in self._gates:
            terms = [t for t in self._terms.values() if module in t.factors and t.scale != 0]
            gated = any(module in term.gates for term in terms)
            self._gates[module] = torch.cat([gates_of(term, module) for term in terms]) if gated else None
        return self._gates[module]


def gates_of(term: Term, module: str) -> Tensor:
    """Returns the gates of a term's rows on a module, ``[r]``, minus infinity for rows that always act."""
    a, _ = term.factors[module]
    return term.gates[module].to(a) if module in term.gates else a.new_full((len(a),), -math.inf)


def acting(activations: Tensor, gates: Tensor | None) -> Tensor:
    """Returns ``A x`` with 0 in place of what is below its gate.

    Args:
        activations: ``A x``, ``[..., R]``.
        gates: Gates of its columns, ``[..., R]``; None for none.
    """
    if gates is None:
        return activations
    return activations.where(activations >= gates.to(activations), 0)
