"""REM: passages in the model's own words that lead from one fact to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.generation import continuations
from sleepgym.lm.language_model import LanguageModel

_FACTS = 3
"""Facts of a passage."""

_TOKENS = 8
"""Tokens with which the model goes on after each fact's prompt."""


def passages(lm: LanguageModel, facts: Sequence[Fact], rng: np.random.Generator) -> list[Encoded]:
    """One passage per fact: what the model says when it is led through some other facts, and then the fact.

    What the model makes of the other facts is its own, right or wrong: it is context, and only the last object is
    to be learnt.

    Args:
        lm: The model, with the memory to dream with in use.
        facts: At least one.
        rng: Draws which facts lead to which.
    """
    said = continuations(lm, [fact.prompt for fact in facts], _TOKENS)
    rows = []
    for i, fact in enumerate(facts):
        others = [int(j) for j in rng.permutation(len(facts)) if j != i][: _FACTS - 1]
        before = " ".join(f"{facts[j].prompt} {said[j].strip()}" for j in others)
        rows.append(lm.encode(fact.prompt, fact.object, prefix=before, joiner=fact.joiner))
    return rows
