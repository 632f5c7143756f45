"""Notes from elsewhere, put into a folder: nothing that is there is changed, nothing comes twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sleepgym.notes.bullet import Bullet, Tier
from sleepgym.notes.document import Document, new_document
from sleepgym.notes.paths import title_of
from sleepgym.notes.store import NoteStore
from sleepgym.notes.texts import same_words

Words = tuple[str, str, str]


@dataclass(frozen=True)
class Incoming:
    """A note that is to be put into a folder, or a paragraph.

    Attributes:
        path: Its file.
        section: The tier whose section it goes into.
        bullet: The note; None: it is a paragraph.
        prose: Lines of the paragraph.
    """

    path: str
    section: Tier
    bullet: Bullet | None = None
    prose: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What became of notes from elsewhere.

    Attributes:
        added: How many are new.
        present: How many were there already, with all that they say.
        files: The files that have changed.
    """

    added: int
    present: int
    files: tuple[str, ...]


def merge(store: NoteStore, notes: Iterable[Incoming]) -> Imported:
    """Puts notes into their files, all or none; those that are there already stay as they are.

    Args:
        store: Where to.
        notes: What.

    Raises:
        NotesError: A path leads out of the folder, or a file cannot be used; nothing is changed.
        OSError: A file cannot be read or written; nothing is changed.
    """
    by_path: dict[str, list[Incoming]] = {}
    for note in notes:
        by_path.setdefault(note.path, []).append(note)
    added = present = 0
    changed = []
    with store.changing("import") as change:
        for path, group in by_path.items():
            document = change.document(path) or new_document(title_of(path))
            document, new = _merged(document, group)
            change.put(path, document)
            added, present = added + new, present + len(group) - new
            changed += [path] if new else []
    return Imported(added, present, tuple(changed))


def _merged(document: Document, notes: Sequence[Incoming]) -> tuple[Document, int]:
    """The document with those notes that it does not have, and their number."""
    known: dict[Words, list[Bullet]] = {}
    for block, one in document.notes():
        known.setdefault(_words(one, block.tier), []).append(one)
    text = "\n" + document.text.replace("\r\n", "\n") + "\n"
    new: dict[Tier, list[Bullet]] = {}
    added = 0
    for note in notes:
        if note.bullet is None:
            if "\n" + "\n".join(note.prose) + "\n" not in text:
                document, added = document.with_prose(note.prose), added + 1
            continue
        alike = known.setdefault(_words(note.bullet, note.section), [])
        if not any(_says_all(one, note.bullet) for one in alike):
            alike.append(note.bullet)
            new.setdefault(note.section, []).append(note.bullet)
    for section, bullets in new.items():
        document = document.including(section, *bullets)
        added += len(bullets)
    return document, added


def _words(one: Bullet, section: Tier) -> Words:
    return same_words(one.words), one.tier(section), one.status()


def _says_all(there: Bullet, new: Bullet) -> bool:
    """Whether a note that is there says all that one in the same words says, but for when."""
    return all(name in ("tier", "status", "updated_at") or there.get(name) == value for name, value in new.fields)
