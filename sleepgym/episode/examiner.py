"""Examiner: probes a learner with the users' questions, once per version of its memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sleepgym.episode.held_out import HeldOut
from sleepgym.episode.state import Answers
from sleepgym.facts.fact import Fact
from sleepgym.lm.encoding import Encoded
from sleepgym.memory.asking import chat_probe, margins
from sleepgym.memory.doubt import are_sure
from sleepgym.sleeper import SleepingLM


class Examiner:
    """Measures correctness of answers and perplexity, cached per version of the memory.

    Equal versions of a memory mean equal logits, so that a tick that changes no weights costs no forward pass.

    Args:
        learner: Learner to probe.
        held_out: Text that perplexity is measured on.

    Attributes:
        answers: Cached measurements; part of the episode's state. They must be restored together with a memory: probed
            again in another batch, logits differ by rounding, which can flip a margin close to 0.
    """

    def __init__(self, learner: SleepingLM, held_out: HeldOut) -> None:
        self.learner = learner
        self.answers = Answers()
        self._held_out = held_out
        self._encoded: dict[Fact, Encoded] = {}

    def correct(self, facts: Sequence[Fact]) -> NDArray[np.bool_]:
        """Returns whether each fact, asked in chat, is answered with exactly its object, bool ``[facts]``."""
        examine_together([self], [facts])
        return np.array([self.answers.correct[fact] for fact in facts], dtype=bool)

    def sure(self, facts: Sequence[Fact], nats: float) -> NDArray[np.bool_]:
        """Returns whether the model is sure of its own answer about each fact, bool ``[facts]``.

        Args:
            facts: Facts to ask, in chat.
            nats: See :func:`~sleepgym.memory.doubt.are_sure`; the same at every call.
        """
        self._forget_old_version()
        missing = [fact for fact in dict.fromkeys(facts) if fact not in self.answers.sure]
        if missing:
            base, probes = self.learner.base, [self.probe(fact) for fact in missing]
            prompts = [probe.ids[: probe.object_start] for probe in probes]
            found = are_sure(base.lm, prompts, nats, base.overlay.asked(self.learner.state.memory))
            self.answers.sure.update(zip(missing, found, strict=True))
        return np.array([self.answers.sure[fact] for fact in facts], dtype=bool)

    def perplexity_ratio(self) -> float:
        """Returns the perplexity on a sample of held-out text relative to that of the bare model; infinity for NaN."""
        self._forget_old_version()
        if self.answers.ratio is None:
            memory = self.learner.state.memory
            self.answers.forward_passes += bool(memory.terms)
            self.answers.ratio = self._held_out.ratio(memory)
        return self.answers.ratio

    def whole_ratio(self) -> float:
        """Returns the same on all of the text, measured anew."""
        return self._held_out.whole_ratio(self.learner.state.memory)

    def missing(self, facts: Sequence[Fact]) -> list[Fact]:
        """Returns the facts that have not been probed since memory changed, without duplicates."""
        self._forget_old_version()
        return [fact for fact in dict.fromkeys(facts) if fact not in self.answers.correct]

    def note(self, facts: Sequence[Fact], margins: Tensor) -> None:
        """Records the answers of facts by their margins, ``[facts]``."""
        self.answers.forward_passes += 1
        self.answers.correct.update(zip(facts, (margins > 0).tolist(), strict=True))

    def probe(self, fact: Fact) -> Encoded:
        """Returns the chat probe of a fact, cached."""
        if fact not in self._encoded:
            self._encoded[fact] = chat_probe(self.learner.lm, fact)
        return self._encoded[fact]

    def _forget_old_version(self) -> None:
        version = self.learner.state.memory.version
        if version != self.answers.version:
            self.answers.version, self.answers.ratio = version, None
            self.answers.correct.clear()
            self.answers.sure.clear()


def examine_together(examiners: Sequence[Examiner], facts: Sequence[Sequence[Fact]]) -> None:
    """Probes the missing facts of several examiners in shared passes.

    Args:
        examiners: Examiners of learners on one base.
        facts: Facts that each examiner needs answers for.
    """
    needed = [
        (examiner, missing)
        for examiner, asked in zip(examiners, facts, strict=True)
        if (missing := examiner.missing(asked))
    ]
    if not needed:
        return
    probes = [[examiner.probe(fact) for fact in missing] for examiner, missing in needed]
    memories = [examiner.learner.state.memory for examiner, _ in needed]
    found = margins(examiners[0].learner.base.overlay, memories, probes)
    for (examiner, missing), measured in zip(needed, found, strict=True):
        examiner.note(missing, measured)
