"""Slots of low-rank terms on a frozen base: every memory is ``y = W x + s B (A x)`` and nothing else.

A :class:`Memory` is one slot: the terms of one learner. An :class:`Overlay` adds memories to the forward
pass of a model whose weights are never written, one memory per batch row, so that many learners share one
model and one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sleepgym.lm.architecture import features
from sleepgym.lm.language_model import LanguageModel

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Per module name ``A [r, d_in]`` and ``B [d_out, r]``."""


class OverlayError(ValueError):
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
    """Adds memories to a model's forward pass through hooks on its linears.

    Only one memory (or one per batch row) is in use at a time, inside :meth:`use`; outside it, the model
    is bare. The hooks cost one dictionary look-up per linear when a module has no term.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._memory: Memory | None = None
        self._rows: tuple[Memory, ...] = ()
        self._training: Factors = {}
        self._handles = [
            lm.linear(name).register_forward_hook(self._hook(name)) for block in lm.blocks for name in block.linears
        ]

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextmanager
    def use(self, memory: Memory | Sequence[Memory], training: Factors | None = None) -> Iterator[None]:
        """Runs the model with a memory; or with one memory per batch row.

        Args:
            memory: One memory for the whole batch, or a sequence as long as the batch; empty for none.
            training: Factors added to every row on top, through which gradients flow.
        """
        before = self._memory, self._rows, self._training
        self._memory = memory if isinstance(memory, Memory) else None
        self._rows = () if isinstance(memory, Memory) else tuple(memory)
        self._training = training or {}
        try:
            yield
        finally:
            self._memory, self._rows, self._training = before

    def _hook(self, name: str):  # type: ignore[no-untyped-def]  # torch types hooks as Callable
        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = args[0]
            for a, b in self._shared(name):
                output = output + (x @ a.to(x.device, x.dtype).T) @ b.to(x.device, x.dtype).T
            if self._rows:
                if x.ndim == 2 and len(x) % len(self._rows) == 0:
                    # Some models flatten rows and tokens before the MLP.
                    x = x.reshape(len(self._rows), -1, x.shape[-1])
                delta = self._rowwise(name, x)
                output = output if delta is None else output + delta.reshape(output.shape)
            return output

        return add

    def _shared(self, name: str) -> list[tuple[Tensor, Tensor]]:
        """Factors that every batch row goes through."""
        pairs = [self._memory.stacked(name)] if self._memory is not None else []
        pairs.append(self._training.get(name))
        return [pair for pair in pairs if pair is not None]

    def _rowwise(self, name: str, x: Tensor) -> Tensor | None:
        """``[rows, tokens, d_out]``: each row through its own memory, ranks padded with zeros to the widest."""
        if len(self._rows) != x.shape[0]:
            raise OverlayError(
                f"expected one memory per batch row, found {len(self._rows)} memories for {x.shape[0]} rows"
            )
        distinct = list({id(m): m for m in self._rows}.values())
        pairs = [m.stacked(name) for m in distinct]
        rank = max((p[0].shape[0] for p in pairs if p is not None), default=0)
        if rank == 0:
            return None
        d_in, d_out = features(self.lm.linear(name))
        a = x.new_zeros(len(distinct), rank, d_in)
        b = x.new_zeros(len(distinct), d_out, rank)
        for i, pair in enumerate(pairs):
            if pair is not None:
                a[i, : pair[0].shape[0]] = pair[0]
                b[i, :, : pair[1].shape[1]] = pair[1]
        index = {id(m): i for i, m in enumerate(distinct)}
        rows = torch.tensor([index[id(m)] for m in self._rows], device=x.device)
        return torch.bmm(torch.bmm(x, a[rows].transpose(1, 2)), b[rows].transpose(1, 2))
