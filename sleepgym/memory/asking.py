"""The ways in which a fact is asked: raw, in chat, and as its audit asks it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import score
from sleepgym.memory.ledger import Entry
from sleepgym.memory.overlay import Memory, Overlay

_ROWS = 512
"""Rows of one pass at most; bounds memory, does not change a result by more than rounding."""


def chat_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked in chat: its first question, or its prompt as the user's turn if it has none."""
    question = fact.questions[0] if fact.questions else fact.prompt
    return lm.encode(lm.chat(question), fact.object)


def raw_probe(lm: LanguageModel, fact: Fact) -> Encoded:
    """The fact asked by letting the model complete its prompt."""
    return lm.encode(fact.prompt, fact.object, joiner=fact.joiner)


def in_context(lm: LanguageModel, fact: Fact, prefix: str = "") -> Encoded:
    """The fact's prompt and object after a context, with the place of its subject.

    Raises:
        FactError: The object tokenises to nothing or the subject is not in the prompt.
    """
    return lm.encode(fact.prompt, fact.object, fact.subject, prefix, fact.joiner)


def judged_probe(lm: LanguageModel, entry: Entry) -> Encoded:
    """What an audit asks: a fact that has begun to sink is judged on the chat pathway.

    A dissolved edit is meant to be weak: judged on the raw prompt it would look degraded, be refreshed, and
    the night's work be thrown away.
    """
    return chat_probe(lm, entry.fact) if entry.stage > 0 else raw_probe(lm, entry.fact)


def margins(overlay: Overlay, memories: Sequence[Memory], probes: Sequence[Sequence[Encoded]]) -> list[Tensor]:
    """Margin of every probe under the memory it is put to; all memories share the passes.

    Args:
        overlay: The model with hooks.
        memories: One per group of probes.
        probes: Groups of probes, of any sizes.

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
        with overlay.use([memories[i] for i in parts]):
            scored = score(overlay.lm, rows).margin.view(len(parts), width)
        for (i, part), margin in zip(parts.items(), scored, strict=True):
            found[i].append(margin[: len(part)])
    return [torch.cat(parts) if parts else torch.empty(0) for parts in found]
