"""The ruler of what a model keeps: known facts split in two by subject, of which only one half is ever reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.common import records
from benchmarks.common.asking import correct
from sleepgym.facts import Fact, load_facts
from sleepgym.facts.real import RealFacts
from sleepgym.lm.encoding import Encoded
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory.asking import raw_probe
from sleepgym.memory.overlay import Memory, Overlay

_NAMED = "CounterFact: {}"
"""Relation of true facts that CounterFact teaches otherwise."""

LOCALITY = "locality"
"""Relation of prompts about neighbours of CounterFact, whose subjects are not named."""


@dataclass(frozen=True)
class Known:
    """A prompt that the bare model completes rightly.

    Attributes:
        relation: Its relation.
        probe: Prompt and object.
        fact: The fact; None where a data set names no subject.
    """

    relation: str
    probe: Encoded
    fact: Fact | None = None


class Ruler:
    """What a bare model knows of the data sets, in two halves.

    Args:
        lm: The bare model.
        relations: Folder of relation files (Hernandez et al. 2023).
        counterfact: File of CounterFact (Meng et al. 2022); None for none.
        cache: Folder of what was found out before about which model.
    """

    def __init__(self, lm: LanguageModel, relations: Path, counterfact: Path | None, cache: Path) -> None:
        self.lm, self.relations, self.counterfact, self.cache = lm, relations, counterfact, cache
        self.source = RealFacts.from_relations(sorted(relations.glob("*.json")))
        facts = self.source.known_facts()
        edits = list(load_facts(counterfact).latest) if counterfact else []
        # What CounterFact asks about subjects is true with another object than the one that it teaches.
        facts += [replace(f, object=f.true_object, true_object="", relation=_NAMED.format(f.relation)) for f in edits]
        asked = [Known(fact.relation, raw_probe(lm, fact), fact) for fact in facts]
        asked += [Known(LOCALITY, lm.encode(p, o)) for p, o in dict.fromkeys(n for f in edits for n in f.neighbours)]
        self.edits = edits
        self.known = [each for each, right in zip(asked, self._right(asked, cache), strict=True) if right]
        subjects = sorted({each.fact.subject for each in self.known if each.fact})
        self.rehearsed = {subjects[i] for i in np.random.default_rng(0).permutation(len(subjects))[::2]}
        """Subjects of the half that may be rehearsed."""
        names = tuple(self.rehearsed)
        self.reported = [each for each in self.known if not any(name in _prompt(lm, each) for name in names)]
        """The other half, and no prompt in which a subject of the first one is named."""

    @property
    def rehearsable(self) -> list[Fact]:
        """Facts of the half that may be rehearsed."""
        return [each.fact for each in self.known if each.fact and each.fact.subject in self.rehearsed]

    def other_wordings(self, facts: Sequence[Fact]) -> list[Encoded]:
        """Known facts of the relations of some facts in the other phrasings: what the bare model recalls of these."""
        relations = {fact.relation for fact in facts}
        known = [each.fact for each in self.reported if each.fact and each.relation in relations]
        return [self.lm.encode(prompt, fact.object) for fact in known for prompt in fact.paraphrases]

    def hardest(self, seed: int, count: int, relations: int = 2) -> list[Fact]:
        """Draws changed facts of the relations that the model knows most of, all of the reported half."""
        rng = np.random.default_rng(seed)
        own = [each for each in self.reported if each.fact and each.relation in self.source.relations]
        most = [name for name, _ in Counter(each.relation for each in own).most_common(relations)]
        facts = [each.fact for each in own if each.fact and each.relation in most]
        return [self.source.update(rng, facts[i]) for i in rng.permutation(len(facts))[:count]]

    def spread(self, seed: int, count: int) -> list[Fact]:
        """Draws edits of CounterFact about subjects that are not rehearsed, each about another one."""
        free = list({f.subject: f for f in self.edits if f.subject not in self.rehearsed}.values())
        return [free[i] for i in np.random.default_rng(seed).permutation(len(free))[:count]]

    def kept(self, overlay: Overlay, memory: Memory, taught: Sequence[Fact]) -> dict[str, list[bool]]:
        """Whether each known prompt of the reported half is still completed rightly, by kinds of prompts.

        Args:
            overlay: The model with hooks.
            memory: What it was taught.
            taught: Facts that it was taught; prompts that name their subjects are not asked.

        Returns:
            ``"same"``: of the relations that were taught, ``"other"``: of others, ``"all"``: both.
        """
        names, relations = {f.subject for f in taught}, {f.relation for f in taught}
        relations |= {_NAMED.format(name) for name in relations}
        asked = [each for each in self.reported if not any(name in _prompt(self.lm, each) for name in names)]
        with overlay.use(memory):
            right = correct(self.lm, [each.probe for each in asked])
        same = [each.relation in relations for each in asked]
        return {
            "same": [hit for hit, near in zip(right, same, strict=True) if near],
            "other": [hit for hit, near in zip(right, same, strict=True) if not near],
            "all": right,
        }

    def _right(self, asked: Sequence[Known], cache: Path) -> list[bool]:
        file = cache / f"{self.lm.fingerprint[:16]}.{len(asked)}.json"
        if not file.exists():
            records.write(file, {"right": correct(self.lm, [each.probe for each in asked])}, indent=None)
        return [bool(right) for right in records.read(file)["right"]]


def _prompt(lm: LanguageModel, known: Known) -> str:
    return (
        known.fact.prompt if known.fact else str(lm.tokenizer.decode(list(known.probe.ids), skip_special_tokens=True))
    )
