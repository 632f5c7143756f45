"""Where the steps stand that a question of two hops needs: which of them one pass over each window can put together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sleepgym.fastweights import FastWeightModel, Hops
from sleepgym.fastweights.scoring import logits_of

HOPS = 2
"""Depth of the questions."""
CASES = ((1, 1), (2, 2), (2, 1), (1, 2))
"""Window of the first step of a question, and of its second."""


@torch.no_grad()
def by_place(
    model: FastWeightModel, task: Hops, passes: int, sequences: int, frozen: bool = False, uncut: bool = False
) -> list[dict[str, Any]]:
    """Answers to questions of two hops on test sequences, by where their steps stand.

    Returns:
        For each of the cases its windows, how many questions there were, and how many of them were answered correctly.
    """
    batch = task.batch(np.random.default_rng(0), sequences, "test", HOPS)
    correct = (logits_of(model, batch.uncut() if uncut else batch, passes, frozen).argmax(-1) == batch.answers).numpy()
    found = {case: [0, 0] for case in CASES}
    for row, people in enumerate(batch.queries[:, ::2].tolist()):
        steps = [dict(window[row].view(-1, 2).tolist()) for window in batch.windows]
        for person, right in zip(people, correct[row], strict=True):
            first = 1 if person in steps[0] else 2
            second = 1 if steps[first - 1][person] in steps[0] else 2
            found[first, second][0] += 1
            found[first, second][1] += int(right)
    return [{"windows": case, "asked": asked, "right": right} for case, (asked, right) in found.items()]
