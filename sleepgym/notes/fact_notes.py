"""Facts as notes: what a learner is taught stands in a file per subject, where a person can read and edit it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sleepgym.facts.fact import Fact, FactError
from sleepgym.facts.world import Relation
from sleepgym.facts.writing import ends_sentence, joiner_between
from sleepgym.notes.bullet import Bullet, Source, bullet, stamp
from sleepgym.notes.document import Block, Document
from sleepgym.notes.index import Found
from sleepgym.notes.paths import SUFFIX, file_key
from sleepgym.notes.scoring import strength
from sleepgym.notes.store import Change, NoteStore
from sleepgym.notes.taught import Taught, read_taught, taught, taught_files, taught_name, written_taught
from sleepgym.notes.terms import terms
from sleepgym.notes.texts import note_text, same_words

RELATION = "relation"
"""The field that says which fact about the subject a note is. It stays with the line when a person edits the text."""

HELD, BY_WEIGHTS = "held", "weights"
"""The field that says where else than in the note a fact is, and its value for slow weights alone. The note stays
current: what it tells holds, and look-ups find it."""

_STOPS = ".\u3002\u0964\u104b\u0589"  # of Latin, Han, Devanagari, Burmese and Armenian

Key = tuple[str, str]
"""Subject and relation of a fact."""


@dataclass(frozen=True)
class Recorded:
    """What became of facts that were recorded.

    Attributes:
        added: Facts that no note told.
        superseded: Facts whose notes told something else, which is in history now.
        kept: Facts that a note told already.
    """

    added: tuple[Fact, ...]
    superseded: tuple[Fact, ...]
    kept: tuple[Fact, ...]


@dataclass(frozen=True)
class Edit:
    """A fact whose note a person has changed since it was taught.

    Attributes:
        taught: The fact as it was taught.
        text: What the note says now; None: it was deleted, or is no longer current.
        fact: The fact that the note tells now; None where it is told in words that no statement of the fact begins
            with, or not at all.
    """

    taught: Fact
    text: str | None
    fact: Fact | None


@dataclass(frozen=True)
class Noted:
    """A fact in a folder of notes, taught or not.

    Attributes:
        path: The file.
        text: What the note says; None: there was one when the fact was taught, and there is none any more.
        fact: The fact that it tells; None where it is told in words that no statement of the fact begins with.
        taught: The fact as it was taught last; None: this one never was.
    """

    path: str
    text: str | None
    fact: Fact | None
    taught: Fact | None

    @property
    def key(self) -> Key:
        """Subject and relation of the fact, as it was taught or as it is told."""
        fact = self.taught or self.fact
        return fact.key if fact is not None else ("", "")


class FactNotes:
    """The facts in a folder of notes, a file per subject.

    Args:
        store: The notes.
        folder: Where in it the files are.
        source: Who the facts are from.
    """

    def __init__(self, store: NoteStore, folder: str = "facts", source: Source = "user_statement") -> None:
        self._store = store
        self._folder = folder
        self._source = source

    def path(self, subject: str) -> str:
        """The file of a subject.

        Raises:
            NotesError: The subject is empty or no Unicode text.
        """
        return f"{self._folder}/{file_key(subject)}{SUFFIX}"

    def record(self, facts: Sequence[Fact]) -> Recorded:
        """Notes facts that were taught; another object for a subject and relation supersedes the one before.

        A note that tells the fact already is left in its words, whoever chose them. Later facts count over earlier.

        Args:
            facts: What was taught.

        Raises:
            NotesError: A statement is too long for a note, or a file cannot be used; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        now = stamp(self._store.clock())
        added: list[Fact] = []
        superseded: list[Fact] = []
        kept: list[Fact] = []
        with self._store.changing("record") as change:
            for path, group in self._by_path(facts).items():
                document = change.document_or_new(path, group[0].subject)
                told = _taught_of(change, path)
                for fact in group:
                    told_before = _telling(document, fact, told.get(fact.relation))
                    same = next((block for block, one in told_before if _tells(one.words, fact)), None)
                    for block, _ in told_before:
                        if block is not same:
                            document = document.retired(block, status="superseded")
                    if same is None or same.bullet is None:
                        note = self._note(fact, now)
                        document = document.including("long_term", note)
                        (superseded if told_before else added).append(fact)
                    else:
                        note = same.bullet
                        kept.append(fact)
                    told[fact.relation] = taught(fact, note.words)
                change.put(path, document)
                change.put_text(taught_name(path), written_taught(told.values()))
        return Recorded(tuple(added), tuple(superseded), tuple(kept))

    def forget(self, keys: Iterable[Key]) -> int:
        """Deletes the notes of facts, those in history too. Returns how many notes are gone.

        Raises:
            NotesError: A file cannot be used; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        gone = 0
        with self._store.changing("forget") as change:
            for subject, relation in keys:
                path = self.path(subject)
                told = _taught_of(change, path)
                before = told.pop(relation, None)
                change.put_text(taught_name(path), written_taught(told.values()))
                document = change.document(path)
                if document is None:
                    continue
                blocks = [block for block, one in document.notes() if _is_of(one, relation)]
                if not blocks and before is not None:
                    blocks = [block for block, _ in _telling(document, before.fact, before)]
                for block in blocks:
                    document = document.without(block)
                change.put(path, document)
                gone += len(blocks)
        return gone

    def edited(self) -> list[Edit]:
        """Facts whose notes a person has changed since they were recorded last, in the order of the files.

        Record what was taught of them, and forget what was deleted: then they are no longer among these.

        Raises:
            NotesError: A file cannot be used.
            OSError: A file cannot be read.
        """
        edits: list[Edit] = []
        # As a change that changes nothing, so that no other process is half way through recording.
        with self._store.changing("look") as change:
            for path in taught_files(self._store.folder):
                document = change.document(path)
                told = _taught_of(change, path)
                edits += (edit for one in told.values() if (edit := _edit(document, one)) is not None)
        return edits

    def told(self, relations: Collection[Relation] = (), paths: Collection[str] | None = None) -> list[Noted]:
        """The facts that notes tell now, in the order of the files: those that were taught, then what people added.

        What nobody taught is a fact if its line has the words of a known relation and is in the file of its subject, of
        whom nothing of that relation was taught.

        Args:
            relations: Relations whose words are known.
            paths: Files to look at; None: all.

        Raises:
            NotesError: A file cannot be used.
            OSError: A file cannot be read.
        """
        found: list[Noted] = []
        with self._store.changing("look") as change:
            for path in self._paths() if paths is None else sorted(paths):
                document = change.document(path)
                told = _taught_of(change, path)
                found += (_noted(path, document, one) for one in told.values())
                subject = "" if document is None else document.title
                if document is None or not subject or path != self.path(subject):
                    continue
                left = [relation for relation in relations if relation.name not in told]
                for fact, text in _added(document, subject, left):
                    found.append(Noted(path, text, fact, None))
        return found

    def about(self, question: str, notes: Iterable[Found]) -> list[Found]:
        """Those notes of a look-up that are of a subject that the question names with all its words, or of no subject.

        What is noted of others misleads a model more than no note at all.

        Args:
            question: What is asked.
            notes: What was found for it.

        Raises:
            NotesError: A file cannot be used.
            OSError: A file cannot be read.
        """
        asked = set(terms(question))
        return [note for note in notes if asked.issuperset(terms(self._subject(note.path)))]

    def _subject(self, path: str) -> str:
        """The subject of a file; empty if it has none."""
        return self._store.read(path).title if path.startswith(f"{self._folder}/") else ""

    def mark(self, held: Collection[Key], among: Iterable[Key]) -> int:
        """Marks notes of facts that slow weights hold alone, takes the mark from others, and returns how many changed.

        A marked note stays where it is, and current: a person still reads it, and so do look-ups.

        Args:
            held: Those facts.
            among: Facts whose notes are looked at.

        Raises:
            NotesError: A file cannot be used; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        changed = 0
        with self._store.changing("mark") as change:
            for subject, relation in among:
                path = self.path(subject)
                document = change.document(path)
                told = _taught_of(change, path).get(relation)
                if document is None or told is None:
                    continue
                value = BY_WEIGHTS if (subject, relation) in held else None
                for block, one in _telling(document, told.fact, told)[:1]:
                    if one.get(HELD) != value:
                        change.put(path, document.changed(block, one.having(**{HELD: value})))
                        changed += 1
        return changed

    def _paths(self) -> list[str]:
        """Files of facts: those of which something was taught, and what else is in the folder."""
        inside = (path for path in self._store.files() if path.startswith(f"{self._folder}/"))
        return sorted({*taught_files(self._store.folder), *inside})

    def _by_path(self, facts: Iterable[Fact]) -> dict[str, list[Fact]]:
        latest = {fact.key: fact for fact in facts}
        groups: dict[str, list[Fact]] = {}
        for fact in latest.values():
            groups.setdefault(self.path(fact.subject), []).append(fact)
        return groups

    def _note(self, fact: Fact, now: str) -> Bullet:
        relation = same_words(fact.relation)
        return bullet(
            note_text(same_words(fact.statement), "the statement of a fact"), topic=relation, tier="long_term",
            status="active", source=self._source, confidence="high", updated_at=now, relation=relation,
        )  # fmt: skip


