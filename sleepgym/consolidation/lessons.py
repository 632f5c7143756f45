"""Lessons: training rows of an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sleepgym.facts.fact import Fact
from sleepgym.facts.writing import full_stop
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.asking import chat_probe


def lessons(lm: LanguageModel, facts: Sequence[Fact]) -> list[Encoded]:
    """Builds two training rows per fact: its statement up to the full stop, and its chat answer up to the end token.

    Raises:
        FactError: A fact cannot be tokenised as needed.
    """
    rows = []
    for fact in facts:
        chat = chat_probe(lm, fact)
        end = lm.tokenizer.eos_token_id
        if lm.tokenizer.chat_template and end is not None:
            chat = replace(chat, ids=(*chat.ids, end))
        rows += [lm.encode(fact.prompt, fact.object + full_stop(fact.prompt, fact.object), joiner=fact.joiner), chat]
    return rows
