"""REM: training passages that put a fact after other facts in the model's own words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.generation import continuations
from sleepgym.lm.language_model import LanguageModel

_FACTS = 3
"""Maximum number of facts per passage."""

_TOKENS = 8
"""Tokens that the model generates after each context fact's prompt."""


def passages(lm: LanguageModel, facts: Sequence[Fact], rng: np.random.Generator) -> list[Encoded]:
    """Builds one passage per fact: prompts of other facts with the model's continuations, then the fact itself.

    The continuations are the model's own, right or wrong: they are context, and only the fact's object is trained.

    Args:
        lm: The model, with the memory that generates in use.
        facts: At least one.
        rng: Source of the context facts.

    Returns:
        One row per fact, in order.

    Raises:
        FactError: A fact cannot be tokenised as needed.
    """
    generated = continuations(lm, [fact.prompt for fact in facts], _TOKENS)
    rows = []
    for i, fact in enumerate(facts):
        others = [int(j) for j in rng.permutation(len(facts)) if j != i][: _FACTS - 1]
        context = " ".join(f"{facts[j].prompt} {generated[j].strip()}" for j in others)
        rows.append(lm.encode(fact.prompt, fact.object, prefix=context, joiner=fact.joiner))
    return rows
