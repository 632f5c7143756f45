"""Outputs of the frozen base's lower blocks, kept per row of tokens: they are the same for every learner and night."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from sleepgym.lm.continuation import Continuation
from sleepgym.lm.language_model import StopForward, hooked, replaced_forward
from sleepgym.memory.overlay import Overlay

Row = tuple[int, ...]

_BYTES = 2**27
"""Size of what is kept; a row of a fact takes 10 kB on the bundled model and 100 kB on one of 1 B parameters."""


class LowerBlocks:
    """Makes continuations of rows of tokens, running the blocks below only for rows that are not kept.

    What is kept belongs to a row of tokens and the bare base: valid for every memory without a term below the block.
    The rows used least recently are dropped first.

    Args:
        overlay: The model with hooks.
        size: Maximum number of bytes; 0 to keep nothing.
    """

    def __init__(self, overlay: Overlay, size: int = _BYTES) -> None:
        self._overlay, self._size = overlay, size
        self._kept: OrderedDict[tuple[int, Row], Tensor] = OrderedDict()
        self._bytes = 0
        self._sound: dict[int, bool] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def run(self, rows: Sequence[Row], first_block: int) -> Continuation:
        """Returns the continuation of whole rows from a block on.

        Args:
            rows: Token rows.
            first_block: Index of the first block that the continuation runs.
        """
        with torch.no_grad(), self._overlay.use(()):
            if first_block and self._size and self._sound.get(first_block, True):
                run = self._run_of_kept(rows, first_block)
                if first_block not in self._sound:
                    self._sound[first_block] = run is not None and self._agrees(run, rows)
                if run is not None and self._sound[first_block]:
                    return run
            return Continuation(self._overlay.lm, rows, [0] * len(rows), first_block)

    def _run_of_kept(self, rows: Sequence[Row], first_block: int) -> Continuation | None:
        """Returns a continuation above what is kept; None if blocks put out something else than one tensor."""
        found: dict[Row, Tensor] = {}
        for row in dict.fromkeys(rows):
            output = self._kept.get((first_block, row))
            if output is None:
                output = self._computed(row, first_block)
                if not isinstance(output, Tensor) or output.ndim != 3:
                    return None
                self._keep((first_block, row), output)
            else:
                self._kept.move_to_end((first_block, row))
            found[row] = output
        with self._answering(found, first_block):
            return Continuation(self._overlay.lm, rows, [0] * len(rows), first_block)

    def _computed(self, row: Row, first_block: int) -> Any:
        """Runs the lower blocks on a row alone: in a batch, its last bits would depend on the other rows."""
        lm, outputs = self._overlay.lm, list[Any]()
        keep = lm.linear(lm.blocks[first_block - 1].name).register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
        above = [lm.linear(block.name) for block in lm.blocks[first_block:]]
        first = (*above, lm.model.get_output_embeddings())[0]
        with lm.guard.exclusive(), hooked(keep, first.register_forward_pre_hook(_stop)), suppress(StopForward):
            lm.model(input_ids=lm.pad([row]), use_cache=False)
        return outputs[0]

    def _keep(self, key: tuple[int, Row], output: Tensor) -> None:
        self._kept[key] = output
        self._bytes += output.nbytes
        while self._bytes > self._size:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    @contextmanager
    def _answering(self, outputs: Mapping[Row, Tensor], first_block: int) -> Iterator[None]:
        """Lets the lower blocks put out what is kept, in whatever batch of these rows the model is called with."""
        lm, asked = self._overlay.lm, list[Tensor]()

        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            asked[:] = [kwargs["input_ids"]]

        def kept(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return torch.cat([_filled(outputs[_row_of(ids, outputs)], len(ids)) for ids in asked[0].tolist()])

        with ExitStack() as stack:
            stack.enter_context(hooked(lm.model.register_forward_pre_hook(note, with_kwargs=True)))
            for block in lm.blocks[: first_block - 1]:
                stack.enter_context(replaced_forward(lm.linear(block.name), _unchanged))
            stack.enter_context(replaced_forward(lm.linear(lm.blocks[first_block - 1].name), kept))
            yield

    def _agrees(self, run: Continuation, rows: Sequence[Row]) -> bool:
        """Whether the shortest and the longest row have the logits of a plain pass.

        Not so in a model whose blocks look at more than the output of the block below.
        """
        lm = self._overlay.lm
        chosen = [f(range(len(rows)), key=lambda i: len(rows[i])) for f in (min, max)]
        ends = torch.tensor([len(rows[i]) - 1 for i in chosen], device=lm.device)
        plain = lm.logits_at(lm.pad([rows[i] for i in chosen]), torch.arange(2, device=lm.device), ends)
        kept = run.logits(torch.tensor(chosen, device=lm.device), ends)
        tolerance = 1e-3 if lm.dtype == torch.float32 else 0.1
        return bool((plain - kept).square().mean().sqrt() <= tolerance * plain.std())


def _stop(module: nn.Module, args: Any) -> None:
    raise StopForward


def _unchanged(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return hidden


def _row_of(ids: list[int], rows: Mapping[Row, Tensor]) -> Row:
    """Returns the row that was padded to ``ids``, or a longer one that begins alike; causal outputs are the same."""
    return next(row for n in range(len(ids), 0, -1) if (row := tuple(ids[:n])) in rows)


def _filled(output: Tensor, width: int) -> Tensor:
    """Returns an output ``[1, tokens, d]`` with zeros where a batch has padding, ``[1, width, d]``."""
    return torch.nn.functional.pad(output, (0, 0, 0, width - output.shape[1]))
