"""Runs rows of tokens again and again from some position on, with all that cannot change computed once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from sleepgym.lm.language_model import LanguageModel, StopForward, hooked, replaced_forward


class Continuation:
    """Rows of tokens of which only what follows a position, in and above a block, is run again.

    Attention is causal, so nothing before a row's start depends on what happens there, and what happens in a
    block does not reach the blocks below it: the keys and values of the former and the outputs of the latter
    are kept. Two rows are compared with a plain forward pass; a model whose cache disagrees with it is run
    from the beginning each time, which is slower and never wrong.

    Args:
        lm: The model. What is in use on it now must be in use at every pass.
        rows: Token rows.
        starts: Per row the first position that is run again.
        first_block: Index of the lowest block that is run again; as many as there are blocks: only what follows them.

    Attributes:
        starts: Per row the position of the first token that a pass runs, ``[rows]`` (zeros where nothing is kept).
    """

    def __init__(self, lm: LanguageModel, rows: Sequence[Sequence[int]], starts: Sequence[int], first_block: int):
        self.lm = lm
        self._keep(rows, starts, first_block)
        if not self._agrees(rows):
            self._keep(rows, [0] * len(rows), 0)

    @torch.no_grad()
    def _keep(self, rows: Sequence[Sequence[int]], starts: Sequence[int], first_block: int) -> None:
        with self.lm.guard.exclusive():
            self._keep_alone(rows, starts, first_block)

    def _keep_alone(self, rows: Sequence[Sequence[int]], starts: Sequence[int], first_block: int) -> None:
        lm = self.lm
        self.starts = torch.tensor(starts, device=lm.device)
        self._ids = lm.pad([row[start:] for row, start in zip(rows, starts, strict=True)])
        self._mask: Tensor | None = None
        self._cache: Cache | None = None
        self._lower: list[Any] = []
        self._has_positions = "position_ids" in inspect.signature(lm.model.forward).parameters
        kept = max(starts)
        if kept:
            # Padded on the left, so that what is kept of a row ends where the part that is run again begins.
            filled = lm.pad([row[:start][::-1] for row, start in zip(rows, starts, strict=True)]).flip(1)
            before = torch.arange(kept, device=lm.device)[None] >= kept - self.starts[:, None]
            positions = (before.long().cumsum(1) - 1).clamp(min=0)
            body = lm.model.base_model
            arguments = {"position_ids": positions} if self._has_positions else {}
            output = body(input_ids=filled, attention_mask=before.long(), use_cache=True, **arguments)
            self._cache = getattr(output, "past_key_values", None)
            if not isinstance(self._cache, Cache):  # an old architecture without one
                return self._keep_alone(rows, [0] * len(rows), first_block)
            self._mask = torch.cat([before, torch.ones_like(self._ids, dtype=torch.bool)], 1).long()
        if first_block:
            above = [lm.linear(block.name) for block in lm.blocks[first_block:]]
            below, first = lm.linear(lm.blocks[first_block - 1].name), (*above, lm.model.get_output_embeddings())[0]
            outputs: list[Any] = []
            keep = below.register_forward_hook(lambda module, args, output: outputs.append(output))
            with hooked(keep, first.register_forward_pre_hook(_stop)), suppress(StopForward):
                lm.model(input_ids=self._ids, **self._arguments())
            # Nobody looks at what the blocks below this one put out: they may say the same.
            self._lower = outputs * first_block

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
        arguments = self._arguments()
        with self.lm.guard.exclusive(), ExitStack() as stack:
            for block, output in zip(self.lm.blocks, self._lower, strict=False):
                stack.enter_context(replaced_forward(self.lm.linear(block.name), _constant(output)))
            return self.lm.logits_at(self._ids, rows, columns - self.starts[rows], narrow, **arguments)

    def select(self, rows: Tensor) -> Continuation:
        """The same with some of the rows only."""
        chosen = copy.copy(self)
        chosen.starts, chosen._ids = self.starts[rows], self._ids[rows]
        chosen._lower = [_of_rows(output, rows) for output in self._lower]
        if self._cache is not None and self._mask is not None:
            chosen._mask = self._mask[rows]
            chosen._cache = _copied(self._cache)
            chosen._cache.batch_select_indices(rows)
        return chosen

    @torch.no_grad()
    def _agrees(self, rows: Sequence[Sequence[int]]) -> bool:
        """Whether the rows that start earliest and latest give the logits of a plain pass."""
        if self._cache is None and not self._lower:
            return True
        chosen = torch.stack([self.starts.argmin(), self.starts.argmax()])
        ends = [len(rows[i]) - 1 for i in chosen.tolist()]
        which = torch.tensor([0, 1], device=self.lm.device)
        at = torch.tensor(ends, device=self.lm.device)
        plain = self.lm.logits_at(self.lm.pad([rows[i] for i in chosen.tolist()]), which, at)
        kept = self.select(chosen).logits(which, at)
        # In half precision the order of a sum shows in many logits a little; a cache gone wrong shows in all of them.
        tolerance = 1e-3 if self.lm.dtype == torch.float32 else 0.1
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
    """Rows of a block's output, whatever the architecture returns."""
    if isinstance(output, Tensor):
        return output[rows.to(output.device)]
    if isinstance(output, (tuple, list)):
        return type(output)(_of_rows(part, rows) for part in output)
    return output
