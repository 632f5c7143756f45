"""Others about whom a night asks what it asks about its lessons.

Lessons about one subject of a relation move the answers about all others of it, and ordinary text does not show that.
So a night holds the answers that the bare model gives about some of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sleepgym.editing.base import Base
from sleepgym.facts.fact import Fact
from sleepgym.memory.settled import Settled
from sleepgym.memory.state import State

_SAME = 0.75
"""Share of the neighbours that are asked what the lessons are asked, if there are others of both kinds."""


def neighbours_of(base: Base, state: State, lessons: Sequence[Fact], count: int) -> list[Settled]:
    """Draws questions about subjects that are not taught.

    Args:
        base: The model and what is given of others.
        state: State of the learner; subjects that it was taught about are left out.
        lessons: Facts that are trained.
        count: Maximum number of subjects.

    Returns:
        What is asked about them: most of it what the lessons are asked.
    """
    taught, relations = state.subjects, {fact.relation for fact in lessons}
    same = base.neighbourhood.beside(lessons, taught, count)
    other = [f for f in base.neighbourhood.given if f.relation not in relations and f.subject not in taught]
    same, other = ([facts[i] for i in state.rng.permutation(len(facts))] for facts in (same, other))
    near = same[: max(round(_SAME * count), count - len(other))]
    return [Settled.of(fact) for fact in (*near, *other[: count - len(near)])]
