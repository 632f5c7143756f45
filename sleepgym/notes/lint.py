"""What is odd about a folder of notes; to look for it changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from sleepgym.notes.bullet import CONFIDENCES, SOURCES, STATUSES, TIERS, Bullet, moment
from sleepgym.notes.document import Block, Document
from sleepgym.notes.errors import NotesError
from sleepgym.notes.fact_notes import RELATION
from sleepgym.notes.paths import SUFFIX, TREE
from sleepgym.notes.store import NoteStore
from sleepgym.notes.texts import same_words

_WORDS = {"tier": TIERS, "status": STATUSES, "source": SOURCES, "confidence": CONFIDENCES}
_DATES = ("updated_at", "review_at", "expires_at")


@dataclass(frozen=True)
class Oddity:
    """Something that a person should look at.

    Attributes:
        path: Its file.
        line: Where in it, counted from 1; 0: the file as a whole.
        what: What was expected, what was found and what to do.
    """

    path: str
    line: int
    what: str


def lint(store: NoteStore) -> list[Oddity]:
    """Everything that is odd, in the order of files and lines.

    Raises:
        OSError: The folder cannot be listed.
    """
    paths = store.files()
    out = [Oddity(path, 0, what) for path, what in _unread(store, frozenset(paths))]
    for path in paths:
        try:
            document = store.read(path)
        except (NotesError, OSError) as error:
            out.append(Oddity(path, 0, str(error)))
            continue
        out += (Oddity(path, line, what) for line, what in sorted(_of_document(document, store)))
    return out


def _unread(store: NoteStore, paths: frozenset[str]) -> Iterator[tuple[str, str]]:
    """What looks like a file of notes and is not read, and why."""
    for folder, folders, names in os.walk(store.folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted((*folders, *names)):
            place = os.path.join(folder, name)
            path = os.path.relpath(place, store.folder).replace(os.sep, "/")
            if os.path.islink(place) and (name.endswith(SUFFIX) or os.path.isdir(place)):
                yield path, "expected a file or a folder, found a link, which is not read; put the file itself there"
            elif name in names and name.endswith(SUFFIX) and path not in paths and name != TREE and name[0] != ".":
                yield ascii(path)[1:-1], "expected a file with a name that can be given, found this one; rename it"


def _of_document(document: Document, store: NoteStore) -> Iterator[tuple[int, str]]:
    said: dict[tuple[str, str], int] = {}
    facts: dict[str, int] = {}
    for line, block in document.numbered():
        one = block.bullet
        if one is not None:
            yield from ((line, what) for what in _of_bullet(block, one, store))
            if one.holds(block.tier):
                first = said.setdefault((same_words(one.words), one.topic), line)
                if first != line:
                    yield (
                        line,
                        f"expected each note once, found it in line {first} too; `compact` makes one of both",
                    )
                relation = one.get(RELATION)
                if relation is not None and (first := facts.setdefault(relation, line)) != line:
                    yield line, f"expected one current note of {relation!r}, found that of line {first} too; delete one"


def _of_bullet(block: Block, one: Bullet, store: NoteStore) -> Iterator[str]:
    if not one.words:
        yield "expected a text, found none; delete the line"
    for name, words in _WORDS.items():
        value = one.get(name)
        if value is not None and value not in words:
            yield f"expected {name} to be one of {', '.join(words)}, found {value!r}, which is kept but not understood"
    for name in _DATES:
        value = one.get(name)
        if value is not None and moment(value) is None:
            yield f"expected a date such as 2026-03-31 as {name}, found {value!r}; correct it"
    now = store.clock()
    if one.holds(block.tier) and one.status(now) == "expired":
        yield "expected a note that still holds, found one that has expired; `prune` puts it into history"
    if one.holds(block.tier, now) and (due := moment(one.get("review_at"))) is not None and due < now:
        yield f"expected a review since {one.get('review_at')}, found none; date it anew or delete it"
    if not one.holds(block.tier) and block.tier != "history":
        yield "expected what no longer holds under History, found it above; `compact` moves it"
