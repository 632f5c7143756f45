"""A causal LM with what the rest of sleepgym asks of it: blocks, encoding, logits where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pickle import PicklingError, UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sleepgym.lm.architecture import Block
from sleepgym.lm.encoding import Encoded, Encoder, Turn
from sleepgym.lm.fingerprint import fingerprint_of
from sleepgym.lm.guard import Guard

Adder = Callable[[Tensor, Tensor], Tensor]
"""The new output of a linear, from its input and output."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A frozen causal LM, its tokenizer and its structure. Nothing in sleepgym writes to its weights.

    Attributes:
        name: What :func:`sleepgym.lm.load` was asked for.
        model: The transformers model, in eval mode, without gradients.
        tokenizer: A fast tokenizer (offsets are needed to find subjects).
        blocks: Its transformer blocks in order.
        folder: Where its weights were read from, if from a local folder.
        known_fingerprint: Fingerprint that the weights had before they were rounded or merged; empty: theirs.
        load_again: Loads it in another process; None for a model that was in memory.
        guard: Lets one thread use it at a time.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: tuple[Block, ...]
    folder: Path | None = None
    known_fingerprint: str = field(default="", repr=False)
    load_again: Callable[[], LanguageModel] | None = field(default=None, repr=False)
    guard: Guard = field(default_factory=Guard, repr=False)

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embeddings (blocks may be elsewhere)."""
        return next(self.model.get_input_embeddings().parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the activations."""
        return self.model.dtype

    @property
    def vocabulary(self) -> int:
        """Number of logits at a position."""
        return self.model.get_output_embeddings().weight.shape[0]

    def linear(self, name: str) -> nn.Module:
        """The linear module of that name."""
        return self.model.get_submodule(name)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the model in caches and checkpoints; see :func:`fingerprint_of`."""
        return self.known_fingerprint or fingerprint_of(self.model)

    @cached_property
    def agreed(self) -> dict[Any, int]:
        """Length of the longest rows for which a way of shortening passes was compared with a plain pass, by way."""
        return {}

    # ------------------------------------------------------------------ copies

    def __copy__(self) -> LanguageModel:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> LanguageModel:
        # Nothing ever writes to it, so that a copy of what stands on it can stand on it as well.
        return self

    def __reduce__(self) -> tuple[Callable[..., LanguageModel], tuple[Any, ...]]:
        if self.load_again is None:
            raise PicklingError(
                f"expected a model that can be loaded again by its name, found {self.name!r} from memory; save it to a "
                "folder (model.save_pretrained, tokenizer.save_pretrained), load that, and pickle what stands on it"
            )
        return _loaded_again, (self.load_again, self.fingerprint)

    # ---------------------------------------------------------------- adding

    @cached_property
    def _in_force(self) -> list[Mapping[str, Adder]]:
        return []

    @contextmanager
    def adding(self, adders: Mapping[str, Adder]) -> Iterator[None]:
        """Changes what linears put out for a while, in place of what an outer call changes.

        Hooks are on the model inside this context only, and on the named linears only: a model that nobody adds to has
        none, however many learners share it.

        Args:
            adders: By name of the linear, a function of its input and output that returns the new output.
        """

        def hook(add: Adder):  # type: ignore[no-untyped-def]  # torch types hooks as Callable
            def replace(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
                # An inner call takes the place of this one.
                return add(args[0], output) if self._in_force[-1] is adders else None

            return replace

        with self.guard.exclusive():
            self._in_force.append(adders)
            try:
                with hooked(*(self.linear(name).register_forward_hook(hook(add)) for name, add in adders.items())):
                    yield
            finally:
                self._in_force.pop()

    # --------------------------------------------------------------- encoding

    @cached_property
    def encoder(self) -> Encoder:
        """The tokenizer, and what it makes of prompts and objects."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return Encoder(self.tokenizer, self.name, positions)

    def chat(
        self, question: str, system: str = "", history: Sequence[Turn] = (), template: Mapping[str, Any] | None = None
    ) -> str:
        """A question in the model's own chat format; see :meth:`Encoder.chat`."""
        return self.encoder.chat(question, system, history, template)

    def encode(
        self, prompt: str, obj: str = "", subject: str = "", prefix: str = "", joiner: str | None = None
    ) -> Encoded:
        """Tokens of ``prefix prompt obj`` with the object and the subject's last token located by offsets.

        Special tokens that the tokenizer puts at the end belong to neither; those at the beginning belong to the
        prompt, unless it is one of :meth:`chat`, which has all of them. No token holds parts of both prompt and object.

        Args:
            prompt: Text that the object continues.
            obj: The object; may be empty where only the prompt matters.
            subject: A part of ``prompt`` to locate (its last occurrence counts, and whole words before parts of words).
            prefix: Context put before the prompt.
            joiner: What stands between prompt and object; None: a blank, or nothing between scripts that use none.

        Raises:
            FactError: The object tokenises to nothing, the subject is not in the prompt, or the whole is longer
                than the model has positions.
        """
        return self.encoder.encode(prompt, obj, subject, prefix, joiner)

    def pad(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Right-padded ids ``[rows, longest]``. Causal attention never sees the padding: no mask is needed."""
        fill = self.tokenizer.pad_token_id
        fill = fill if fill is not None else self.tokenizer.eos_token_id or 0
        width = max(len(r) for r in rows)
        return torch.tensor([[*r, *[fill] * (width - len(r))] for r in rows], device=self.device)

    # ---------------------------------------------------------------- forward

    def logits_at(
        self, input_ids: Tensor, rows: Tensor, columns: Tensor, narrow: bool = False, **arguments: Any
    ) -> Tensor:
        """Logits ``[n, vocabulary]`` (float32) that follow the tokens at ``(rows, columns)``.

        The positions are picked just before the output head, so that a batch never pays for a vocabulary
        of logits at positions nobody reads; scaling or soft-capping after the head stays the model's own.

        Args:
            input_ids: ``[batch, tokens]``.
            rows: Indices into the batch, ``[n]``.
            columns: Indices of tokens, ``[n]``.
            narrow: Whether the last block's MLP, too, runs at these positions only: nothing above it looks at others.
                Not for callers that hook into that MLP and expect every token there.
            arguments: What else the model is called with, such as a cache.
        """

        def pick(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = args[0]
            return (hidden[rows.to(hidden.device), columns.to(hidden.device)].unsqueeze(0), *args[1:])

        head, mlp = self.model.get_output_embeddings(), self.blocks[-1].mlp
        with self.guard.exclusive(), ExitStack() as stack:
            stack.enter_context(hooked(head.register_forward_pre_hook(pick)))
            if narrow and mlp is not None:
                read = torch.zeros(input_ids.shape, dtype=torch.bool, device=rows.device)
                read[rows, columns] = True
                stack.enter_context(_narrowed(self.linear(mlp), read))
            return self.model(**{"input_ids": input_ids, "use_cache": False} | arguments).logits[0].float()


def _loaded_again(load: Callable[[], LanguageModel], fingerprint: str) -> LanguageModel:
    """The model of a pickle.

    Raises:
        UnpicklingError: Another model is called so here.
    """
    lm = load()
    if lm.fingerprint != fingerprint:
        raise UnpicklingError(
            f"expected the model {lm.name!r} with fingerprint {fingerprint[:12]}, as when it was pickled, found "
            f"{lm.fingerprint[:12]}; put the weights back that it was pickled with"
        )
    return lm


@contextmanager
def _narrowed(module: nn.Module, read: Tensor) -> Iterator[None]:
    """Runs a module that takes tokens one by one where it is read, ``[rows, tokens]`` bool; zeros elsewhere."""
    width, tokens = int(read.sum(1).max()), read.shape[1]
    # Rows that are read at fewer positions than others are filled with a column behind the last one.
    columns = torch.where(read, torch.arange(tokens, device=read.device), tokens).sort(1).values[:, :width]
    forward = module.forward

    def at_columns(hidden: Tensor) -> Tensor:
        index = columns.to(hidden.device)[:, :, None]
        part = hidden.gather(1, index.clamp(max=tokens - 1).expand(-1, -1, hidden.shape[2]))
        found = forward(part)
        whole = found.new_zeros(hidden.shape[0], tokens + 1, found.shape[2])
        return whole.scatter(1, index.expand(-1, -1, found.shape[2]), found)[:, :tokens]

    with replaced_forward(module, at_columns):
        yield


@contextmanager
def replaced_forward(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """A module that does something else for a while."""
    # accelerate puts its own forward on the instance: it has to be there again afterwards.
    before: Callable[..., Any] | None = module.__dict__.get("forward")
    module.__dict__["forward"] = function
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


class StopForward(Exception):  # noqa: N818 (a signal, not an error)
    """Raised by a hook to end a forward pass; what lies above is not needed."""


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Removes hooks on the way out, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
