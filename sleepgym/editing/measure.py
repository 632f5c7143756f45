"""Metrics of edits, as in the editing literature: efficacy, paraphrase, question, neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sleepgym.facts.fact import Fact
from sleepgym.lm import continuations, score
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel

_BATCH = 64


@dataclass(frozen=True)
class Reading:
    """Three metrics of one set of prompts, each a share of the prompts; NaN without prompts.

    Attributes:
        likelier: The right object has a higher mean log-probability per token than the wrong one (ROME's efficacy,
            paraphrase and neighbourhood *scores*); over prompts with a wrong object only.
        exact: Every token of the right object is the likeliest (EasyEdit's and this project's *recall*).
        written: The right object occurs in the greedily decoded continuation; NaN if nothing was decoded.
    """

    likelier: float
    exact: float
    written: float


@dataclass(frozen=True)
class EditReport:
    """Metrics of all facts written so far.

    Attributes:
        efficacy: On the prompts that facts were written with.
        paraphrase: On unseen phrasings.
        question: On questions in the model's chat format.
        neighbourhood: On prompts about other subjects, whose right object is the one from before the edit.
        kept: Share of the neighbours that the bare model recalls exactly that are still recalled exactly.
    """

    efficacy: Reading
    paraphrase: Reading
    question: Reading
    neighbourhood: Reading
    kept: float


class _Asked(NamedTuple):
    """A prompt with the object that is right, the one that is wrong after the edit (empty: unknown), and the joiner."""

    prompt: str
    right: str
    wrong: str
    joiner: str | None

    def encoded(self, lm: LanguageModel, obj: str) -> Encoded:
        return lm.encode(self.prompt, obj, joiner=self.joiner)


class EditProbes:
    """Probes of a set of facts; neighbours are probed on the bare model when it is made.

    Args:
        lm: The model; no memory may be in use.
        facts: Facts that are going to be written.

    Raises:
        FactError: A fact cannot be tokenised as needed.
    """

    def __init__(self, lm: LanguageModel, facts: Sequence[Fact]) -> None:
        self.lm, self.facts = lm, tuple(facts)
        self._neighbours = [
            _Asked(prompt, obj, fact.object if fact.object != obj else "", fact.joiner)
            for fact in self.facts
            for prompt, obj in fact.neighbours
        ]
        self._known = self._recalled(self._neighbours)

    def read(self, facts: Sequence[Fact] | None = None, generate: bool = False) -> EditReport:
        """Measures the model with the memory in use.

        Args:
            facts: Facts written so far; None for all. Neighbours are always those of all facts, so that ``kept`` is
                comparable however many are written.
            generate: Whether to decode greedily as well, which takes a pass per token.
        """
        facts = self.facts if facts is None else facts
        used = [_Asked(fact.prompt, fact.object, fact.true_object, fact.joiner) for fact in facts]
        unseen = [asked._replace(prompt=p) for asked, fact in zip(used, facts, strict=True) for p in fact.paraphrases]
        in_chat = [
            asked._replace(prompt=self.lm.chat(question), joiner=None)
            for asked, fact in zip(used, facts, strict=True)
            for question in fact.questions
        ]
        return EditReport(
            efficacy=self._reading(used, generate),
            paraphrase=self._reading(unseen, generate),
            question=self._reading(in_chat, generate),
            neighbourhood=self._reading(self._neighbours, generate),
            kept=_share(self._recalled(self._neighbours)[self._known]),
        )

    def _recalled(self, asked: Sequence[_Asked]) -> Tensor:
        return _correct(self.lm, [each.encoded(self.lm, each.right) for each in asked])

    def _reading(self, asked: Sequence[_Asked], generate: bool) -> Reading:
        lm = self.lm
        paired = [each for each in asked if each.wrong]
        right = _mean_nll(lm, [each.encoded(lm, each.right) for each in paired])
        wrong = _mean_nll(lm, [each.encoded(lm, each.wrong) for each in paired])
        written = torch.empty(0)
        if generate:
            texts = continuations(lm, [each.prompt for each in asked], max_new_tokens=10)
            written = torch.tensor([each.right in text for each, text in zip(asked, texts, strict=True)])
        return Reading(_share(right < wrong), _share(self._recalled(asked)), _share(written))


def _correct(lm: LanguageModel, probes: Sequence[Encoded]) -> Tensor:
    parts = [score(lm, probes[i : i + _BATCH]).correct for i in range(0, len(probes), _BATCH)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.bool)


def _mean_nll(lm: LanguageModel, probes: Sequence[Encoded]) -> Tensor:
    parts = [score(lm, probes[i : i + _BATCH]).nll for i in range(0, len(probes), _BATCH)]
    return torch.cat(parts) / torch.tensor([len(p.object_ids) for p in probes]) if parts else torch.empty(0)


def _share(holds: Tensor) -> float:
    return float(holds.float().mean())
