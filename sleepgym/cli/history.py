"""What the commands of a session did to the memory, so that it can be undone."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sleepgym.memory.state import State
from sleepgym.notes.store import Change

LEVELS = 50
"""Steps that are kept. A state shares its terms with the next one: it costs little."""


@dataclass(frozen=True)
class Step:
    """A line that changed the memory or the notes, the state before it, and what it did to the notes."""

    line: str
    before: State
    notes: tuple[Change, ...] = ()


class History:
    """The last lines that changed the memory, the latest one last."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=LEVELS)

    def __len__(self) -> int:
        return len(self._steps)

    def note(self, line: str, before: State, after: State, notes: Sequence[Change] = ()) -> None:
        """Keeps a line if the memory or the notes are others than before it; what an audit puts down does not count."""
        if notes or _memory(before) != _memory(after):
            self._steps.append(Step(line, before, tuple(notes)))

    @property
    def last(self) -> Step | None:
        """The latest step; None if there is none."""
        return self._steps[-1] if self._steps else None

    def pop(self) -> Step | None:
        """Takes out the latest step; None if there is none."""
        return self._steps.pop() if self._steps else None


def _memory(state: State) -> tuple[object, ...]:
    terms = tuple((owner, id(term)) for owner, term in state.memory.terms.items())
    entries = tuple((key, entry.fact, entry.stage) for key, entry in state.ledger.items())
    return terms, entries, tuple(state.settled)
