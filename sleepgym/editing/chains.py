"""Targets of facts in the order in which they came: those about one subject build on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sleepgym.editing.spec import EditSpec
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.targets import Target, optimize_targets
from sleepgym.facts.fact import Fact
from sleepgym.overlay import Overlay


@dataclass(frozen=True)
class Link:
    """A fact's target on the frozen base.

    Attributes:
        name: What the target is cached under: equal names mean equal keys and values.
        target: The target.
    """

    name: str
    target: Target


class Chains:
    """Finds targets on the frozen base, from the cache where it has them.

    Args:
        overlay: The model with hooks.
        cache: Where targets are kept.
        prefixes: Contexts besides the bare prompt.
        spec: The recipe.
        batch_facts: Facts optimised in one pass.
    """

    def __init__(
        self, overlay: Overlay, cache: TargetCache, prefixes: Sequence[str], spec: EditSpec, batch_facts: int
    ) -> None:
        self.overlay, self.cache, self.prefixes, self.spec = overlay, cache, prefixes, spec
        self.batch_facts = batch_facts

    def of(self, facts: Sequence[Fact]) -> list[Link]:
        """Targets of facts, each made to stand beside those before it about its subject.

        Missing ones are optimised together, in as many rounds as there are facts about one subject.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        before = _earlier(facts)
        names = [self.cache.name(fact, [facts[j] for j in before[i]]) for i, fact in enumerate(facts)]
        found = {i: target for i, name in enumerate(names) if (target := self.cache.get(name)) is not None}
        for depth in range(max(map(len, before), default=0) + 1):
            missing = [i for i in range(len(facts)) if len(before[i]) == depth and i not in found]
            # Rows of one pass are padded to the longest: facts of like length belong together.
            missing.sort(key=lambda i: len(facts[i].prompt) - facts[i].prompt.rfind(facts[i].subject))
            for start in range(0, len(missing), self.batch_facts):
                batch = missing[start : start + self.batch_facts]
                chosen = [facts[i] for i in batch]
                beside = [[(facts[j], found[j]) for j in before[i]] for i in batch]
                with self.overlay.use(()):
                    targets = optimize_targets(self.overlay.lm, chosen, self.prefixes, self.spec, beside)
                for i, target in zip(batch, targets, strict=True):
                    found[i] = target
                    self.cache.put(names[i], target)
        return [Link(name, found[i]) for i, name in enumerate(names)]


def _earlier(facts: Sequence[Fact]) -> list[list[int]]:
    """Per fact the indices of earlier facts about its subject."""
    of_subject: dict[str, list[int]] = {}
    before = []
    for i, fact in enumerate(facts):
        same = of_subject.setdefault(fact.subject, [])
        before.append(list(same))
        same.append(i)
    return before
