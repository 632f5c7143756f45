"""Probes of a fact (raw prompt, chat question) and their margins under a memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import score
from sleepgym.memory.overlay import Memory, Overlay
from sleepgym.memory.settled import chat_question
from sleepgym.notes.retrieval import with_notes

_ROWS = 512
"""Maximum number of rows per forward pass; bounds memory and changes results by rounding at most."""


def chat_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked in chat: its first question, or its prompt as the user's turn if it has none."""
    return lm.encode(lm.chat(chat_question(fact)), fact.object)


def noted_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked in chat, with its note before the question."""
    return lm.encode(lm.chat(with_notes(chat_question(fact), [fact.statement])), fact.object)


def raw_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked by letting the model complete its prompt."""
    return lm.encode(fact.prompt, fact.object, joiner=fact.joiner)


def in_context(lm: LanguageModel, fact: Fact, prefix: str = "") -> Encoded:
    """The fact's prompt and object after a context, with the place of its subject.

    Raises:
        FactError: The object tokenises to nothing or the subject is not in the prompt.
    """
    return lm.encode(fact.prompt, fact.object, fact.subject, prefix, fact.joiner)


def margins(overlay: Overlay, memories: Sequence[Memory], probes: Sequence[Sequence[Encoded]]) -> list[Tensor]:
    """Computes the margin of every probe under its group's memory; all memories share the forward passes.

    Args:
        overlay: The model with hooks.
        memories: One memory per group of probes.
        probes: Groups of probes; groups may differ in size and may be empty.

    Returns:
        One tensor ``[probes of the group]`` (nats; positive means recalled) per group.
    """
    found: list[list[Tensor]] = [[] for _ in memories]
    longest = max((len(group) for group in probes), default=0)
    step = max(1, _ROWS // max(1, len(memories)))
    for start in range(0, longest, step):
        parts = {i: group[start : start + step] for i, group in enumerate(probes) if len(group) > start}
        width = max(len(part) for part in parts.values())
        rows = [row for part in parts.values() for row in [*part, *[part[0]] * (width - len(part))]]
        logits = partial(overlay.logits, [memories[i] for i in parts])
        scored = score(overlay.lm, rows, logits).margin.view(len(parts), width)
        for (i, part), margin in zip(parts.items(), scored, strict=True):
            found[i].append(margin[: len(part)])
    return [torch.cat(parts) if parts else torch.empty(0) for parts in found]
