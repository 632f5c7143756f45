"""Notes from elsewhere, put into a folder: nothing that is there is changed, nothing comes twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sleepgym.notes.bullet import Bullet, Tier
from sleepgym.notes.document import Document, new_document, parse
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
        heading: A person's own heading in that section, if it was under one.
        title: Title of its file, if that has to be made; by default it is made of the path.
        prose: Lines of the paragraph.
    """

    path: str
    section: Tier
    bullet: Bullet | None = None
    heading: str = ""
    title: str = ""
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
            document = change.document(path) or new_document(group[0].title or title_of(path))
            document, new = _merged(document, group)
            change.put(path, document)
            added, present = added + new, present + len(group) - new
            changed += [path] if new else []
    return Imported(added, present, tuple(changed))


def _merged(document: Document, notes: Sequence[Incoming]) -> tuple[Document, int]:
    """The document with those notes that it does not have, and their number."""
    text = "\n" + document.text.replace("\r\n", "\n") + "\n"
    prose = [note for note in notes if note.prose and "\n" + "\n".join(note.prose) + "\n" not in text]
    paragraphs: dict[tuple[Tier, str], list[str]] = {}
    for note in prose:
        lines = paragraphs.setdefault((note.section, note.heading), [])
        lines += ["", *note.prose] if lines else note.prose
    for (section, heading), lines in paragraphs.items():
        # Read again: a document of others has headings of its own in it.
        document = parse(document.including_prose(tuple(lines), section, heading).text)
    bullets = _missing(document, notes)
    groups: dict[tuple[Tier, str], list[Bullet]] = {}
    for section, heading, one in bullets:
        groups.setdefault((section, heading), []).append(one)
    for (section, heading), group in groups.items():
        document = document.including(section, *group, heading=heading)
    return document, len(prose) + len(bullets)


def _missing(document: Document, notes: Sequence[Incoming]) -> list[tuple[Tier, str, Bullet]]:
    """Bullets that a document does not have, with section and heading.

    Each bullet that is there stands for one that comes: below two others, the same words mean two things.
    """
    there: dict[Words, list[Bullet]] = {}
    for block, one in document.notes():
        there.setdefault(_words(one, block.tier), []).append(one)
    left = [(note.section, note.heading, note.bullet) for note in notes if note.bullet is not None]
    # Those that are just the same first: one with more fields may have to stand for another.
    for is_same in (Bullet.__eq__, _says_all):
        missing = []
        for section, heading, one in left:
            alike = there.get(_words(one, section), [])
            at = next((i for i, other in enumerate(alike) if is_same(other, one)), None)
            if at is None:
                missing.append((section, heading, one))
            else:
                del alike[at]
        left = missing
    return left


def _words(one: Bullet, section: Tier) -> Words:
    return same_words(one.words), one.tier(section), one.status()


def _says_all(there: Bullet, new: Bullet) -> bool:
    """Whether a note that is there says all that one in the same words says, but for when."""
    return all(name in ("tier", "status", "updated_at") or there.get(name) == value for name, value in new.fields)
