"""How often a model answers correctly, by depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.facts.world import Split
from sleepgym.fastweights.model import FastWeightModel
from sleepgym.fastweights.task import ASKED_TOGETHER, Batch, Task


@dataclass(frozen=True)
class Accuracy:
    """Answers of one depth.

    Attributes:
        depth: Depth of the queries.
        sequences: Number of sequences n; each has four queries about different things.
        right: Queries answered correctly, out of 4 n.
        joint: Sequences with all four answered correctly.
    """

    depth: int
    sequences: int
    right: int
    joint: int

    @property
    def per_query(self) -> float:
        """Share of the queries that were answered correctly."""
        return self.right / (self.sequences * ASKED_TOGETHER)

    @property
    def per_sequence(self) -> float:
        """Share of the sequences that were answered correctly throughout."""
        return self.joint / self.sequences


def logits_of(model: FastWeightModel, batch: Batch, passes: int | Sequence[int], frozen: bool = False) -> Tensor:
    """What a model says to the queries of a batch, ``[batch, queries, vocabulary]``."""
    logits = model(batch.windows, batch.queries, passes, frozen)
    # A batch without eviction has its context in front of the queries.
    return logits[:, -2 * batch.answers.shape[1] :][:, 1::2]


@torch.no_grad()
def accuracies(
    model: FastWeightModel,
    task: Task,
    passes: int,
    sequences: int,
    seed: int = 0,
    split: Split = "validation",
    uncut: bool = False,
    frozen: bool = False,
    part: int = 250,
) -> list[Accuracy]:
    """Accuracy at every depth of a task; equal seeds ask models the same.

    Args:
        model: Model.
        task: Task that it was trained on.
        passes: N of every context window.
        sequences: Number of sequences per depth.
        seed: Seed of the sequences.
        split: Which contents.
        uncut: Whether the context stands in front of the queries, in one window, for a model trained so.
        frozen: See :meth:`FastWeightModel.digest`.
        part: Sequences per pass.
    """
    device = model.head.weight.device
    found = []
    for depth in range(task.shallowest, task.deepest + 1):
        rng = np.random.default_rng((seed, depth))
        right = joint = 0
        for start in range(0, sequences, part):
            batch = task.batch(rng, min(part, sequences - start), split, depth).to(device)
            correct = logits_of(model, batch.uncut() if uncut else batch, passes, frozen).argmax(-1) == batch.answers
            right, joint = right + int(correct.sum()), joint + int(correct.all(1).sum())
        found.append(Accuracy(depth, sequences, right, joint))
    return found


def majority(task: Task, sequences: int, seed: int = 0, split: Split = "validation") -> list[Accuracy]:
    """Accuracy of always giving the answer that is most frequent at a depth among training sequences."""
    found = []
    for depth in range(task.shallowest, task.deepest + 1):
        seen: NDArray[np.int64] = task.batch(
            np.random.default_rng((seed, depth, 1)), sequences, "train", depth
        ).answers.numpy()
        guess = np.bincount(seen.ravel()).argmax()
        asked = task.batch(np.random.default_rng((seed, depth)), sequences, split, depth).answers.numpy()
        correct = asked == guess
        found.append(Accuracy(depth, sequences, int(correct.sum()), int(correct.all(1).sum())))
    return found
