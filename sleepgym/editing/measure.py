"""Metrics of edits, as in the editing literature: efficacy, paraphrase, question, neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Prompts:
    """Prompts with the object that is right and the one that is wrong after the edit (empty: unknown)."""

    prompts: Sequence[str]
    right: Sequence[str]
    wrong: Sequence[str]

    def encoded(self, lm: LanguageModel, objects: Sequence[str]) -> list[Encoded]:
        return [lm.encode(p, o) for p, o in zip(self.prompts, objects, strict=True) if o]


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
        neighbours = self._neighbourhood(self.facts)
        self._known = _correct(lm, neighbours.encoded(lm, neighbours.right))
        self._neighbours = neighbours

    def read(self, facts: Sequence[Fact] | None = None, generate: bool = False) -> EditReport:
        """Measures the model with the memory in use.

        Args:
            facts: Facts written so far; None for all. Neighbours are always those of all facts, so that ``kept`` is
                comparable however many are written.
            generate: Whether to decode greedily as well, which takes a pass per token.
        """
        facts = self.facts if facts is None else facts
        used = self._of([(fact.prompt, fact) for fact in facts])
        unseen = self._of([(prompt, fact) for fact in facts for prompt in fact.paraphrases])
        asked = self._of([(self.lm.chat(question), fact) for fact in facts for question in fact.questions])
        now = _correct(self.lm, self._neighbours.encoded(self.lm, self._neighbours.right))
        return EditReport(
            efficacy=self._reading(used, generate),
            paraphrase=self._reading(unseen, generate),
            question=self._reading(asked, generate),
            neighbourhood=self._reading(self._neighbours, generate),
            kept=_share(now[self._known]),
        )

    @staticmethod
    def _of(pairs: Sequence[tuple[str, Fact]]) -> _Prompts:
        return _Prompts([p for p, _ in pairs], [f.object for _, f in pairs], [f.true_object for _, f in pairs])

    @staticmethod
    def _neighbourhood(facts: Sequence[Fact]) -> _Prompts:
        triples = [(prompt, obj, f.object if f.object != obj else "") for f in facts for prompt, obj in f.neighbours]
        return _Prompts([p for p, _, _ in triples], [o for _, o, _ in triples], [w for _, _, w in triples])

    def _reading(self, prompts: _Prompts, generate: bool) -> Reading:
        lm = self.lm
        pairs = [(p, r, w) for p, r, w in zip(prompts.prompts, prompts.right, prompts.wrong, strict=True) if w]
        right = _mean_nll(lm, [lm.encode(p, r) for p, r, _ in pairs])
        wrong = _mean_nll(lm, [lm.encode(p, w) for p, _, w in pairs])
        written = torch.empty(0)
        if generate:
            texts = continuations(lm, prompts.prompts, max_new_tokens=10)
            written = torch.tensor([obj in text for obj, text in zip(prompts.right, texts, strict=True)])
        return Reading(_share(right < wrong), _share(_correct(lm, prompts.encoded(lm, prompts.right))), _share(written))


def _correct(lm: LanguageModel, probes: Sequence[Encoded]) -> Tensor:
    parts = [score(lm, probes[i : i + _BATCH]).correct for i in range(0, len(probes), _BATCH)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.bool)


def _mean_nll(lm: LanguageModel, probes: Sequence[Encoded]) -> Tensor:
    parts = [score(lm, probes[i : i + _BATCH]).nll for i in range(0, len(probes), _BATCH)]
    return torch.cat(parts) / torch.tensor([len(p.object_ids) for p in probes]) if parts else torch.empty(0)


def _share(holds: Tensor) -> float:
    return float(holds.float().mean())
