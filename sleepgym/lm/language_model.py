"""A causal LM with what the rest of sleepgym asks of it: blocks, encoding, logits where they are needed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sleepgym.facts.fact import FactError
from sleepgym.lm.architecture import Block

Adder = Callable[[Tensor, Tensor], Tensor]
"""The new output of a linear, from its input and output."""


@dataclass(frozen=True)
class Encoded:
    """A prompt and its object as tokens.

    Attributes:
        ids: Tokens of prompt and object.
        object_start: Index of the object's first token.
        subject_last: Index of the subject's last token, or -1 where no subject was given.
    """

    ids: tuple[int, ...]
    object_start: int
    subject_last: int = -1

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Tokens of the object alone."""
        return self.ids[self.object_start :]


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A frozen causal LM, its tokenizer and its structure. Nothing in sleepgym writes to its weights.

    Attributes:
        name: What :func:`sleepgym.lm.load` was asked for.
        model: The transformers model, in eval mode, without gradients.
        tokenizer: A fast tokenizer (offsets are needed to find subjects).
        blocks: Its transformer blocks in order.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    blocks: tuple[Block, ...]

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embeddings (blocks may be elsewhere)."""
        return next(self.model.get_input_embeddings().parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the activations."""
        return self.model.dtype

    def linear(self, name: str) -> nn.Module:
        """The linear module of that name."""
        return self.model.get_submodule(name)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the architecture's name and of up to 4,096 evenly spaced values of every weight.

        Identifies the model in caches and checkpoints. Sampling keeps it cheap for billions of weights; values
        are rounded to bfloat16, so that the same weights loaded in another precision are the same model.
        """
        digest = hashlib.sha256(str(self.model.config.model_type).encode())
        for name, weight in self.model.named_parameters():
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 4096)]
            if sample.is_floating_point():
                sample = sample.to(torch.bfloat16).float()
            digest.update(f"{name}{tuple(weight.shape)}".encode())
            digest.update(sample.cpu().numpy().tobytes())
        return digest.hexdigest()

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

        self._in_force.append(adders)
        try:
            with hooked(*(self.linear(name).register_forward_hook(hook(add)) for name, add in adders.items())):
                yield
        finally:
            self._in_force.pop()

    # --------------------------------------------------------------- encoding

    def chat(self, question: str) -> str:
        """The question in the model's own chat template, or as ``Question: ... Answer:`` if it has none."""
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": question}]
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return f"Question: {question}\nAnswer:"

    def encode(self, prompt: str, obj: str = "", subject: str = "", prefix: str = "") -> Encoded:
        """Tokens of ``prefix prompt obj`` with the object and the subject's last token located by offsets.

        Args:
            prompt: Text that the object continues.
            obj: The object; may be empty where only the prompt matters.
            subject: A part of ``prompt`` to locate (its last occurrence counts, and whole words before parts of words).
            prefix: Context put before the prompt.

        Raises:
            FactError: The object tokenises to nothing, the subject is not in the prompt, or the whole is longer
                than the model has positions.
        """
        return self._encode_once(prompt, obj, subject, prefix)

    @cached_property
    def _encode_once(self) -> Callable[[str, str, str, str], Encoded]:
        # The same facts are probed again and again; tokenising them would cost as much as a forward pass.
        return lru_cache(maxsize=65536)(self._encode)

    def _encode(self, prompt: str, obj: str, subject: str, prefix: str) -> Encoded:
        head = f"{prefix} {prompt}" if prefix else prompt
        # A special token (chat templates end in one) or a newline already separates prompt from object.
        glued = not obj or head[-1:].isspace() or head.endswith(self._special_tokens)
        text = head + ("" if glued else " ") + obj
        bos = self.tokenizer.bos_token
        encoding = self.tokenizer(
            text,
            return_offsets_mapping=True,
            add_special_tokens=not (bos and text.startswith(bos)),
            return_attention_mask=False,
        )
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        start = next((i for i, (_, end) in enumerate(offsets) if end > len(head)), len(ids))
        if obj and (not obj.strip() or start == len(ids)):
            raise FactError(
                f"expected at least one token for the object {obj!r}, found none; "
                f"give an object that the tokenizer of {self.name!r} can write"
            )
        last = -1
        if subject:
            at = _last_occurrence(subject, prompt)
            if at < 0:
                raise FactError(
                    f"expected the subject {subject!r} in the prompt, found {prompt!r}; "
                    "write the subject exactly as it stands in the prompt"
                )
            at += len(head) - len(prompt)
            last = max(i for i, (s, e) in enumerate(offsets) if s < at + len(subject) and e > at)
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and len(ids) > longest:
            raise FactError(
                f"expected at most {longest} tokens, the most positions that {self.name!r} has, "
                f"found {len(ids)} in {text[:60]!r}...; shorten the prompt or its prefix"
            )
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids[start:]:
            raise FactError(
                f"expected the object {obj!r} to be in the vocabulary of {self.name!r}, found an unknown token; "
                "choose an object the tokenizer can write"
            )
        return Encoded(tuple(ids), start, last)

    @cached_property
    def _special_tokens(self) -> tuple[str, ...]:
        return tuple(str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)

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
        with ExitStack() as stack:
            stack.enter_context(hooked(head.register_forward_pre_hook(pick)))
            if narrow and mlp is not None:
                read = torch.zeros(input_ids.shape, dtype=torch.bool, device=rows.device)
                read[rows, columns] = True
                stack.enter_context(_narrowed(self.linear(mlp), read))
            return self.model(**{"input_ids": input_ids, "use_cache": False} | arguments).logits[0].float()


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


def _last_occurrence(part: str, text: str) -> int:
    """Where a part stands last, as words of their own if it does ("Ann" is not in "Annabel"); -1: nowhere."""
    words = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(part)}(?!\w)", text)]
    return words[-1] if words else text.rfind(part)


class StopForward(Exception):  # noqa: N818 (a signal, not an error)
    """Raised by a hook to end a forward pass; what lies above is not needed."""


def sampled(lm: LanguageModel, ids: Tensor, mask: Tensor | None = None, **settings: Any) -> Tensor:
    """Ids that continue ``ids [rows, tokens]``, by transformers' ``generate`` with the given settings.

    Args:
        lm: The model.
        ids: Prompts, padded on the left.
        mask: Which tokens are not padding, ``[rows, tokens]``; None if all are.
        settings: For ``generate``.
    """
    generate: Callable[..., Tensor] = lm.model.generate  # type: ignore[assignment]  # seen as a submodule by the types
    attended = torch.ones_like(ids) if mask is None else mask.long()
    head = lm.model.get_output_embeddings()
    # A slice of hidden states is not contiguous, and torch then copies the whole head once per row.
    whole = head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
    with hooked(whole):
        return generate(ids, attention_mask=attended, pad_token_id=lm.tokenizer.pad_token_id, **settings)


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Removes hooks on the way out, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
