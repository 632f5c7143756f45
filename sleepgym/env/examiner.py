"""Puts the users' questions to the model, once per state of its memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sleepgym.consolidation.pathways import chat_probe
from sleepgym.facts.fact import Fact
from sleepgym.lm.language_model import Encoded
from sleepgym.sleeper import SleepingLM


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
        self._forget_old_version()
        missing = [fact for fact in facts if fact not in self._correct]
        if missing:
            self.forward_passes += 1
            found = self.learner.score([self._probe(fact) for fact in missing]).correct.tolist()
            self._correct.update(zip(missing, found, strict=True))
        return np.array([self._correct[fact] for fact in facts], dtype=bool)

    def perplexity_ratio(self) -> float:
        """Perplexity on held-out text relative to that of the bare model."""
        self._forget_old_version()
        if self._ratio is None:
            if self.learner.state.memory.terms:
                self.forward_passes += 1
                self._ratio = self.learner.perplexity(self._rows) / self._bare_perplexity
            else:
                self._ratio = 1.0
        return self._ratio

    def _forget_old_version(self) -> None:
        version = self.learner.state.memory.version
        if version != self._version:
            self._version, self._ratio = version, None
            self._correct.clear()

    def _probe(self, fact: Fact) -> Encoded:
        if fact not in self._encoded:
            self._encoded[fact] = chat_probe(self.learner.lm, fact)
        return self._encoded[fact]
