"""What questions have in common under every memory: kept per row of tokens, and per term of a memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.lm.architecture import features
from sleepgym.lm.continuation import Below, Start, run_below
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.terms import Memory, acting

_BYTES = 256 * 2**20
"""Maximum size of what is kept for rows of one width."""

_TERMS = 256
"""Maximum number of terms whose activations at rows are kept."""

_ROWS = 4
"""Rows per pass up to the start."""

_TOGETHER = 4
"""Terms whose activations are computed in one product: what rows feed to the linear is read from memory once."""

_WIDTHS = 8
"""Rows are kept with others whose length is the same, once rounded up to a multiple of this."""


def rounded_up(tokens: int) -> int:
    """Returns the width that rows of so many tokens are kept in."""
    return -(-tokens // _WIDTHS) * _WIDTHS


class Kept:
    """Rows of tokens on the frozen base up to a start, and activations of terms at the start's linear.

    Below the lowest linear that any term touches, everything depends on the tokens only: it is run once per row, and
    all memories share it. Where that linear is a down-projection, a term of rank one adds ``B (A x)`` to its output,
    and its activation ``A x`` is one number per token: it is computed once per term and row. What was used longest ago
    makes room.

    Args:
        lm: The model.
        start: Lowest part of the model that is run again, above its first linear.
        width: Number of tokens of the longest row.

    Attributes:
        capacity: Maximum number of rows.
        module: Name of the down-projection of a start inside a block; empty otherwise.
    """

    def __init__(self, lm: LanguageModel, start: Start, width: int) -> None:
        self.lm, self.start, self.width = lm, start, width
        self.module = lm.blocks[start.block].down_proj if start.inside else ""
        self._parts: dict[str, Tensor] = {}
        self._besides: dict[str, Sequence[object] | None] = {}
        self._places: OrderedDict[tuple[int, ...], int] = OrderedDict()
        # Of each place the number of its row: another row that comes to it has another one.
        self._numbers = np.zeros(0, np.int64)
        self._rows_so_far = 0
        # By identity of its A, which is kept with it so that no other tensor can have it: the place of a term.
        self._terms: OrderedDict[int, tuple[Tensor, int]] = OrderedDict()
        self._activations = torch.empty(_TERMS, 0, width)
        # Of which row an activation is.
        self._activated = np.zeros((_TERMS, 0), np.int64)
        self.capacity = max(1, _BYTES // (width * self._bytes_per_token()))

    def _bytes_per_token(self) -> int:
        d_in, d_out = features(self.lm.linear(self.lm.blocks[0].down_proj))
        # Keys and values, of which grouped heads share some, are as wide as the residual stream at most.
        numbers = d_out + (d_in + 2 * d_out if self.start.inside else 2 * d_out if self.start.tails else 0)
        return numbers * torch.empty(0, dtype=self.lm.dtype).element_size()

    @property
    def is_complete(self) -> bool:
        """Whether the model gave keys and values, as tails need them; known once a row is kept."""
        return not self.start.tails or "keys" in self._parts

    # ------------------------------------------------------------------ rows

    def places(self, rows: Sequence[tuple[int, ...]]) -> Tensor:
        """Returns the places of rows, ``[rows]``; those that have none are run up to the start first.

        Args:
            rows: Token rows, at most :attr:`capacity` different ones.
        """
        for row in rows:
            if row in self._places:
                self._places.move_to_end(row)
        missing = [row for row in dict.fromkeys(rows) if row not in self._places]
        if missing:
            self._keep(missing, in_use=set(rows))
        return torch.tensor([self._places[row] for row in rows])

    def _keep(self, rows: Sequence[tuple[int, ...]], in_use: set[tuple[int, ...]]) -> None:
        free = self._room(len(rows), in_use)
        filled = [[*row, *[row[-1]] * (self.width - len(row))] for row in rows]
        # Always as many in a pass, so that the last bits do not depend on what was asked together.
        filled += [filled[-1]] * (-len(filled) % _ROWS)
        for first in range(0, len(filled), _ROWS):
            with self.lm.adding({}):
                ids = torch.tensor(filled[first : first + _ROWS], device=self.lm.device)
                below = run_below(self.lm, self.start, ids)
            places = free[first : first + _ROWS]
            for name, output in vars(below).items():
                # What modules return besides their output, such as what they attended to, nobody above looks at.
                part = output[0] if isinstance(output, (tuple, list)) else output
                self._besides[name] = output[1:] if isinstance(output, (tuple, list)) else None
                if part is not None:
                    self._grown(name, part)[places] = part[: len(places)]
        for row, place in zip(rows, free, strict=True):
            self._rows_so_far += 1
            self._places[row], self._numbers[place] = place, self._rows_so_far

    def _room(self, count: int, in_use: set[tuple[int, ...]]) -> list[int]:
        """Returns so many places for rows: new ones up to the capacity, then those of rows used longest ago."""
        size = len(self._numbers)
        while size < min(self.capacity, len(self._places) + count):
            size = min(self.capacity, size + max(size // 2, 16))
        more = size - len(self._numbers)
        if more:
            self._numbers = np.pad(self._numbers, (0, more))
            self._activated = np.pad(self._activated, ((0, 0), (0, more)))
            self._activations = torch.nn.functional.pad(self._activations, (0, 0, 0, more))
        taken = set(self._places.values())
        free = [place for place in range(size) if place not in taken][:count]
        for row in [row for row in self._places if row not in in_use][: count - len(free)]:
            free.append(self._places.pop(row))
        return free

    def _grown(self, name: str, like: Tensor) -> Tensor:
        """Returns the tensor of a part, with a row for every place."""
        part, size = self._parts.get(name, like[:0]), len(self._numbers)
        if len(part) < size:
            part = torch.cat([part, like.new_zeros(size - len(part), *like.shape[1:])])
        self._parts[name] = part
        return part

    # ----------------------------------------------------------------- terms

    def below(self, memories: Sequence[Memory], places: Tensor, tokens: int) -> Below:
        """Returns what lies below the start, with the terms of memories at the start's linear.

        Args:
            memories: One per group of rows; empty for none.
            places: Places of the rows in as many groups of equal size, ``[rows]``.
            tokens: Number of tokens that are needed of each row.
        """
        found = {
            name: part[places.to(part.device), :tokens]
            for name, part in self._parts.items()
            if name != "hidden" or not memories
        }
        if self.start.inside and memories:
            groups = list(found["down"].chunk(len(memories)))
            for i, memory in enumerate(memories):
                added = self._added(memory, places.view(len(memories), -1)[i], tokens)
                if added is not None:
                    groups[i] = groups[i] + added
            found["down"] = torch.cat(groups)
        return Below(**{name: self._as_returned(name, part) for name, part in found.items()})

    def _as_returned(self, name: str, part: Tensor) -> Any:
        besides = self._besides[name]
        return part if besides is None else type(besides)([part, *[None] * len(besides)])  # type: ignore[call-arg]

    def _added(self, memory: Memory, places: Tensor, tokens: int) -> Tensor | None:
        """Returns what a memory's terms add to the start's linear, ``[rows, tokens, d_out]``; None without any."""
        stacked = memory.stacked(self.module)
        if stacked is None:
            return None
        a = [t.factors[self.module][0] for t in memory.terms.values() if self.module in t.factors and t.scale != 0]
        hidden = self._parts["hidden"]
        if len(a) <= _TERMS and all(len(rows) == 1 for rows in a):
            activations = self._activations_of(a, places, tokens)
        else:
            activations = hidden[places.to(hidden.device), :tokens] @ stacked[0].to(hidden).T
        activations = acting(activations, memory.gates(self.module))
        return activations @ stacked[1].to(activations).T

    def _activations_of(self, a: Sequence[Tensor], places: Tensor, tokens: int) -> Tensor:
        """Returns ``A x`` of terms of rank one, ``[rows, tokens, terms]``."""
        hidden, slots, at = self._parts["hidden"], self._slots(a), places.numpy()
        self._activations = self._activations.to(hidden)
        known = self._activated[slots[:, None], at] == self._numbers[at]
        if not known.all():
            missing = at[~known.all(0)]
            # All rows between the first and the last of them: a slice is not copied, and others will be asked for.
            chosen = slice(int(missing.min()), int(missing.max()) + 1)
            new = np.flatnonzero(~known.all(1)).tolist()
            for first in range(0, len(new), _TOGETHER):
                part = new[first : first + _TOGETHER]
                # Always as many, so that the last bits do not depend on which terms were asked about before.
                rows = torch.cat([a[i] for i in part]).to(hidden)
                rows = torch.nn.functional.pad(rows, (0, 0, 0, _TOGETHER - len(part)))
                found = (hidden[chosen].flatten(0, 1) @ rows.T).view(-1, self.width, _TOGETHER)
                for column, i in enumerate(part):
                    self._activations[slots[i], chosen] = found[:, :, column]
                    self._activated[slots[i], chosen] = self._numbers[chosen]
        return self._activations[torch.from_numpy(slots)[:, None], places, :tokens].permute(1, 2, 0)

    def _slots(self, a: Sequence[Tensor]) -> NDArray[np.intp]:
        """Returns the places of terms."""
        for rows in a:
            if id(rows) in self._terms:
                self._terms.move_to_end(id(rows))
        for rows in a:
            if id(rows) not in self._terms:
                slot = self._terms.popitem(last=False)[1][1] if len(self._terms) == _TERMS else len(self._terms)
                self._activated[slot] = 0
                self._terms[id(rows)] = (rows, slot)
        return np.array([self._terms[id(rows)][1] for rows in a], dtype=np.intp)
