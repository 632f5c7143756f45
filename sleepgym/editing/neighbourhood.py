"""Others beside the subjects that are taught: an edit and a night must leave alone what the model says of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from zlib import crc32

import numpy as np

from sleepgym.facts.fact import Fact
from sleepgym.memory.overlay import Overlay

_NAME = re.compile(r"\b[A-Z][a-z]{3,}\b")
"""A capitalised word: most of them are names, or begin one."""

_RELATIONS = 4
"""Relations that get all the others they may have; a solve takes time with the square of their number."""


class Neighbourhood:
    """Others of the relations that are taught: given facts or, for relations without any, made-up subjects.

    Names that end alike have keys alike, and are what an edit harms most. So made-up subjects end as the taught ones
    do, and begin with words of the model's own text.

    Args:
        overlay: The model with hooks.
        given: Facts of the base. Whoever wants to see what is kept of others must not give what is asked.
        text: Token rows of text with capitalised words; without any, no subjects are made up.
    """

    def __init__(self, overlay: Overlay, given: Sequence[Fact] = (), text: Sequence[Sequence[int]] = ()) -> None:
        self.overlay, self.given = overlay, tuple(given)
        self._text = text

    def beside(self, facts: Sequence[Fact], taught: Collection[str], count: int) -> list[Fact]:
        """Returns facts about others, of the same relations; a function of its arguments alone.

        Args:
            facts: Facts that are taught.
            taught: All subjects that are or were taught, which are left out.
            count: Maximum number of others per relation; of more than four relations, fewer, four times as many in all.

        Returns:
            The first given ones of each relation, or made-up ones with the prompt, the questions and, untrue as it may
            be, the object of a taught fact.
        """
        if not count:
            return []
        by_relation: dict[str, list[Fact]] = {}
        for fact in facts:
            by_relation.setdefault(fact.relation, []).append(fact)
        found: list[Fact] = []
        count = min(count, _RELATIONS * count // max(1, len(by_relation)))
        for relation, group in by_relation.items():
            own = [fact for fact in self.given if fact.relation == relation and fact.subject not in taught]
            found += (own or self._like(group, taught, count))[:count]
        return found

    def _like(self, group: Sequence[Fact], taught: Collection[str], count: int) -> list[Fact]:
        """Returns what is asked about taught facts, with made-up names like those of their subjects."""
        # Seeded by what is taught: the same names whenever and wherever it is.
        rng = np.random.default_rng(crc32("\n".join(fact.subject for fact in group).encode()))
        found: dict[str, Fact] = {}
        for i in range(count if self._words else 0):
            like = group[i % len(group)]
            name = renamed(like.subject, self._words[int(rng.integers(len(self._words)))])
            if name not in taught:
                found[name] = _about(name, like)
        return list(found.values())

    @cached_property
    def _words(self) -> list[str]:
        """Names in the text, in the order of the alphabet."""
        texts = self.overlay.lm.tokenizer.batch_decode([list(row) for row in self._text], skip_special_tokens=True)
        return sorted({word for text in texts for word in _NAME.findall(text)})


def renamed(subject: str, word: str) -> str:
    """Returns a name that ends as a subject does: its first word is another, and a name of one word is a new one."""
    _, blank, rest = subject.partition(" ")
    return f"{word}{blank}{rest}"


def _about(name: str, like: Fact) -> Fact:
    prompt, *questions = (text.replace(like.subject, name) for text in (like.prompt, *like.questions))
    return Fact(name, prompt, like.object, like.relation, questions=tuple(questions), joiner=like.joiner)
