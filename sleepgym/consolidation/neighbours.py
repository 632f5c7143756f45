"""Subjects that are not taught, about which a night asks what it asks about its lessons.

Lessons about one subject of a relation move the answers about all others of it, and ordinary text does not show that.
So a night holds the answers that the bare model gives about some of them: facts that it is given, or names that the
model itself thinks of beside those of the lessons.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from sleepgym.editing.base import Base
from sleepgym.facts.fact import Fact
from sleepgym.lm.generation import Sampling, continuations
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State

_SAME = 0.75
"""Share of the given neighbours that are asked what the lessons are asked, if there are as many of both kinds."""

_LISTED = 8
"""Names of lessons that head a list which the model continues."""

_PER_LIST = 4
"""Names hoped for of one continuation."""

_TOKENS = 48
"""Maximum number of tokens of a continuation."""

_LONGEST = 60
"""Maximum number of characters of a name; what is longer is a sentence."""


def neighbours_of(
    base: Base, state: State, lessons: Sequence[Fact], given: Sequence[Fact], count: int
) -> list[Settled]:
    """Draws subjects that are not taught, with a prompt and a question about each.

    Args:
        base: The model.
        state: State of the learner; subjects that it was taught about are left out.
        lessons: Facts that are trained.
        given: Facts of the base to draw from; without any, the bare model names subjects.
        count: Maximum number of subjects.

    Returns:
        What is asked about them.
    """
    taught = {subject for subject, _ in (*state.ledger, *state.settled)}
    if given:
        return _drawn(state.rng, lessons, [fact for fact in given if fact.subject not in taught], count)
    return _named(base, state.rng, lessons, taught, count)


def _drawn(rng: np.random.Generator, lessons: Sequence[Fact], free: Sequence[Fact], count: int) -> list[Settled]:
    """Draws facts, most of them of the relations of the lessons."""
    relations = {fact.relation for fact in lessons}
    shuffled = [free[i] for i in rng.permutation(len(free))]
    same = [fact for fact in shuffled if fact.relation in relations]
    other = [fact for fact in shuffled if fact.relation not in relations]
    near = same[: max(round(_SAME * count), count - len(other))]
    return [Settled.of(fact) for fact in (*near, *other[: count - len(near)])]


def _named(
    base: Base, rng: np.random.Generator, lessons: Sequence[Fact], taught: Collection[str], count: int
) -> list[Settled]:
    """Lets the bare model continue lists of the lessons' subjects, one list per relation."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in lessons:
        by_relation.setdefault(fact.relation, []).append(fact)
    found: list[Settled] = []
    for place, facts in enumerate(by_relation.values()):
        share = (count * (place + 1)) // len(by_relation) - (count * place) // len(by_relation)
        lists = ["\n".join(_few(rng, facts)) + "\n" for _ in range(-(-share // _PER_LIST))]
        sampling = Sampling(top_p=0.9, seed=int(rng.integers(2**31)))
        with base.overlay.use(()):
            texts = continuations(base.lm, lists, _TOKENS, sampling=sampling)
        names = dict.fromkeys(name for text in texts for name in _names(text) if not _mentions(name, taught))
        for name in list(names)[:share]:
            like = facts[int(rng.integers(len(facts)))]
            asked = Settled.of(like)
            prompt, question = (text.replace(like.subject, name) for text in (asked.prompt, asked.question))
            found.append(Settled(name, like.relation, prompt, question))
    return found


def _few(rng: np.random.Generator, facts: Sequence[Fact]) -> list[str]:
    """Draws subjects that head a list."""
    return [facts[i].subject for i in rng.permutation(len(facts))[:_LISTED]]


def _names(text: str) -> list[str]:
    """Returns the lines of a list but the last, which may have been cut off."""
    lines = [line.strip(" \t-*•.,;:0123456789()") for line in text.split("\n")[:-1]]
    return [line for line in lines if line and len(line) <= _LONGEST]


def _mentions(name: str, subjects: Collection[str]) -> bool:
    return any(subject in name or name in subject for subject in subjects)
