"""How sure a model is of its own answer, and below what it should look up what was noted before it gives one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sleepgym.facts.fact import FactError
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import Scores

SURE_NATS = 4.0
"""Sureness from which an answer counts without a look-up; ``benchmarks/notes_reading.py`` measures what others cost."""

Scorer = Callable[[Sequence[Encoded]], Scores]
"""Scores probes, such as :meth:`sleepgym.SleepingLM.score`."""


def sureness(lm: LanguageModel, question: str, answer: str, score: Scorer) -> float:
    """The margin of a model's own answer at its least sure token (nats); minus infinity if there is no answer.

    It is above 0 for every greedy answer, and says how far the nearest other one is.

    Args:
        lm: The model.
        question: What it was asked, without its chat format.
        answer: What it answered.
        score: Scores the answer under the memory that it was given with.
    """
    try:
        probe = lm.encode(lm.chat(question), answer) if answer.strip() else None
    except FactError:  # an answer that fills all positions, or that cannot be written as one
        probe = None
    return -math.inf if probe is None else float(score([probe]).margin)
