"""Puts the users' questions to the model, once per state of its memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.episode.state import Answers
from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.asking import chat_probe, margins
from sleepgym.sleeper import SleepingLM


class Examiner:
    """Answers "is this fact answered correctly now?" and "how far has perplexity drifted?".

    Equal versions of a memory mean equal logits, so that what was asked at a version is never asked again
    and a tick that changes no weights costs no forward pass.

    Args:
        learner: Whose memory is examined.
        bare_perplexity: Perplexity of its model without a memory, on the same rows.
        perplexity_rows: Rows of held-out text on which perplexity is measured.

    Attributes:
        answers: What was found out so far; part of the episode's state. What is put back with a memory must be its
            answers as well: asked again in other company, a row's last bits, and so a very close answer, may be others.
    """

    def __init__(self, learner: SleepingLM, bare_perplexity: float, perplexity_rows: int) -> None:
        self.learner = learner
        self.answers = Answers()
        self._bare_perplexity = bare_perplexity
        self._rows = learner.base.statistics.held_out[:perplexity_rows]
        self._encoded: dict[Fact, Encoded] = {}

    def correct(self, facts: Sequence[Fact]) -> NDArray[np.bool_]:
        """Whether each fact, asked in chat, is answered with exactly its object."""
        examine_together([self], [facts])
        return np.array([self.answers.correct[fact] for fact in facts], dtype=bool)

    def perplexity_ratio(self) -> float:
        """Perplexity on held-out text relative to that of the bare model."""
        self._forget_old_version()
        if self.answers.ratio is None:
            self.answers.ratio = 1.0
            if self.learner.state.memory.terms:
                self.answers.forward_passes += 1
                found = self.learner.perplexity(self._rows)
                # One that is not a number is damage beyond measure.
                self.answers.ratio = math.inf if math.isnan(found) else found / self._bare_perplexity
        return self.answers.ratio

    def missing(self, facts: Sequence[Fact]) -> list[Fact]:
        """Those that have not been asked since memory changed, none twice."""
        self._forget_old_version()
        return [fact for fact in dict.fromkeys(facts) if fact not in self.answers.correct]

    def note(self, facts: Sequence[Fact], margins: Tensor) -> None:
        """Takes down answers, by their margins."""
        self.answers.forward_passes += 1
        self.answers.correct.update(zip(facts, (margins > 0).tolist(), strict=True))

    def probe(self, fact: Fact) -> Encoded:
        """The fact as users ask it."""
        if fact not in self._encoded:
            self._encoded[fact] = chat_probe(self.learner.lm, fact)
        return self._encoded[fact]

    def _forget_old_version(self) -> None:
        version = self.learner.state.memory.version
        if version != self.answers.version:
            self.answers.version, self.answers.ratio = version, None
            self.answers.correct.clear()


def examine_together(examiners: Sequence[Examiner], facts: Sequence[Sequence[Fact]]) -> None:
    """Asks what several examiners need to know in the same passes.

    Args:
        examiners: Of learners on one base.
        facts: What each is going to be asked.
    """
    needed = [
        (each, missing) for each, of_each in zip(examiners, facts, strict=True) if (missing := each.missing(of_each))
    ]
    if not needed:
        return
    probes = [[each.probe(fact) for fact in missing] for each, missing in needed]
    memories = [each.learner.state.memory for each, _ in needed]
    found = margins(examiners[0].learner.base.overlay, memories, probes)
    for (each, missing), seen in zip(needed, found, strict=True):
        each.note(missing, seen)
