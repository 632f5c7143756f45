"""Plans: what one solve is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sleepgym.editing.target_store import Link
from sleepgym.editing.targets import Target
from sleepgym.facts.fact import Fact


@dataclass(frozen=True)
class Subject:
    """Facts about one subject, which share a key.

    Attributes:
        name: The subject.
        facts: Facts about it.
        links: Their targets on the frozen base; empty if targets are those of the edited model.
        beside: Facts about it that are written already, with their targets.
    """

    name: str
    facts: tuple[Fact, ...]
    links: tuple[Link, ...]
    beside: tuple[tuple[Fact, Target], ...] = ()


@dataclass(frozen=True)
class Plan:
    """Inputs of one solve.

    Attributes:
        targets: Targets of the facts to write.
        subjects: Subjects of the facts to write.
        protected_subjects: Subjects of protected facts only, whose keys are held fixed.
        protected: Protected facts that are not rewritten.
        neighbours: Facts about others, whose keys are to have no output.
    """

    targets: Mapping[Fact, Target]
    subjects: Sequence[Subject]
    protected_subjects: Sequence[Subject]
    protected: Sequence[Fact]
    neighbours: Sequence[Fact]

    @property
    def facts(self) -> list[Fact]:
        """Facts to write, subject by subject."""
        return [fact for subject in self.subjects for fact in subject.facts]


def not_rewritten(facts: Sequence[Fact], protected: Sequence[Fact]) -> list[Fact]:
    """Returns the protected facts whose keys are not among those of the facts to write."""
    written = {fact.key for fact in facts}
    return [fact for fact in protected if fact.key not in written]


def by_subject(facts: Sequence[Fact]) -> dict[str, list[Fact]]:
    """Groups facts by subject; subjects and facts keep their order."""
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.subject, []).append(fact)
    return groups
