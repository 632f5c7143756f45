"""Memories added to the forward pass of a model whose weights are never written.

Each memory is added to its own rows of the batch, so that many learners share one model and one pass.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from sleepgym.lm.architecture import features
from sleepgym.lm.continuation import Continuation, Start, agree, start_at
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import Logits
from sleepgym.memory.kept import Kept, rounded_up
from sleepgym.memory.terms import Factors, Memory, OverlayError, Term, acting

__all__ = ["Factors", "Memory", "Overlay", "OverlayError", "Term"]


_Gated = tuple[Tensor, Tensor, Tensor | None]
"""Factors ``A`` and ``B`` with the gates of the rows of ``A``."""

_KEPT = 8
"""Maximum number of widths and starts that rows are kept for."""


class Overlay:
    """Adds memories to a model's forward pass.

    Memories apply inside :meth:`use` and :meth:`logits` only; outside them, the model is bare and without hooks. What
    an overlay keeps follows from the model: several overlays on one model are equivalent to one.

    Args:
        lm: The model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self._kept: OrderedDict[tuple[Start, int], Kept] = OrderedDict()
        self._usable: dict[Start, Start] = {}

    @contextmanager
    def use(
        self,
        memory: Memory | Sequence[Memory],
        training: Term | Sequence[Term] = (),
        but: Collection[str] = (),
    ) -> Iterator[None]:
        """Runs the model with one memory, or with one memory per group of batch rows, within a context.

        A nested use replaces the outer one until it ends.

        Args:
            memory: One memory for the whole batch; or a sequence of memories, in which case the batch consists of as
                many consecutive groups of equal size, one per memory. Empty for the bare model.
            training: Term that is added to those of the memories at full scale and receives gradients; one for all
                groups, or one per group.
            but: Names of linears that nothing is added to.

        Raises:
            OverlayError: In a forward pass, the batch rows cannot be divided evenly among the memories.
        """
        memories = (memory,) if isinstance(memory, Memory) else tuple(memory)
        trained = (training,) if isinstance(training, Term) else tuple(training)
        in_use = _InUse(self.lm, memories, trained)
        with self.lm.adding({name: partial(in_use.added, name) for name in in_use.modules if name not in but}):
            yield

    @torch.no_grad()
    def logits(self, memories: Sequence[Memory], rows: Sequence[tuple[int, ...]], at: tuple[Tensor, Tensor]) -> Tensor:
        """Returns logits ``[n, vocabulary]`` (float32) that follow tokens, as in :meth:`use`, from the least that runs.

        What lies below the lowest linear with a term is kept per row, see :class:`~sleepgym.memory.kept.Kept`. Two rows
        are compared with a plain pass; on a model that disagrees with it, passes start lower.

        Args:
            memories: One per group of rows.
            rows: Token rows, in as many consecutive groups of equal size.
            at: Rows and columns of the tokens, ``[n]`` each.
        """
        with self.lm.guard.usual(), torch.no_grad():
            terms = (term.factors for memory in memories for term in memory.terms.values() if term.scale != 0)
            kept = self._kept_for(rows, {name for factors in terms for name in factors})
            if kept is None:
                with self.use(memories):
                    return self.lm.logits_at(self.lm.pad(rows), *at, narrow=True)
            return self._resumed(memories, rows, at, kept)

    @torch.no_grad()
    def continuation(
        self, rows: Sequence[tuple[int, ...]], linears: Collection[str], starts: Sequence[int]
    ) -> Continuation:
        """Returns a continuation of rows on the bare model that runs all of the given linears again.

        It is valid for every memory with terms on these linears only. What lies below is kept, as in :meth:`logits`.

        Args:
            rows: Token rows.
            linears: Names of linears.
            starts: Per row the first position that will be read.
        """
        with self.lm.guard.usual(), torch.no_grad():
            kept = self._kept_for(rows, linears)
            if kept is None:
                with self.use(()):
                    return Continuation(self.lm, rows, [0] * len(rows), self._usable_start(rows, linears))
            below = kept.below((), kept.places(rows), max(map(len, rows)))
            return Continuation.above(self.lm, rows, kept.start, below, starts)

    def asked(self, memory: Memory) -> Logits:
        """Returns what runs rows under one memory, for :func:`sleepgym.lm.score` and :func:`sleepgym.lm.perplexity`."""
        return partial(self.logits, [memory])

    def _resumed(
        self, memories: Sequence[Memory], rows: Sequence[tuple[int, ...]], at: tuple[Tensor, Tensor], kept: Kept
    ) -> Tensor:
        below = kept.below(memories, kept.places(rows), max(map(len, rows)))
        first = torch.full((len(rows),), max(map(len, rows))).scatter_reduce(0, at[0].cpu(), at[1].cpu(), "amin")
        run = Continuation.above(self.lm, rows, kept.start, below, first.tolist())
        with self.use(memories, but=[kept.module]):
            return run.logits(*at, narrow=True)

    def _kept_for(self, rows: Sequence[tuple[int, ...]], linears: Collection[str]) -> Kept | None:
        """Returns what is kept below the given linears; None if nothing is, or not for so many rows."""
        start, width = self._usable_start(rows, linears), rounded_up(max(map(len, rows)))
        if start == Start(0):
            return None
        if (start, width) not in self._kept:
            self._kept[start, width] = Kept(self.lm, start, width)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        kept = self._kept[start, width]
        self._kept.move_to_end((start, width))
        return kept if len(set(rows)) <= kept.capacity else None

    def _usable_start(self, rows: Sequence[tuple[int, ...]], linears: Collection[str]) -> Start:
        """Returns the highest start below the given linears at which passes agree with plain ones."""
        wanted = start_at(self.lm, linears)
        if wanted not in self._usable:
            start = wanted
            chosen = [min(rows, key=len), max(rows, key=len)]
            at = torch.tensor([0, 1]), torch.tensor([len(row) - 1 for row in chosen])
            with self.use(()):  # whatever an outer call adds
                plain = self.lm.logits_at(self.lm.pad(chosen), *at)
            while start != Start(0):
                kept = Kept(self.lm, start, rounded_up(len(chosen[1])))
                kept.places(chosen)
                if kept.is_complete and agree(plain, self._resumed((), chosen, at, kept), self.lm.dtype):
                    break
                start = start.fallback
            self._usable[wanted] = start
        return self._usable[wanted]