def _taught_of(change: Change, path: str) -> dict[str, Taught]:
    """What was taught of the notes of a file, by relation."""
    name = taught_name(path)
    return read_taught(change.text(name), name)


def _is_of(one: Bullet, relation: str) -> bool:
    return one.get(RELATION) == same_words(relation)


def _telling(document: Document, fact: Fact, told: Taught | None) -> list[tuple[Block, Bullet]]:
    """The current notes that tell a fact's subject and relation, the strongest first.

    Where none says that it does, those count that begin as a statement of the fact does: somebody may have written the
    line anew, without its fields.
    """
    current = list(document.current())
    found = [(block, one) for block, one in current if _is_of(one, fact.relation)]
    if not found:
        bare = [(block, one) for block, one in current if one.get(RELATION) is None]
        found = [
            (block, one)
            for block, one in bare
            if (_tells(one.words, fact) if told is None else _restated(told.fact, one.words) is not None)
        ]
    return sorted(found, key=lambda pair: strength(pair[1]), reverse=True)


def _edit(document: Document | None, told: Taught) -> Edit | None:
    """What a person has done to a fact's note; None: nothing that changes what it tells."""
    fact = told.fact
    telling = [] if document is None else _telling(document, fact, told)
    if not telling:
        return Edit(fact, None, None)
    text = telling[0][1].words
    if same_words(text) == same_words(told.text):
        return None
    new = _restated(fact, text)
    return None if new is not None and new.object == fact.object else Edit(fact, text, new)


