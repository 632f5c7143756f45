"""Targets of sequences of facts, in which a target depends on the earlier ones about the same subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sleepgym.editing.spec import EditSpec
from sleepgym.editing.target_cache import TargetCache
from sleepgym.editing.targets import Target, key_name, optimize_targets
from sleepgym.facts.fact import Fact
from sleepgym.memory.overlay import Overlay


@dataclass(frozen=True)
class Link:
    """A fact's target on the frozen base.

    Attributes:
        name: Cache key of the target: equal names mean equal keys and values.
        target: The target.
    """

    name: str
    target: Target


class TargetStore:
    """Provides targets on the frozen base, from the cache or by optimisation.

    Args:
        overlay: The model with hooks.
        cache: Cache of targets.
        prefixes: Contexts besides the bare prompt.
        spec: The recipe.
        batch_facts: Number of facts whose targets are optimised in one pass.
    """

    def __init__(
        self, overlay: Overlay, cache: TargetCache, prefixes: Sequence[str], spec: EditSpec, batch_facts: int
    ) -> None:
        self.overlay, self.cache, self.prefixes, self.spec = overlay, cache, prefixes, spec
        self.batch_facts = batch_facts

    def of(self, facts: Sequence[Fact]) -> list[Link]:
        """Returns the targets of one learner's facts, each optimised jointly with the earlier ones of its key.

        Missing ones are optimised in as many rounds as a key has facts at most.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        return self.of_each([facts])[0]

    def of_each(self, groups: Sequence[Sequence[Fact]]) -> list[list[Link]]:
        """Returns the targets of several learners' facts, optimised in shared passes; see :meth:`of`.

        A target depends on facts of its own group only, so that learners are independent even if they are taught about
        the same subject.

        Args:
            groups: Facts of each learner, in order.

        Raises:
            EditError: A loss became NaN or infinite.
            FactError: A fact cannot be tokenised as needed.
        """
        names: list[list[str]] = []
        facts: dict[str, Fact] = {}
        before: dict[str, list[str]] = {}
        for group in groups:
            of_key: dict[str, list[Fact]] = {}
            chain: dict[str, list[str]] = {}
            names.append([])
            for fact in group:
                shared = key_name(fact, self.spec)
                same, known = of_key.setdefault(shared, []), chain.setdefault(shared, [])
                name = self.cache.name(fact, same)
                facts[name], before[name] = fact, list(known)
                same.append(fact)
                known.append(name)
                names[-1].append(name)
        found = {name: target for name in facts if (target := self.cache.get(name)) is not None}
        for depth in range(max(map(len, before.values()), default=0) + 1):
            missing = [name for name in facts if len(before[name]) == depth and name not in found]
            # Rows of one pass are padded to the longest, so that batches of similar length waste least.
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
