"""Targets of facts in the order in which they came: those about one subject build on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sleepgym.editing.spec import EditSpec
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.targets import Target, optimize_targets
from sleepgym.facts.fact import Fact
from sleepgym.memory.overlay import Overlay


@dataclass(frozen=True)
class Link:
    """A fact's target on the frozen base.

    Attributes:
        name: What the target is cached under: equal names mean equal keys and values.
        target: The target.
    """

    name: str
    target: Target


class TargetStore:
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
        """Targets of one learner's facts, each made to stand beside those before it about its subject.

        Missing ones are optimised together, in as many rounds as there are facts about one subject.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        return self.of_each([facts])[0]

    def of_each(self, groups: Sequence[Sequence[Fact]]) -> list[list[Link]]:
        """Targets of several learners' facts, optimised together; see :meth:`of`.

        Facts stand beside those of their own group only: two learners that are told of one person know nothing of each
        other.
        """
        names: list[list[str]] = []
        facts: dict[str, Fact] = {}
        before: dict[str, list[str]] = {}
        for group in groups:
            of_subject: dict[str, list[Fact]] = {}
            chain: dict[str, list[str]] = {}
            names.append([])
            for fact in group:
                same, known = of_subject.setdefault(fact.subject, []), chain.setdefault(fact.subject, [])
                name = self.cache.name(fact, same)
                facts[name], before[name] = fact, list(known)
                same.append(fact)
                known.append(name)
                names[-1].append(name)
        found = {name: target for name in facts if (target := self.cache.get(name)) is not None}
        for depth in range(max(map(len, before.values()), default=0) + 1):
            missing = [name for name in facts if len(before[name]) == depth and name not in found]
            # Rows of one pass are padded to the longest: facts of like length belong together.
            missing.sort(key=lambda name: len(facts[name].prompt) - facts[name].prompt.rfind(facts[name].subject))
            for start in range(0, len(missing), self.batch_facts):
                batch = missing[start : start + self.batch_facts]
                chosen = [facts[name] for name in batch]
                beside = [[(facts[other], found[other]) for other in before[name]] for name in batch]
                with self.overlay.use(()):
                    targets = optimize_targets(self.overlay.lm, chosen, self.prefixes, self.spec, beside)
                for name, target in zip(batch, targets, strict=True):
                    found[name] = target
                    self.cache.put(name, target)
        return [[Link(name, found[name]) for name in group] for group in names]
