"""Slots of low-rank terms on a frozen base: every memory is ``y = W x + s B (A x)`` and nothing else.

A :class:`Memory` is one slot: the terms of one learner. An :class:`Overlay` adds memories to the forward
pass of a model whose weights are never written, each to its own rows of the batch, so that many learners share
one model and one pass.
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
"""Per module name ``A [r, d_in]`` and ``B [d_out, r]``."""


class OverlayError(SleepGymError, ValueError):
    """A term that does not fit; the memory is as it was."""


@dataclass(frozen=True)
class Term:
    """Low-rank factors of one owner over one or more modules, at one scale.

    Attributes:
        factors: ``A`` and ``B`` by module.
        scale: Multiplies what the term adds.
        weight: How much the term counted in the least squares it comes from. The forward pass ignores it; whoever
            solves for more terms beside this one needs it.
    """

    factors: Factors
    scale: float = 1.0
    weight: float = 1.0

    @property
    def rank(self) -> int:
        """Largest rank over the modules."""
        return max((a.shape[0] for a, _ in self.factors.values()), default=0)


class Memory:
    """One slot: terms by owner, in the order in which they were added.

    Terms are immutable and shared between copies, so that :meth:`copy` costs a dictionary. ``version``
    changes with every change of the forward pass: equal versions of one memory mean equal logits.
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
        """Rank in use on one module."""
        return sum(t.factors[module][0].shape[0] for t in self._terms.values() if module in t.factors)

    @property
    def parameters(self) -> int:
        """Numbers held by all terms."""
        return sum(a.numel() + b.numel() for t in self._terms.values() for a, b in t.factors.values())

    def put(self, owner: str, factors: Factors, scale: float = 1.0, weight: float = 1.0) -> None:
        """Adds a term, replacing the owner's earlier one (never beside it).

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
        """Reverts a term exactly: the logits are those of a memory that never had it."""
        del self._terms[owner]
        self._touch()

    def scale(self, owner: str, scale: float) -> None:
        """Sets a term's scale; 0 switches it off but keeps its factors."""
        if self._terms[owner].scale != scale:
            self._terms[owner] = replace(self._terms[owner], scale=scale)
            self._touch()

    def clear(self) -> None:
        """Forgets everything."""
        self._terms.clear()
        self._touch()

    def copy(self) -> Memory:
        """An independent memory with the same terms."""
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
        """A copy in which the named terms are switched off."""
        gone = set(owners)
        return Memory({o: t for o, t in self._terms.items() if o not in gone}, self.version)

    def _touch(self) -> None:
        self._stacked.clear()
        self.version += 1

    def stacked(self, module: str) -> tuple[Tensor, Tensor] | None:
        """All terms of a module as one: ``A [R, d_in]`` and ``B [d_out, R]`` with the scales in ``B``."""
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

    What is in use is in use inside :meth:`use`; outside it, the model is bare and without hooks. An overlay holds
    nothing of its own: any number of them on one model are as good as one.

    Args:
        lm: The model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm

    @contextmanager
    def use(self, memory: Memory | Sequence[Memory], training: Factors | Sequence[Factors] = ()) -> Iterator[None]:
        """Runs the model with a memory; or with several, each for its share of the batch.

        Inside another use, it takes the other's place until it ends.

        Args:
            memory: One memory for the whole batch; or a sequence: the rows of the batch are that many groups of
                equal size, one after the other, and each group has its own. Empty for none.
            training: Factors added on top, through which gradients flow; one for all, or one per group.
        """
        memories = (memory,) if isinstance(memory, Memory) else tuple(memory)
        trained = (training,) if isinstance(training, Mapping) else tuple(training)
        in_use = _InUse(self.lm, memories, trained)
        with self.lm.adding({name: partial(in_use.added, name) for name in in_use.modules}):
            yield


class _InUse:
    """Memories and factors in training of one use, put together per module when it is first run."""

    def __init__(self, lm: LanguageModel, memories: tuple[Memory, ...], training: tuple[Factors, ...]) -> None:
        self._lm = lm
        self._memories, self._training = memories, training
        self._grouped: dict[str, list[tuple[Tensor, Tensor]]] = {}

    @property
    def modules(self) -> list[str]:
        """Names of the linears that something is added to."""
        terms = (term.factors for memory in self._memories for term in memory.terms.values() if term.scale != 0)
        return list(dict.fromkeys(name for factors in (*terms, *self._training) for name in factors))

    def added(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        """The linear's output with what memories and training add to it."""
        for a, b in self.shared(name):
            output = output + (x @ a.to(x.device, x.dtype).T) @ b.to(x.device, x.dtype).T
        for a, b in self.grouped(name):
            if len(x) % len(a):
                raise OverlayError(
                    f"expected batch rows that {len(a)} memories can share out evenly, found {len(x)} rows"
                )
            # Also where a model flattens rows and tokens before the MLP.
            rows = x.reshape(len(a), -1, x.shape[-1])
            delta = torch.bmm(torch.bmm(rows, a.to(x.device, x.dtype).mT), b.to(x.device, x.dtype).mT)
            output = output + delta.reshape(output.shape)
        return output

    def shared(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Factors that every row goes through, ``A [r, d_in]`` and ``B [d_out, r]``."""
        pairs = [self._memories[0].stacked(name)] if len(self._memories) == 1 else []
        if len(self._training) == 1:
            pairs.append(self._training[0].get(name))
        return [pair for pair in pairs if pair is not None]

    def grouped(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Factors by group of rows, ``A [groups, r, d_in]`` and ``B [groups, d_out, r]``."""
        if name not in self._grouped:
            found = [
                self._together(name, pairs)
                for pairs in ([m.stacked(name) for m in self._memories], [f.get(name) for f in self._training])
                if len(pairs) > 1
            ]
            self._grouped[name] = [pair for pair in found if pair is not None]
        return self._grouped[name]

    def _together(self, name: str, pairs: list[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor] | None:
        """Ranks are padded with zeros to the widest."""
        present = [pair for pair in pairs if pair is not None]
        if not present:
            return None
        rank = max(len(a) for a, _ in present)
        d_in, d_out = features(self._lm.linear(name))
        nothing = present[0][0].new_zeros(0, d_in), present[0][1].new_zeros(d_out, 0)
        of_groups = [nothing if pair is None else pair for pair in pairs]
        pad = torch.nn.functional.pad
        return (
            torch.stack([pad(a, (0, 0, 0, rank - len(a))) for a, _ in of_groups]),
            torch.stack([pad(b, (0, rank - b.shape[1])) for _, b in of_groups]),
        )
