"""Runs rows of tokens again and again from some position and linear on, with all that cannot change computed once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache

from sleepgym.lm.architecture import Block
from sleepgym.lm.language_model import LanguageModel, StopForward, hooked, replaced_forward


@dataclass(frozen=True)
class Start:
    """Lowest part of a model that is run again.

    Attributes:
        block: Index of its block; as many as there are blocks: only what follows them.
        inside: Whether only the block's down-projection is run again, and what follows it.
        tails: Whether only tokens from the first one on that is read are run again, since the keys and values of the
            others stay as they are; of the last block only.
    """

    block: int
    inside: bool = False
    tails: bool = False

    @property
    def fallback(self) -> Start:
        """The next lower start."""
        return Start(self.block) if self.inside or self.tails else Start(0)


_BEHIND_KEYS = ("q_proj", "o_proj", "out_proj")
"""Linears of an attention that its keys and values do not depend on."""


def start_at(lm: LanguageModel, linears: Collection[str]) -> Start:
    """Returns the highest start that runs all of the given linears again.

    Args:
        lm: The model.
        linears: Names of linears.
    """
    for index, block in enumerate(lm.blocks):
        touched = [name for name in block.linears if name in linears]
        if touched:
            # Where a block has no module that is its MLP or its attention, what they put out cannot be handed over.
            apart = block.mlp is not None and block.attention is not None
            if apart and touched == [block.down_proj]:
                return Start(index, inside=True)
            behind = apart and all(_is_behind_keys(block, name) for name in touched)
            return Start(index, tails=behind and index == len(lm.blocks) - 1)
    return Start(len(lm.blocks))


def _is_behind_keys(block: Block, name: str) -> bool:
    """Whether the keys and values of a block do not depend on one of its linears."""
    return name.startswith(f"{block.mlp}.") or name.rpartition(".")[2] in _BEHIND_KEYS


@dataclass
class Below:
    """What lies below a start, of a batch of rows; outputs may be tensors or what else modules return.

    Attributes:
        block: Output of the block before the start's; None for the first.
        attention: Output of the attention of the start's block, if the start is inside it.
        hidden: Input of its down-projection, ``[rows, tokens, d_in]``, if the start is inside it.
        down: Output of its down-projection, ``[rows, tokens, d_out]``, if the start is inside it.
        keys: Keys of the start's block, ``[rows, tokens, heads, d_head]``, if only tails of rows are run again.
        values: Values beside them.
    """

    block: Any = None
    attention: Any = None
    hidden: Tensor | None = None
    down: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None

    def select(self, rows: Tensor) -> Below:
        """The same with some of the rows only."""
        return Below(**{name: _of_rows(part, rows) for name, part in vars(self).items()})


@torch.no_grad()
def run_below(lm: LanguageModel, start: Start, input_ids: Tensor, **arguments: Any) -> Below:
    """Runs a model up to a start.

    Args:
        lm: The model; what is in use on it is part of what is found.
        start: Where it ends.
        input_ids: ``[rows, tokens]``.
        arguments: What else the model is called with, such as a cache.
    """
    found = Below()
    if start == Start(0):
        return found
    modules = [lm.linear(block.name) for block in lm.blocks]
    last = start.block + (start.inside or start.tails)
    cache = DynamicCache() if start.tails else None
    if cache is not None:
        arguments |= {"past_key_values": cache, "use_cache": True}
    end = (*modules[last:], lm.model.get_output_embeddings())[0]

    def keep(name: str) -> Callable[..., None]:
        return lambda module, args, output: setattr(found, name, output)

    with lm.guard.exclusive(), ExitStack() as stack:
        if start.block:
            stack.enter_context(hooked(modules[start.block - 1].register_forward_hook(keep("block"))))
        if start.inside:
            block = lm.blocks[start.block]
            assert block.attention is not None
            stack.enter_context(hooked(lm.linear(block.attention).register_forward_hook(keep("attention"))))
            stack.enter_context(_recorded(lm.linear(block.down_proj), found))
        stack.enter_context(hooked(end.register_forward_pre_hook(_stop)))
        with suppress(StopForward):
            lm.model(**{"input_ids": input_ids, "use_cache": False} | arguments)
    if cache is not None and len(cache.layers) == len(lm.blocks):
        keys, values = (getattr(cache.layers[start.block], name, None) for name in ("keys", "values"))
        if isinstance(keys, Tensor) and isinstance(values, Tensor):
            found.keys, found.values = keys.transpose(1, 2), values.transpose(1, 2)
    return found


@contextmanager
def _recorded(down: nn.Module, found: Below) -> Iterator[None]:
    """Records what a down-projection itself is given and puts out, before hooks add to it."""
    forward = down.forward

    def record(hidden: Tensor) -> Tensor:
        output = forward(hidden)
        # Some blocks add the rest to it in place.
        found.hidden, found.down = hidden, output.clone()
        return output

    with replaced_forward(down, record):
        yield


@contextmanager
def resumed(lm: LanguageModel, start: Start, below: Below) -> Iterator[None]:
    """Runs a model from a start on: all below it puts out what was found before.

    Hooks on the down-projection of a start inside a block see its input and its output as in a plain pass.
    """
    with lm.guard.exclusive(), ExitStack() as stack:
        # Nobody looks at what the blocks below the last of them put out: they may say the same.
        for block in lm.blocks[: start.block]:
            stack.enter_context(replaced_forward(lm.linear(block.name), _constant(below.block)))
        if start.inside:
            block = lm.blocks[start.block]
            assert block.attention is not None and block.mlp is not None and below.down is not None
            down, put_out = lm.linear(block.down_proj), below.down
            stack.enter_context(replaced_forward(lm.linear(block.attention), _constant(below.attention)))
            stack.enter_context(replaced_forward(lm.linear(block.mlp), lambda hidden: down(below.hidden)))
            stack.enter_context(replaced_forward(down, lambda hidden: put_out.clone()))
        yield


def can_be_narrow(lm: LanguageModel, start: Start) -> bool:
    """Whether the last block's MLP may be run at some positions only: not if it is what a start lies inside of."""
    return not (start.inside and start.block == len(lm.blocks) - 1)