class _InUse:
    """Memories and trained factors of one :meth:`Overlay.use`, stacked per module when it first runs."""

    def __init__(self, lm: LanguageModel, memories: tuple[Memory, ...], training: tuple[Term, ...]) -> None:
        self._lm = lm
        self._memories, self._training = memories, training
        self._grouped: dict[str, list[_Gated]] = {}

    @property
    def modules(self) -> list[str]:
        """Names of the linears that a term or trained factors are added to."""
        terms = (term for memory in self._memories for term in memory.terms.values() if term.scale != 0)
        return list(dict.fromkeys(name for term in (*terms, *self._training) for name in term.factors))

    def added(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        """Returns a linear's output ``[..., d_out]`` plus the terms of memories and trained factors."""
        for a, b, gates in self.shared(name):
            output = output + acting(x @ a.to(x.device, x.dtype).T, gates) @ b.to(x.device, x.dtype).T
        for a, b, gates in self.grouped(name):
            if len(x) % len(a):
                raise OverlayError(
                    f"expected batch rows that {len(a)} memories can share out evenly, found {len(x)} rows"
                )
            # Reshaped, since some models flatten rows and tokens before the MLP.
            rows = x.reshape(len(a), -1, x.shape[-1])
            activations = acting(torch.bmm(rows, a.to(x.device, x.dtype).mT), gates)
            delta = torch.bmm(activations, b.to(x.device, x.dtype).mT)
            output = output + delta.reshape(output.shape)
        return output

    def shared(self, name: str) -> list[_Gated]:
        """Returns the factors that apply to every row: ``A [r, d_in]``, ``B [d_out, r]`` and their gates ``[r]``."""
        found: list[_Gated] = []
        if len(self._memories) == 1 and (pair := self._memories[0].stacked(name)) is not None:
            found.append((*pair, self._memories[0].gates(name)))
        if len(self._training) == 1 and (pair := self._training[0].factors.get(name)) is not None:
            found.append((*pair, self._training[0].gates.get(name)))
        return found

    def grouped(self, name: str) -> list[_Gated]:
        """Returns the factors that differ by group of rows, ``A [groups, r, d_in]`` and ``B [groups, d_out, r]``.

        Their gates are ``[groups, 1, r]``.
        """
        if name not in self._grouped:
            found: list[_Gated | None] = []
            if len(self._memories) > 1:
                gates = [memory.gates(name) for memory in self._memories]
                found.append(self._padded(name, [memory.stacked(name) for memory in self._memories], gates))
            if len(self._training) > 1:
                pairs = [term.factors.get(name) for term in self._training]
                found.append(self._padded(name, pairs, [term.gates.get(name) for term in self._training]))
            self._grouped[name] = [each for each in found if each is not None]
        return self._grouped[name]

    def _padded(
        self, name: str, pairs: Sequence[tuple[Tensor, Tensor] | None], gates: Sequence[Tensor | None]
    ) -> _Gated | None:
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
            self._padded_gates(present[0][0], gates, rank),
        )

    def _padded_gates(self, like: Tensor, gates: Sequence[Tensor | None], rank: int) -> Tensor | None:
        """Stacks the gates of all groups, ``[groups, 1, rank]``; None if no group has any."""
        if all(each is None for each in gates):
            return None
        present = [like.new_empty(0) if each is None else each for each in gates]
        pad = torch.nn.functional.pad
        return torch.stack([pad(each, (0, rank - len(each)), value=-math.inf) for each in present])[:, None]
