"""A folder of notes: its files are the memory, and a person may edit them at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sleepgym.notes import journal
from sleepgym.notes.document import Document, new_document, parse
from sleepgym.notes.errors import NotesError
from sleepgym.notes.folder import note_files
from sleepgym.notes.lock import locked
from sleepgym.notes.paths import PRIVATE, checked, within
from sleepgym.notes.reading import MAX_FILE_BYTES, read_text
from sleepgym.notes.tree import write_tree

Clock = Callable[[], datetime]


class NoteStore:
    """A folder of Markdown notes, written by one process at a time and read by any number.

    Args:
        folder: Where; made when something is first written.
        clock: Says what time it is, in local time without a zone.
        wait_seconds: How long a change waits for another process that is writing.
    """

    def __init__(self, folder: Path | str, *, clock: Clock = datetime.now, wait_seconds: float = 30.0) -> None:
        self.folder = Path(folder).resolve()
        self.clock = clock
        self.wait_seconds = wait_seconds

    def files(self) -> list[str]:
        """Paths of all files of notes, in order.

        Raises:
            OSError: A folder cannot be listed.
        """
        return list(note_files(self.folder))

    def read(self, path: str) -> Document:
        """The notes of a file.

        Raises:
            NotesError: There is no such file, it is a link, too large or no text.
            OSError: It cannot be read.
        """
        text = read_text(within(self.folder, checked(path)), MAX_FILE_BYTES)
        if text is None:
            raise NotesError(f"expected a file {path!r} in {self.folder}, found none; `ls` lists those there are")
        return parse(text)

    @contextmanager
    def changing(self, what: str) -> Iterator[Change]:
        """Changes files: what the block puts into the change is written when it ends, all or nothing.

        Args:
            what: What is done, for who takes it back.

        Raises:
            NotesError: Another process keeps writing, or a file was edited meanwhile; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        with self._alone():
            change = Change(self.folder)
            yield change
            if change.names():
                journal.commit(self.folder, what, change.before, change.after)

    def undo(self) -> str:
        """Takes the last change back, exactly; to undo again does it once more. Returns what is taken back.

        Raises:
            NotesError: There is none, or a file was edited since; nothing is changed.
            OSError: A file cannot be read or written; nothing is changed.
        """
        with self._alone():
            return journal.undo(self.folder)

    def write_tree(self) -> str:
        """Generates the list of all files anew, and returns it.

        Raises:
            NotesError: Another process keeps writing.
            OSError: It cannot be written.
        """
        with self._alone():
            return write_tree(self.folder)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        private = within(self.folder, f"{PRIVATE}/lock").parent
        private.mkdir(parents=True, exist_ok=True)
        with locked(private / "lock", self.wait_seconds):
            journal.recover(self.folder)
            yield


class Change:
    """Files as a change leaves them; see :meth:`NoteStore.changing`.

    Attributes:
        before: Texts of all files that were looked at, by name.
        after: What they are to be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.before: dict[str, str | None] = {}
        self.after: dict[str, str | None] = {}

    def document(self, path: str) -> Document | None:
        """The notes of a file, with what the change has done to them; None if there is no such file.

        Raises:
            NotesError: The path leads elsewhere, or the file is no text or too large.
            OSError: It cannot be read.
        """
        text = self.text(checked(path))
        return None if text is None else parse(text)

    def document_or_new(self, path: str, title: str) -> Document:
        """As :meth:`document`; an empty one with a title if there is no such file."""
        return self.document(path) or new_document(title)

    def put(self, path: str, document: Document) -> None:
        """Sets what a file is to hold; one that nothing is remembered in is deleted."""
        self.text(checked(path))
        self.after[path] = None if document.bare else document.text

    def text(self, name: str) -> str | None:
        """Text of a file; None if there is none."""
        if name not in self.after:
            self.before[name] = self.after[name] = read_text(within(self._folder, name), MAX_FILE_BYTES)
        return self.after[name]

    def put_text(self, name: str, text: str | None) -> None:
        """Sets the text of a file that is no note; None deletes it."""
        self.text(name)
        self.after[name] = text

    def names(self) -> list[str]:
        """Files that are another than before; the others are dropped from the change."""
        for name in [name for name, text in self.before.items() if self.after[name] == text]:
            del self.before[name], self.after[name]
        return list(self.after)