def _noted(path: str, document: Document | None, told: Taught) -> Noted:
    """A taught fact as its note tells it now."""
    edit = _edit(document, told)
    if edit is None:
        telling = [] if document is None else _telling(document, told.fact, told)
        return Noted(path, telling[0][1].words, told.fact, told.fact)
    return Noted(path, edit.text, edit.fact, told.fact)


def _added(document: Document, subject: str, relations: Iterable[Relation]) -> Iterator[tuple[Fact, str]]:
    """Facts that a document tells of its subject in the words of relations, one of each, and their notes' texts."""
    current = sorted(document.current(), key=lambda pair: strength(pair[1]), reverse=True)
    for relation in relations:
        wanted = (None, relation.name)
        found = (
            (fact, one.words)
            for _, one in current
            if one.get(RELATION) in wanted and (fact := _worded(relation, subject, one.words)) is not None
        )
        yield from itertools.islice(found, 1)


def _worded(relation: Relation, subject: str, text: str) -> Fact | None:
    """The fact that a text tells in the words of a relation, in that phrasing; None if it does not."""
    for phrasing in sorted(range(len(relation.statements)), key=lambda i: len(relation.statements[i]), reverse=True):
        found = _restated(replace(relation.fact(subject, "something", phrasing), paraphrases=()), text)
        if found is not None:
            return relation.fact(subject, found.object, phrasing)
    return None


def _tells(text: str, fact: Fact) -> bool:
    """Whether a text tells just what a fact does, in one of its statements."""
    new = _restated(fact, text)
    return same_words(text) == same_words(fact.statement) or (new is not None and new.object == fact.object)


def _restated(fact: Fact, text: str) -> Fact | None:
    """The fact with the object that a text gives it; None if the text begins as none of its statements does."""
    words = same_words(text)
    for prompt in sorted(_prompts(fact), key=len, reverse=True):
        rest = words[len(prompt) :]
        if not words.startswith(prompt) or rest != joiner_between(prompt, rest.lstrip()) + rest.lstrip():
            continue
        try:
            return replace(fact, object=_without_stop(rest.strip()))
        except FactError:
            return None
    return None


def _prompts(fact: Fact) -> Iterator[str]:
    return (same_words(prompt) for prompt in (fact.prompt, *fact.paraphrases))


def _without_stop(text: str) -> str:
    """The text without the full stop that ends a sentence; that of an abbreviation such as ``D.C.`` stays."""
    last = text.split()[-1] if text.split() else ""
    return text[:-1].rstrip() if ends_sentence(text) and text[-1] in _STOPS and "." not in last[:-1] else text
