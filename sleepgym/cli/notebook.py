"""The notes of a conversation: what is remembered is noted, and what a person changes there is read and taught."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sleepgym.cli.views import NEWS
from sleepgym.facts.fact import Fact
from sleepgym.facts.world import Relation
from sleepgym.memory.ledger import Key
from sleepgym.memory.state import State
from sleepgym.notes import FactNotes, NotesError, NoteStore, Retriever
from sleepgym.notes.bullet import Bullet
from sleepgym.notes.fact_notes import Noted, Recorded
from sleepgym.notes.retrieval import sentence
from sleepgym.notes.store import Change

FOUND = 5
"""Notes of a look-up at most."""


@dataclass(frozen=True)
class Found:
    """What a look-up gives for a question.

    Attributes:
        sentences: The notes as sentences, the best first.
        news: Whether one of them tells what the weights were not taught.
    """

    sentences: tuple[str, ...]
    news: bool


@dataclass(frozen=True)
class Pending:
    """What notes tell and the weights were not taught.

    Attributes:
        facts: To be taught.
        gone: Facts that were taught and whose notes a person has taken away.
        untold: Notes of taught facts that a person has put into words that no statement of the fact begins with.
    """

    facts: tuple[Fact, ...]
    gone: tuple[Key, ...]
    untold: tuple[str, ...]


class Notebook:
    """A folder of notes beside a conversation.

    Args:
        folder: Where; made when something is first noted.
        relations: Relations of the model, whose words it takes for facts.
        index: File of the index of look-ups; by default one among the user's cached files.

    Raises:
        NotesError: There is something else than a folder.
    """

    def __init__(self, folder: Path, relations: Mapping[str, Relation], index: Path | None = None) -> None:
        if folder.exists() and not folder.is_dir():
            raise NotesError(f"expected a folder of notes, found a file at {folder}; name another folder")
        self.folder = folder
        self._store = _Store(folder)
        self._facts = FactNotes(self._store)
        self._retriever = Retriever(self._store, index=index)
        self._relations = tuple(relations.values())

    # ------------------------------------------------------------------ reading

    def look_up(self, question: str, state: State) -> Found:
        """The notes that answer a question best.

        Raises:
            NotesError: The question is too long, or a file cannot be used.
            OSError: A file cannot be read.
        """
        if not self.folder.is_dir():
            return Found((), False)
        notes = self._facts.about(question, self._retriever.retrieve(question, FOUND).notes)
        told = self._facts.told(self._relations, {note.path for note in notes}) if notes else []
        said = {note.said for note in notes}
        news = any(one.text in said and _is_news(one, state) for one in told)
        return Found(tuple(sentence(note.said) for note in notes), news)

    def pending(self, state: State) -> Pending:
        """What a night has to teach and to forget, so that the weights hold what the notes tell.

        Raises:
            NotesError: A file cannot be used.
            OSError: A file cannot be read.
        """
        told = self._told()
        return Pending(
            tuple(one.fact for one in told if one.fact is not None and _is_news(one, state)),
            tuple(one.key for one in told if one.text is None),
            tuple(one.text for one in told if one.text is not None and one.fact is None),
        )

    def about(self, subject: str) -> list[Noted]:
        """The facts that notes tell, or told, of a subject.

        Raises:
            NotesError: A file cannot be used.
            OSError: A file cannot be read.
        """
        if not self.folder.is_dir():
            return []
        return self._facts.told(self._relations, [self._facts.path(subject)])

    def listed(self, state: State) -> Iterator[tuple[str, str, str]]:
        """Text, file and whereabouts in the weights of every current note.

        Raises:
            NotesError: A file cannot be used.
            OSError: A file cannot be read.
        """
        facts = {(one.path, one.text): one for one in self._told()}
        for path in self._store.files() if self.folder.is_dir() else ():
            for note in self._current(path):
                one = facts.get((path, note.words))
                yield note.words, path, "" if one is None else _whereabouts(one, state)

    def _told(self) -> list[Noted]:
        return self._facts.told(self._relations) if self.folder.is_dir() else []

    def _current(self, path: str) -> Iterator[Bullet]:
        now = self._store.clock()
        return (one for block, one in self._store.read(path).notes() if one.holds(block.tier, now))

    # ------------------------------------------------------------------ writing

    def remember(self, facts: Sequence[Fact]) -> Recorded:
        """Notes what was taught; see :meth:`FactNotes.record`."""
        return self._facts.record(facts)

    def forget(self, noted: Sequence[Noted], keys: Collection[Key]) -> int:
        """Deletes the notes of facts, in history too. Returns how many are gone.

        Args:
            noted: What :meth:`about` found of them.
            keys: The facts.

        Raises:
            NotesError: A file cannot be used; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        if not self.folder.is_dir():
            return 0
        # Lines that a person added are found by what was taught of them.
        added = [one.fact for one in noted if one.taught is None and one.fact is not None and one.key in keys]
        if added:
            self._facts.record(added)
        return self._facts.forget(keys)

    def mark(self, held: Collection[Key]) -> int:
        """Marks the notes of facts that slow weights hold alone. Returns how many are another than before."""
        return self._facts.mark(held, [one.key for one in self._told() if one.text is not None])

    @contextmanager
    def keeping(self) -> Iterator[list[Change]]:
        """Collects the changes of a block, so that :meth:`take_back` can undo them."""
        self._store.changes, outer = [], self._store.changes
        try:
            yield self._store.changes
        finally:
            self._store.changes = outer

    def take_back(self, changes: Sequence[Change]) -> None:
        """Puts files back to what they were before some changes, all or none.

        Raises:
            NotesError: A file was edited since; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        with self._store.changing("undo") as now:
            for change in reversed(changes):
                for name, after in change.after.items():
                    if now.text(name) != after:
                        raise NotesError(f"expected {name} as it was noted, found it edited since; change it by hand")
                    now.put_text(name, change.before[name])

    def close(self) -> None:
        """Closes the index of look-ups."""
        self._retriever.close()


class _Store(NoteStore):
    """Notes whose changes are collected."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.changes: list[Change] = []

    @contextmanager
    def changing(self, what: str) -> Iterator[Change]:
        with super().changing(what) as change:
            yield change
        if change.after:
            self.changes.append(change)


def _is_news(one: Noted, state: State) -> bool:
    """Whether a note tells what the weights were not taught."""
    if one.fact is None:
        return one.text is not None
    if one.key in state.ledger:
        return state.ledger[one.key].fact.object != one.fact.object
    # Of a settled fact the object is not kept: the note is news if it is another than was taught.
    return one.key not in state.settled or one.taught is None or one.taught.object != one.fact.object


def _whereabouts(one: Noted, state: State) -> str:
    """Where the weights have what a note tells."""
    if one.fact is None:
        return "in words that cannot be taught"
    if _is_news(one, state):
        return NEWS[one.key in state.ledger or one.key in state.settled]
    if one.key not in state.ledger:
        return "settled"
    return f"stage {state.ledger[one.key].stage}"
