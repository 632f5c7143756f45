"""What can be done to a folder of notes by hand; each returns what it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sleepgym.notes.bullet import Bullet, Confidence, Source, Tier, bullet, moment, stamp
from sleepgym.notes.document import Block, Document
from sleepgym.notes.errors import NotesError
from sleepgym.notes.paths import title_of
from sleepgym.notes.scoring import strength
from sleepgym.notes.store import Change, NoteStore
from sleepgym.notes.texts import note_text, same_words

_RANKS = ("tier", "status", "source", "confidence", "updated_at")  # fields that say how strong a note is
_LISTED = 5  # notes that a message names


@dataclass(frozen=True)
class Touched:
    """A note that was added, changed, moved or deleted.

    Attributes:
        path: Its file.
        text: What it says, or said.
        done: What became of it, such as ``"added"``.
    """

    path: str
    text: str
    done: str


def add(
    store: NoteStore,
    text: str,
    path: str = "personal/about.md",
    *,
    topic: str | None = None,
    tier: Tier = "long_term",
    source: Source = "user_statement",
    confidence: Confidence = "high",
    expires_at: str | None = None,
    review_at: str | None = None,
) -> Touched:
    """Adds a note; what a file says already in the same words is only dated anew.

    Args:
        store: The notes.
        text: What is to be remembered, in one line.
        path: File, made if needed.
        topic: What it is about.
        tier: Where it belongs.
        source: Who says so.
        confidence: How sure that is.
        expires_at: Until when it holds, such as ``2026-03-31`` or ``2026-03-31T18:00``.
        review_at: When to look at it again, in the same form.

    Raises:
        NotesError: The text, the path or a date cannot be written; nothing is changed.
        OSError: The file cannot be read or written; nothing is changed.
    """
    for name, date in (("expires_at", expires_at), ("review_at", review_at)):
        if date is not None and moment(date) is None:
            raise NotesError(f"expected a date such as 2026-03-31 or 2026-03-31T18:00 as {name}, found {date!r}")
    note = bullet(
        text, topic=topic, tier=tier, status="active", source=source, confidence=confidence,
        updated_at=stamp(store.clock()), review_at=review_at, expires_at=expires_at,
    )  # fmt: skip
    with store.changing("add") as change:
        document = change.document_or_new(path, title_of(path))
        same = next((block for block, one in _alone(document) if _same(one, note.text)), None)
        if same is None or same.bullet is None:
            change.put(path, document.including(tier, note))
            return Touched(path, note.text, "added")
        dated = {"updated_at": note.get("updated_at"), "expires_at": expires_at, "review_at": review_at, "topic": topic}
        given = {name: value for name, value in dated.items() if value is not None}
        change.put(path, document.changed(same, same.bullet.having(**given)))
        return Touched(path, note.text, "dated anew")


def update(store: NoteStore, old: str, new: str, path: str | None = None) -> Touched:
    """Says something else in a note's place; the old one stays, in history.

    Args:
        store: The notes.
        old: Text of a current note, or a part that no other one has.
        new: What is to be remembered instead; topic, tier and all other fields are those of the old one.
        path: Its file; None: any.

    Raises:
        NotesError: No note or several match, or the new text cannot be written; nothing is changed.
        OSError: A file cannot be read or written; nothing is changed.
    """
    text, now = note_text(new), stamp(store.clock())
    with store.changing("update") as change:
        path, document, block, one = _only(store, change, old, path)
        if _same(one, text):
            return Touched(path, text, "left")
        if any(_same(other, text) for _, other in document.current()):
            document = document.retired(block, status="superseded")
        else:
            # In its place, where a person may have put it under a heading or into a list.
            document = document.changed(block, replace(one, text=text, more=()).having(status="active", updated_at=now))
            old_one = Bullet(one.words, one.having(tier="history", status="superseded").fields)
            document = document.including("history", old_one)
        change.put(path, document)
        return Touched(path, text, "updated")


def delete(store: NoteStore, text: str, path: str | None = None) -> list[Touched]:
    """Deletes a note, and what history has in the same words.

    Args:
        store: The notes.
        text: Its text, or a part that no other one has.
        path: Its file; None: any.

    Raises:
        NotesError: No note or several match; nothing is changed.
        OSError: A file cannot be read or written; nothing is changed.
    """
    with store.changing("delete") as change:
        path, document, _, one = _only(store, change, text, path, history=True)
        gone = [block for block, other in document.notes() if _same(other, one.words)]
        for block in gone:
            document = document.without(block)
        change.put(path, document)
        return [Touched(path, one.words, "deleted") for _ in gone]


def prune(store: NoteStore) -> list[Touched]:
    """Puts what has expired into history; it deletes nothing, and leaves all others as they are.

    Raises:
        NotesError: A file is no text or too large; nothing is changed.
        OSError: A file cannot be read or written; nothing is changed.
    """
    now, done = store.clock(), []
    with store.changing("prune") as change:
        for path, document in _documents(store, change):
            for block, one in list(document.notes()):
                if one.holds(block.tier) and one.status(now) == "expired":
                    document = document.retired(block, status="expired")
                    done.append(Touched(path, one.words, "expired"))
            change.put(path, document)
    return done


def compact(store: NoteStore) -> list[Touched]:
    """Makes one note of those that say the same in the same words, and puts what no longer holds into history.

    Nested notes stay as they are, and so do those in the same words under different headings: they mean two things.

    Of two that say the same, the stronger one stays, with the fields that only the other has. Where a field that the
    format does not know has two values, both notes stay. No other note is changed.

    Raises:
        NotesError: A file is no text or too large; nothing is changed.
        OSError: A file cannot be read or written; nothing is changed.
    """
    done = []
    with store.changing("compact") as change:
        for path, document in _documents(store, change):
            for block, one in list(document.notes()):
                if block.tier != "history" and not one.holds(block.tier):
                    moved = document.retired(block)
                    done += [Touched(path, one.words, "moved")] if moved.text != document.text else []
                    document = moved
            document, merged = _merged(document)
            done += [Touched(path, text, "merged") for text in merged]
            change.put(path, document)
    return done


def _merged(document: Document) -> tuple[Document, list[str]]:
    """The document without current notes that say what a stronger one says, and the texts of those."""
    kept: dict[tuple[str, ...], list[Block]] = {}
    merged = []
    for block, one in sorted(_alone(document), key=lambda pair: strength(pair[1]), reverse=True):
        key = (same_words(one.words), one.topic, one.tier(block.tier), one.status(), block.heading)
        same = next((other for other in kept.get(key, []) if _agree(other.bullet, one)), None)
        if same is None or same.bullet is None:
            kept.setdefault(key, []).append(block)
            continue
        extra = {name: value for name, value in one.fields if name not in _RANKS and same.bullet.get(name) is None}
        if extra:
            at = document.blocks.index(same)
            document = document.changed(same, same.bullet.having(**extra))
            kept[key] = [document.blocks[at] if other is same else other for other in kept[key]]
        document = document.without(block)
        merged.append(one.words)
    return document, merged


def _agree(one: Bullet | None, other: Bullet) -> bool:
    """Whether one of two notes in the same words can go: they hold equally long, and what else differs ranks them."""
    return (
        one is not None
        and one.expires == other.expires
        and all(name in _RANKS or one.get(name) in (None, value) for name, value in other.fields)
    )


def _alone(document: Document) -> Iterator[tuple[Block, Bullet]]:
    """Current notes that mean the same wherever they stand."""
    return ((block, one) for block, one in document.alone() if one.holds(block.tier))


def _documents(store: NoteStore, change: Change) -> Iterator[tuple[str, Document]]:
    for path in store.files():
        document = change.document(path)
        if document is not None and not document.bare:
            yield path, document


def _only(
    store: NoteStore, change: Change, text: str, path: str | None, history: bool = False
) -> tuple[str, Document, Block, Bullet]:
    """The note that a text means: the one that says exactly that, or the only one that has it in it.

    Raises:
        NotesError: There is none, or several.
    """
    wanted = same_words(note_text(text))
    paths = store.files() if path is None else [path]
    found = []
    for name in paths:
        document = change.document(name)
        if document is None:
            continue
        notes = [(name, document, block, one) for block, one in document.notes()]
        found += [note for note in notes if history or note[3].holds(note[2].tier)]
    where = store.folder if path is None else path
    exact = [note for note in found if same_words(note[3].words) == wanted]
    parts = exact or [note for note in found if wanted.casefold() in same_words(note[3].words).casefold()]
    # In one file, the same words several times mean the same note.
    different = {(name, same_words(one.words)): (name, document, block, one) for name, document, block, one in parts}
    if not different:
        raise NotesError(f"expected a note that says {text!r} in {where}, found none; `retrieve` looks for words")
    if len(different) > 1:
        listed = "; ".join(f"{name}: {one.words}" for name, _, _, one in list(different.values())[:_LISTED])
        raise NotesError(
            f"expected one note that says {text!r}, found {len(different)} ({listed}); give its whole text, or its file"
        )
    return next(iter(different.values()))


def _same(one: Bullet, text: str) -> bool:
    return same_words(one.words) == same_words(text)
