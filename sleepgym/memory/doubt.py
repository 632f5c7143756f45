"""How sure a model is of its own answer, and below what it should look up what was noted before it gives one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from sleepgym.facts.fact import FactError
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.generation import end_tokens
from sleepgym.lm.language_model import LanguageModel
from sleepgym.lm.probes import Logits, Scores

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


def are_sure(
    lm: LanguageModel, prompts: Sequence[tuple[int, ...]], nats: float, logits: Logits, max_new_tokens: int = 12
) -> list[bool]:
    """Whether a model is sure of its own answers: of each that it gives, and at each of its tokens.

    As :func:`sureness` at a threshold, for many prompts in shared passes. An answer is written no further than the
    model is sure of it.

    Args:
        lm: The model.
        prompts: Tokens of each prompt, in the model's chat format.
        nats: Margin of a token over the next likeliest one from which it is sure.
        logits: Runs the prompts, such as ``overlay.asked(memory)``.
        max_new_tokens: Length of an answer at most.
    """
    ends, texts = end_tokens(lm), dict(enumerate(prompts))
    sure = [False] * len(prompts)
    for written in range(max_new_tokens + 1):
        if not texts:
            break
        rows = list(texts.values())
        at = torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])
        best, tokens = logits(rows, at).topk(2)
        margins, likeliest = (best[:, 0] - best[:, 1]).tolist(), tokens[:, 0].tolist()
        following = {}
        for (i, row), margin, token in zip(texts.items(), margins, likeliest, strict=True):
            if token in ends or written == max_new_tokens:
                sure[i] = written > 0  # no answer is none to be sure of
            elif margin >= nats:
                following[i] = (*row, token)
        texts = following
    return sure
