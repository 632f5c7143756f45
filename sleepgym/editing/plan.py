"""Plans: what one solve is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sleepgym.editing.spec import EditSpec
from sleepgym.editing.target_store import Link
from sleepgym.editing.targets import Target, key_name
from sleepgym.facts.fact import Fact


@dataclass(frozen=True)
class Subject:
    """Facts about one subject, which share a key; where keys are read at the end of prompts, facts with one prompt.

    Attributes:
        name: The subject, or the prompt.
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


def by_key(facts: Sequence[Fact], spec: EditSpec) -> dict[str, list[Fact]]:
    """Groups facts that share a key, by its :func:`~sleepgym.editing.targets.key_name`, in the order of facts."""
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(key_name(fact, spec), []).append(fact)
    return groups
