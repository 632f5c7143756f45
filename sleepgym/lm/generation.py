"""Texts that a model writes: greedy by default, or plainly sampled, whatever lies in the model's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.streamers import TextStreamer

from sleepgym.facts.fact import FactError
from sleepgym.lm.language_model import LanguageModel, hooked
from sleepgym.settings import above_zero, at_least, require


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: Divides the logits.
        top_p: Only the likeliest tokens are drawn that make up this probability together.
        top_k: Only so many of the likeliest tokens are drawn; 0 for all.
        seed: Of the draws; torch's random state is then put back afterwards. None draws from that state.

    Raises:
        SettingError: A value is impossible.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        above_zero(self, "temperature", "top_p")
        at_least(self, 0, "top_k")
        require(self.top_p <= 1, "top_p", "a probability", self.top_p)


def generate(lm: LanguageModel, prompt: str, max_new_tokens: int = 16) -> str:
    """Greedy continuation of a prompt, without special tokens."""
    return continuations(lm, [prompt], max_new_tokens)[0].strip()


def continuations(
    lm: LanguageModel,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_rows: int = 64,
    sampling: Sampling | None = None,
    stream: Callable[[str], object] | None = None,
) -> list[str]:
    """Continuations of many prompts, without special tokens; batches are padded on the left.

    Args:
        lm: The model.
        prompts: Texts to continue, or prompts in chat format.
        max_new_tokens: Length of a continuation at most; it is cut where the model's positions end.
        batch_rows: Prompts of a pass.
        sampling: How tokens are drawn; None takes the likeliest.
        stream: Called with pieces of the text as they are written; for one prompt only.

    Raises:
        FactError: A prompt fills all positions of the model, so that nothing can follow.
        ValueError: Several prompts are to be streamed.
    """
    if stream is not None and len(prompts) != 1:
        raise ValueError(f"expected one prompt to stream, found {len(prompts)}; ask them one by one")
    texts: list[str] = []
    with lm.guard.usual(), _seeded(lm, sampling), torch.no_grad():
        for start in range(0, len(prompts), batch_rows):
            batch = prompts[start : start + batch_rows]
            rows = [lm.encode(prompt).ids for prompt in batch]
            room = _room(lm, batch, max(map(len, rows)))
            ids, mask = left_padded(lm, rows)
            out = sampled(lm, ids, mask, sampling, stream, max_new_tokens=min(max_new_tokens, room))
            texts += lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
    return texts


def left_padded(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Returns rows padded on the left, so that all continuations begin in one column, and which tokens are theirs.

    Both are ``[rows, tokens]``.
    """
    ids = lm.pad([row[::-1] for row in rows]).flip(1)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    return ids, torch.arange(ids.shape[1], device=ids.device)[None] >= ids.shape[1] - lengths[:, None]


def sampled(
    lm: LanguageModel,
    ids: Tensor,
    mask: Tensor | None = None,
    sampling: Sampling | None = None,
    stream: Callable[[str], object] | None = None,
    **settings: Any,
) -> Tensor:
    """Ids that continue ``ids [rows, tokens]``, by transformers' ``generate``.

    What lies in the model's folder (penalties, temperatures, forced or suppressed tokens) is not applied: greedy means
    the likeliest token, as in every score, and samples are those of the model. Only its end tokens are kept.

    Args:
        lm: The model.
        ids: Prompts, padded on the left.
        mask: Which tokens are not padding, ``[rows, tokens]``; None if all are.
        sampling: How tokens are drawn; None takes the likeliest.
        stream: Called with pieces of the text as they are written; of one row.
        settings: Further ones for ``generate``, such as lengths.
    """
    run: Callable[..., Tensor] = lm.model.generate  # type: ignore[assignment]  # seen as a submodule by the types
    attended = torch.ones_like(ids) if mask is None else mask.long()
    head = lm.model.get_output_embeddings()
    # A slice of hidden states is not contiguous, and torch then copies the whole head once per row.
    whole = head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
    how: dict[str, Any] = {"do_sample": False}
    if sampling is not None:
        how = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    streamer = None if stream is None else _Pieces(lm.tokenizer, stream)
    with lm.guard.exclusive(), hooked(whole), plain_configuration(lm, **how, **settings) as plain:
        return run(ids, attention_mask=attended, generation_config=plain, streamer=streamer)


@contextmanager
def plain_configuration(lm: LanguageModel, **settings: Any) -> Iterator[GenerationConfig]:
    """Puts a generation config with the model's special tokens in place of the model's own for a while.

    What ``generate`` is not told, it takes from the model's own, and a saved model takes it along.

    Args:
        lm: The model.
        settings: What else is in it.
    """
    own, tokenizer = lm.model.generation_config, lm.tokenizer
    plain = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=_end(lm), pad_token_id=tokenizer.pad_token_id, **settings
    )
    lm.model.generation_config = plain
    try:
        yield plain
    finally:
        lm.model.generation_config = own


def end_tokens(lm: LanguageModel) -> frozenset[int]:
    """Returns the tokens that end a text."""
    end = _end(lm)
    return frozenset([] if end is None else [end] if isinstance(end, int) else end)


def _end(lm: LanguageModel) -> int | list[int] | None:
    own = lm.model.generation_config
    end: int | list[int] | None = None if own is None else own.eos_token_id
    return lm.tokenizer.eos_token_id if end is None else end


@contextmanager
def _seeded(lm: LanguageModel, sampling: Sampling | None) -> Iterator[None]:
    if sampling is None or sampling.seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[lm.device] if lm.device.type == "cuda" else []):
        torch.manual_seed(sampling.seed)
        yield


def _room(lm: LanguageModel, prompts: Sequence[str], longest: int) -> int:
    """Tokens that can follow."""
    positions = lm.encoder.positions
    if positions is None:
        return 2**31
    if longest >= positions:
        raise FactError(
            f"expected a prompt of fewer than {positions} tokens, the most positions that {lm.name!r} has, found "
            f"{longest} in {max(prompts, key=len)[:60]!r}...; shorten it, so that there is room for what follows"
        )
    return positions - longest


class _Pieces(TextStreamer):
    """Hands on what is written, piece by piece."""

    def __init__(self, tokenizer: Any, receive: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._receive = receive

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by transformers with the next piece."""
        if text:
            self._receive(text)