class Continuation:
    """Rows of tokens of which only what follows a position and a start is run again.

    Attention is causal, so nothing before a row's first position depends on what happens there, and what happens above
    a start does not reach what lies below it: the keys and values of the former and the outputs of the latter are kept.
    Two rows are compared with a plain forward pass, unless rows as long have been before; a model that disagrees with
    it is run from a lower start, or from the beginning each time, which is slower and never wrong.

    Args:
        lm: The model. What is in use on it below the start must be in use at every pass.
        rows: Token rows.
        starts: Per row the first position that is run again.
        start: Lowest part of the model that is run again.

    Attributes:
        starts: Per row the position of the first token that a pass runs, ``[rows]`` (zeros where nothing is kept).
        start: Lowest part of the model that a pass runs.
    """

    _below: Below
    _mask: Tensor | None
    _cache: Cache | None

    def __init__(self, lm: LanguageModel, rows: Sequence[Sequence[int]], starts: Sequence[int], start: Start):
        self.lm = lm
        for at in (start, start.fallback) if start.inside else (start,):
            self._keep(rows, starts, at)
            if self._agrees(rows):
                return
        self._keep(rows, [0] * len(rows), Start(0))

    @classmethod
    def above(
        cls, lm: LanguageModel, rows: Sequence[Sequence[int]], start: Start, below: Below, starts: Sequence[int] = ()
    ) -> Continuation:
        """Returns the continuation of rows above what was found before, without a comparison.

        Args:
            lm: The model.
            rows: Token rows.
            start: Lowest part of the model that is run again.
            below: What lies below it, of the padded rows.
            starts: Per row the first position that is run again, if the start is one of tails.
        """
        run = cls.__new__(cls)
        run.lm, run.start, run._ids, run._below = lm, start, lm.pad(rows), below
        run.starts = torch.zeros(len(rows), dtype=torch.long, device=lm.device)
        run._mask = run._cache = None
        run._has_positions = _has_positions(lm)
        if start.tails and max(starts):
            run._cut(rows, starts)
        return run

    def _cut(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> None:
        """Takes what lies before each row's first position as keys and values, and the rest as rows."""
        lm, below, kept = self.lm, self._below, max(starts)
        assert below.keys is not None and below.values is not None
        self.starts = torch.tensor(starts, device=lm.device)
        self._ids = lm.pad([row[begin:] for row, begin in zip(rows, starts, strict=True)])
        # As in _keep_alone, what is before a row's first position ends where its rest begins.
        before = self.starts[:, None] - kept + torch.arange(kept, device=lm.device)
        after = (self.starts[:, None] + torch.arange(self._ids.shape[1], device=lm.device)).clamp(
            max=below.keys.shape[1] - 1
        )
        self._mask = torch.cat([before >= 0, torch.ones_like(self._ids, dtype=torch.bool)], 1).long()
        keys, values = (_of_tokens(part, before.clamp(min=0)) for part in (below.keys, below.values))
        self._cache = _cache_of(len(lm.blocks), keys.transpose(1, 2), values.transpose(1, 2))
        self._below = Below(block=_of_tokens(below.block, after))

    @torch.no_grad()
    def _keep(self, rows: Sequence[Sequence[int]], starts: Sequence[int], start: Start) -> None:
        with self.lm.guard.exclusive():
            self._keep_alone(rows, starts, start)

    def _keep_alone(self, rows: Sequence[Sequence[int]], starts: Sequence[int], start: Start) -> None:
        lm = self.lm
        self.start = start
        self.starts = torch.tensor(starts, device=lm.device)
        self._ids = lm.pad([row[begin:] for row, begin in zip(rows, starts, strict=True)])
        self._mask = self._cache = None
        self._has_positions = _has_positions(lm)
        kept = max(starts)
        if kept:
            # Padded on the left, so that what is kept of a row ends where the part that is run again begins.
            filled = lm.pad([row[:begin][::-1] for row, begin in zip(rows, starts, strict=True)]).flip(1)
            before = torch.arange(kept, device=lm.device)[None] >= kept - self.starts[:, None]
            positions = (before.long().cumsum(1) - 1).clamp(min=0)
            body = lm.model.base_model
            arguments = {"position_ids": positions} if self._has_positions else {}
            output = body(input_ids=filled, attention_mask=before.long(), use_cache=True, **arguments)
            self._cache = getattr(output, "past_key_values", None)
            if not isinstance(self._cache, Cache):  # an old architecture without one
                return self._keep_alone(rows, [0] * len(rows), start)
            self._mask = torch.cat([before, torch.ones_like(self._ids, dtype=torch.bool)], 1).long()
        self._below = run_below(lm, start, self._ids, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if self._cache is not None:
            columns = torch.arange(self._ids.shape[1], device=self._ids.device)
            arguments |= {"attention_mask": self._mask, "past_key_values": _copied(self._cache), "use_cache": True}
            if self._has_positions:
                arguments["position_ids"] = self.starts[:, None] + columns
        return arguments

    def logits(self, rows: Tensor, columns: Tensor, narrow: bool = False) -> Tensor:
        """Logits ``[n, vocabulary]`` (float32) that follow the tokens at ``(rows, columns)``.

        Args:
            rows: Indices of rows, ``[n]``.
            columns: Positions in the whole row, none before its start, ``[n]``.
            narrow: See :meth:`LanguageModel.logits_at`.
        """
        narrow = narrow and can_be_narrow(self.lm, self.start)
        with resumed(self.lm, self.start, self._below):
            return self.lm.logits_at(self._ids, rows, columns - self.starts[rows], narrow, **self._arguments())

    def select(self, rows: Tensor) -> Continuation:
        """The same with some of the rows only."""
        chosen = copy.copy(self)
        chosen.starts, chosen._ids = self.starts[rows], self._ids[rows]
        chosen._below = self._below.select(rows)
        if self._cache is not None and self._mask is not None:
            chosen._mask = self._mask[rows]
            chosen._cache = _copied(self._cache)
            chosen._cache.batch_select_indices(rows)
        return chosen

    @torch.no_grad()
    def _agrees(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether the rows that start earliest and latest give the logits of a plain pass."""
        kind, longest = (self.start, self._cache is not None), max(map(len, rows))
        if kind == (Start(0), False) or self.lm.agreed.get(kind, 0) >= longest:
            return True
        chosen = torch.stack([self.starts.argmin(), self.starts.argmax()])
        ends = [len(rows[i]) - 1 for i in chosen.tolist()]
        which = torch.tensor([0, 1], device=self.lm.device)
        at = torch.tensor(ends, device=self.lm.device)
        plain = self.lm.logits_at(self.lm.pad([rows[i] for i in chosen.tolist()]), which, at)
        agreed = agree(plain, self.select(chosen).logits(which, at), self.lm.dtype)
        if agreed:
            self.lm.agreed[kind] = longest
        return agreed


def _has_positions(lm: LanguageModel) -> bool:
    return "position_ids" in inspect.signature(lm.model.forward).parameters


def _cache_of(blocks: int, keys: Tensor, values: Tensor) -> Cache:
    """A cache of the last of some blocks, ``[rows, heads, tokens, d_head]``; what the others have, nobody reads.

    All are as long and none is empty, since models ask the first block how many tokens there are.
    """
    cache = DynamicCache()
    for block in range(blocks):
        is_last = block == blocks - 1
        cache.update(*((keys, values) if is_last else (keys[:, :1, :, :1], values[:, :1, :, :1])), block)
    return cache


def _of_tokens(output: Any, columns: Tensor) -> Any:
    """Tokens ``[rows, chosen]`` of a module's output, whatever the architecture returns."""
    if isinstance(output, Tensor):
        rows = torch.arange(len(output), device=output.device)[:, None]
        return output[rows, columns.to(output.device)]
    if isinstance(output, (tuple, list)):
        return type(output)(_of_tokens(part, columns) for part in output)
    return output


def agree(plain: Tensor, kept: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits of a shortened pass are those of a plain one, up to rounding in a type of activations."""
    # In half precision the order of a sum shows in many logits a little; a cache gone wrong shows in all of them.
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    return bool((plain - kept).square().mean().sqrt() <= tolerance * plain.std())


def _stop(module: nn.Module, args: Any) -> None:
    raise StopForward


def _constant(output: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: output


def _copied(cache: Cache) -> Cache:
    """A cache that can grow without changing this one; the tensors are shared."""
    copied = copy.copy(cache)
    copied.layers = [copy.copy(layer) for layer in cache.layers]
    return copied


def _of_rows(output: Any, rows: Tensor) -> Any:
    """Rows of a module's output, whatever the architecture returns."""
    if isinstance(output, Tensor):
        return output[rows.to(output.device)]
    if isinstance(output, (tuple, list)):
        return type(output)(_of_rows(part, rows) for part in output)
    return output
