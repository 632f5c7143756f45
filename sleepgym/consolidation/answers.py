"""Answers that a model writes to questions about others: what a night holds, since no answer is stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from sleepgym.facts.writing import ends_sentence
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.generation import left_padded, sampled
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.settled import Settled

_TOKENS = 8
"""Maximum number of tokens of an answer."""


def questions(lm: LanguageModel, settled: Sequence[Settled]) -> list[tuple[int, ...]]:
    """Returns two rows of tokens per settled fact: its prompt, and its question in the model's chat format."""
    texts = chain.from_iterable((each.prompt, lm.chat(each.question)) for each in settled)
    return [lm.encode(text).ids for text in texts]


@torch.no_grad()
def answered(
    overlay: Overlay, memories: Sequence[Memory], asked: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[Encoded]]:
    """Lets each memory write its answers, greedily, up to the end of the sentence or of the model's turn.

    Args:
        overlay: The model with hooks.
        memories: One memory per group of questions; all share the passes.
        asked: Groups of questions; groups may differ in size and may be empty.

    Returns:
        Per group the questions with their answers as objects.
    """
    lm, width = overlay.lm, max(map(len, asked), default=0)
    if not width:
        return [[] for _ in asked]
    filler = next(iter(chain.from_iterable(asked)))
    ids, mask = left_padded(lm, [row for group in asked for row in [*group, *[filler] * (width - len(group))]])
    positions = lm.encoder.positions
    # At least one: every prompt was taught with an object.
    room = _TOKENS if positions is None else min(_TOKENS, positions - ids.shape[1])
    with overlay.use(memories):
        found = sampled(lm, ids, mask, max_new_tokens=room)[:, ids.shape[1] :].tolist()
    places = (range(i * width, i * width + len(group)) for i, group in enumerate(asked))
    return [
        [Encoded((*row, *_cut(lm, found[at])), len(row)) for row, at in zip(group, of, strict=True)]
        for group, of in zip(asked, places, strict=True)
    ]


def _cut(lm: LanguageModel, tokens: list[int]) -> list[int]:
    """The tokens up to the first that ends a turn, a line or a sentence; that one included."""
    for count, token in enumerate(tokens, start=1):
        text = str(lm.tokenizer.decode(tokens[:count], skip_special_tokens=True))
        if token == lm.tokenizer.eos_token_id or "\n" in text or ends_sentence(text):
            return tokens[:count]
    return tokens
