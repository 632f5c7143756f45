"""Puts the users' questions to the model, once per state of its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.consolidation.pathways import chat_probe, margins
from sleepgym.facts.fact import Fact
from sleepgym.lm.language_model import Encoded
from sleepgym.sleeper import SleepingLM


@dataclass(frozen=True)
class Answers:
    """What was found out about one version of a memory.

    Attributes:
        version: The version; -1 before the first question.
        ratio: Perplexity relative to the bare model, if it was measured.
        correct: Whether facts were answered correctly.
        forward_passes: Passes that it took, those for earlier versions included.
    """

    version: int
    ratio: float | None
    correct: Mapping[Fact, bool]
    forward_passes: int


class Examiner:
    """Answers "is this fact answered correctly now?" and "how far has perplexity drifted?".

    Equal versions of a memory mean equal logits, so that what was asked at a version is never asked again
    and a tick that changes no weights costs no forward pass.

    Args:
        learner: Whose memory is examined.
        bare_perplexity: Perplexity of its model without a memory, on the same rows.
        perplexity_rows: Rows of held-out text on which perplexity is measured.
    """

    def __init__(self, learner: SleepingLM, bare_perplexity: float, perplexity_rows: int) -> None:
        self.learner = learner
        self.forward_passes = 0
        self._bare_perplexity = bare_perplexity
        self._rows = learner.base.statistics.held_out[:perplexity_rows]
        self._version = -1
        self._correct: dict[Fact, bool] = {}
        self._ratio: float | None = None
        self._encoded: dict[Fact, Encoded] = {}

    def correct(self, facts: Sequence[Fact]) -> NDArray[np.bool_]:
        """Whether each fact, asked in chat, is answered with exactly its object."""
        examine_together([self], [facts])
        return np.array([self._correct[fact] for fact in facts], dtype=bool)

    def perplexity_ratio(self) -> float:
        """Perplexity on held-out text relative to that of the bare model."""
        self._forget_old_version()
        if self._ratio is None:
            if self.learner.state.memory.terms:
                self.forward_passes += 1
                found = self.learner.perplexity(self._rows)
                # One that is not a number is damage beyond measure.
                self._ratio = math.inf if math.isnan(found) else found / self._bare_perplexity
            else:
                self._ratio = 1.0
        return self._ratio

    def answers(self) -> Answers:
        """What was found out so far; nothing that is asked later is added to it."""
        return Answers(self._version, self._ratio, dict(self._correct), self.forward_passes)

    def resume(self, answers: Answers) -> None:
        """Goes on from answers about the learner's present memory.

        Asking again would not do: in other company a row's last bits, and so a very close answer, may be others.
        """
        self._version, self._ratio, self._correct = answers.version, answers.ratio, dict(answers.correct)
        self.forward_passes = answers.forward_passes

    def _forget_old_version(self) -> None:
        version = self.learner.state.memory.version
        if version != self._version:
            self._version, self._ratio = version, None
            self._correct.clear()

    def missing(self, facts: Sequence[Fact]) -> list[Fact]:
        """Those that have not been asked since memory changed, none twice."""
        self._forget_old_version()
        return [fact for fact in dict.fromkeys(facts) if fact not in self._correct]

    def note(self, facts: Sequence[Fact], margins: Tensor) -> None:
        """Takes down answers, by their margins."""
        self._correct.update(zip(facts, (margins > 0).tolist(), strict=True))

    def probe(self, fact: Fact) -> Encoded:
        """The fact as users ask it."""
        if fact not in self._encoded:
            self._encoded[fact] = chat_probe(self.learner.lm, fact)
        return self._encoded[fact]


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
        each.forward_passes += 1
        each.note(missing, seen)
