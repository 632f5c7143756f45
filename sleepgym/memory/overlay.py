"""Low-rank terms on a frozen base: a linear with a term computes ``y = W x + s B (A x)``.

A :class:`Memory` holds the terms of one learner. An :class:`Overlay` adds memories to the forward pass of a model
whose weights are never written, each memory to its own rows of the batch, so that many learners share one model and
one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sleepgym.errors import SleepGymError
from sleepgym.lm.architecture import features
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
    """

    factors: Factors
    scale: float = 1.0
    weight: float = 1.0

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
        self.version = version

    @property
    def terms(self) -> Mapping[str, Term]:
        """Terms by owner."""
        return self._terms

    def rank(self, module: str) -> int:
        """Returns the sum of the ranks of all terms on a module, switched-off ones included."""
        return sum(t.factors[module][0].shape[0] for t in self._terms.values() if module in t.factors)

    @property
    def parameters(self) -> int:
        """Number of elements in the factors of all terms."""
        return sum(a.numel() + b.numel() for t in self._terms.values() for a, b in t.factors.values())

    def put(self, owner: str, factors: Factors, scale: float = 1.0, weight: float = 1.0) -> None:
        """Adds a term, replacing the owner's earlier one.

        Args:
            owner: Name of the owner, see :mod:`sleepgym.memory.owners`.
            factors: ``A [r, d_in]`` and ``B [d_out, r]`` by module.
            scale: See :class:`Term`.
            weight: See :class:`Term`.

        Raises:
            OverlayError: ``A`` and ``B`` disagree on the rank, or hold NaN or infinity.
        """
        for module, (a, b) in factors.items():
            if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
                raise OverlayError(
                    f"expected A [r, d_in] and B [d_out, r] for {module}, found {tuple(a.shape)} and {tuple(b.shape)}"
                )
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                raise OverlayError(f"expected finite factors for {module}, found NaN or infinity; nothing was added")
        self._terms.pop(owner, None)
        self._terms[owner] = Term(dict(factors), scale, weight)
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
        terms = {
            owner: replace(
                term, factors={name: (a.cpu().clone(), b.cpu().clone()) for name, (a, b) in term.factors.items()}
            )
            for owner, term in self._terms.items()
        }
        return {"_terms": terms, "_stacked": {}, "version": self.version}

    def placed(self, lm: LanguageModel) -> Memory:
        """The memory with every factor where its module is; the same memory if it is there already."""
        device = {
            name: next(lm.linear(name).parameters()).device
            for name in {name for term in self._terms.values() for name in term.factors}
        }

        def strays(term: Term) -> bool:
            return any(a.device != device[name] or b.device != device[name] for name, (a, b) in term.factors.items())

        moved = {
            owner: replace(
                term, factors={name: (a.to(device[name]), b.to(device[name])) for name, (a, b) in term.factors.items()}
            )
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


class Overlay:
    """Adds memories to a model's forward pass.

    Memories apply inside :meth:`use` only; outside it, the model is bare and without hooks. An overlay has no state
    of its own: several overlays on one model are equivalent to one.

    Args:
        lm: The model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm

    @contextmanager
    def use(self, memory: Memory | Sequence[Memory], training: Factors | Sequence[Factors] = ()) -> Iterator[None]:
        """Runs the model with one memory, or with one memory per group of batch rows, within a context.

        A nested use replaces the outer one until it ends.

        Args:
            memory: One memory for the whole batch; or a sequence of memories, in which case the batch consists of as
                many consecutive groups of equal size, one per memory. Empty for the bare model.
            training: Factors that are added to those of the memories and receive gradients; one mapping for all
                groups, or one per group.

        Raises:
            OverlayError: In a forward pass, the batch rows cannot be divided evenly among the memories.
        """
        memories = (memory,) if isinstance(memory, Memory) else tuple(memory)
        trained = (training,) if isinstance(training, Mapping) else tuple(training)
        in_use = _InUse(self.lm, memories, trained)
        with self.lm.adding({name: partial(in_use.added, name) for name in in_use.modules}):
            yield


class _InUse:
    """Memories and trained factors of one :meth:`Overlay.use`, stacked per module when it first runs."""

    def __init__(self, lm: LanguageModel, memories: tuple[Memory, ...], training: tuple[Factors, ...]) -> None:
        self._lm = lm
        self._memories, self._training = memories, training
        self._grouped: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @property
    def modules(self) -> list[str]:
        """Names of the linears that a term or trained factors are added to."""
        terms = (term.factors for memory in self._memories for term in memory.terms.values() if term.scale != 0)
        return list(dict.fromkeys(name for factors in (*terms, *self._training) for name in factors))

    def added(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        """Returns a linear's output ``[..., d_out]`` plus the terms of memories and trained factors."""
        for a, b in self.shared(name):
            output = output + (x @ a.to(x.device, x.dtype).T) @ b.to(x.device, x.dtype).T
        for a, b in self.grouped(name):
            if len(x) % len(a):
                raise OverlayError(
                    f"expected batch rows that {len(a)} memories can share out evenly, found {len(x)} rows"
                )
            # Reshaped, since some models flatten rows and tokens before the MLP.
            rows = x.reshape(len(a), -1, x.shape[-1])
            delta = torch.bmm(torch.bmm(rows, a.to(x.device, x.dtype).mT), b.to(x.device, x.dtype).mT)
            output = output + delta.reshape(output.shape)
        return output

    def shared(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Returns the factors that apply to every row, ``A [r, d_in]`` and ``B [d_out, r]``."""
        pairs = [self._memories[0].stacked(name)] if len(self._memories) == 1 else []
        if len(self._training) == 1:
            pairs.append(self._training[0].get(name))
        return [pair for pair in pairs if pair is not None]

    def grouped(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Returns the factors that differ by group of rows, ``A [groups, r, d_in]`` and ``B [groups, d_out, r]``."""
        if name not in self._grouped:
            found = [
                self._padded(name, pairs)
                for pairs in ([m.stacked(name) for m in self._memories], [f.get(name) for f in self._training])
                if len(pairs) > 1
            ]
            self._grouped[name] = [pair for pair in found if pair is not None]
        return self._grouped[name]

    def _padded(self, name: str, pairs: list[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor] | None:
        """Stacks the factors of all groups, zero-padded to the largest rank; None if no group has any."""
        present = [pair for pair in pairs if pair is not None]
        if not present:
            return None
        rank = max(len(a) for a, _ in present)
        d_in, d_out = features(self._lm.linear(name))
        empty = present[0][0].new_zeros(0, d_in), present[0][1].new_zeros(d_out, 0)
        of_groups = [empty if pair is None else pair for pair in pairs]
        pad = torch.nn.functional.pad
        return (
            torch.stack([pad(a, (0, 0, 0, rank - len(a))) for a, _ in of_groups]),
            torch.stack([pad(b, (0, rank - b.shape[1])) for _, b in of_groups]),
        )
