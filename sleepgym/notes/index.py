"""An index of a folder's notes for look-ups, in SQLite. It is made of the files and never the truth.

Before every look-up, files whose size, date or inode is another than when they were read are read again. The index is
kept among the user's cached files; if it is damaged or cannot be written, it is built anew or held in memory.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sleepgym import files
from sleepgym.notes.bullet import Bullet, stamp
from sleepgym.notes.document import Block
from sleepgym.notes.folder import look, note_files
from sleepgym.notes.scoring import standing
from sleepgym.notes.terms import terms

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]

Column = Literal["text", "topic", "title"]
"""Where a term may be: in a note's text, its topic, or the title of its file."""
COLUMNS: tuple[Column, ...] = get_args(Column)

_VERSION = 1
_LOT = 500  # ids in one statement
_TABLES = f"""
CREATE TABLE files (path TEXT PRIMARY KEY, signature TEXT NOT NULL);
CREATE TABLE notes (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL, line INTEGER NOT NULL, said TEXT NOT NULL, tier TEXT NOT NULL,
    points REAL NOT NULL, expired_points REAL NOT NULL, expires TEXT, holds INTEGER NOT NULL,
    text TEXT NOT NULL, topic TEXT NOT NULL, title TEXT NOT NULL
);
CREATE INDEX notes_places ON notes (path, line);
CREATE INDEX notes_kinds ON notes (points, expired_points, expires, holds);
CREATE VIRTUAL TABLE terms USING fts5 (
    text, topic, title, content='notes', content_rowid='id', detail='column', columnsize=0,
    tokenize="ascii tokenchars '+#'"
);
CREATE VIRTUAL TABLE frequencies USING fts5vocab ('terms', 'row');
PRAGMA user_version = {_VERSION};
"""
# A file may be written twice within one tick of its clock; until this long after, its date proves nothing.
_TICK_NS = 50_000_000


@dataclass(frozen=True)
class Found:
    """A note that has terms of a query.

    Attributes:
        points: Its score.
        path: Its file.
        line: Where in it, counted from 1.
        said: Its text.
        holds: Whether it is current.
    """

    points: float
    path: str
    line: int
    said: str
    holds: bool


class _Kind(NamedTuple):
    """What decides how many points a note has whatever is asked; names as in the table."""

    points: float
    expired_points: float
    expires: str | None
    holds: int


class Index:
    """The notes of a folder by their terms.

    Args:
        root: The folder.
        place: File of the index; by default one among the user's cached files.
    """

    def __init__(self, root: Path, place: Path | None = None) -> None:
        self._root = root
        self._place = place
        self._database = self._opened()
        self._known: tuple[tuple[int, int], tuple[int, list[tuple[_Kind, Ids]]]] | None = None

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def refresh(self) -> None:
        """Reads again what has changed in the folder.

        Raises:
            OSError: The folder cannot be listed.
        """
        try:
            self._refresh()
        except sqlite3.DatabaseError:  # damaged, or held by another process for too long: built anew, in memory
            self.close()
            self._database, self._known = _made(":memory:"), None
            self._refresh()

    def count(self) -> int:
        """The number of notes."""
        (number,) = self._database.execute("SELECT count(*) FROM notes").fetchone()
        return int(number)

    def frequency(self, term: str) -> int:
        """The number of notes that have a term."""
        found = self._database.execute("SELECT doc FROM frequencies WHERE term = ?", (term,)).fetchone()
        return 0 if found is None else int(found[0])

    def standings(self, now: str, history: bool) -> Floats:
        """Points of all notes whatever is asked, by id; minus infinity where there is no note to be found.

        Args:
            now: The time at which notes may have expired, as fields say it.
            history: Whether those are to be found too that are no longer current.
        """
        last, kinds = self._kinds()
        out = np.full(last + 1, -np.inf)
        for kind, notes in kinds:
            expired = kind.expires is not None and kind.expires < now
            if history or (kind.holds and not expired):
                out[notes] = kind.expired_points if expired else kind.points
        return out

    def _kinds(self) -> tuple[int, list[tuple[_Kind, Ids]]]:
        """The last id, and the notes of every kind; read once per state of the database."""
        (others,) = self._database.execute("PRAGMA data_version").fetchone()
        version = (int(others), self._database.total_changes)
        if self._known is None or self._known[0] != version:
            (last,) = self._database.execute("SELECT coalesce(max(id), 0) FROM notes").fetchone()
            # Few notes differ in these: a row for each kind, in the order of an index that has all of it.
            rows = self._database.execute(
                "SELECT points, expired_points, expires, holds, group_concat(id) FROM notes "
                "GROUP BY points, expired_points, expires, holds"
            )
            self._known = version, (int(last), [(_Kind(*kind), _ids(notes)) for *kind, notes in rows])
        return self._known[1]

    def matching(self, term: str, column: Column) -> Ids:
        """Ids of the notes that have a term in a column."""
        # Joined in SQLite: a row for each would take four times as long.
        (joined,) = self._database.execute(
            "SELECT group_concat(rowid) FROM terms WHERE terms MATCH ?", (f'{column} : "{term}"',)
        ).fetchone()
        return _ids(joined)

    def said(self, notes: Sequence[int]) -> dict[int, dict[Column, frozenset[str]]]:
        """Terms of notes by column, by id."""
        columns = ", ".join(COLUMNS)
        return {
            note: {column: frozenset(joined.split()) for column, joined in zip(COLUMNS, parts, strict=True)}
            for some in _lots(notes)
            for note, *parts in self._database.execute(
                f"SELECT id, {columns} FROM notes WHERE id IN ({_marks(some)})", some
            )
        }

    def ordered(self, notes: Sequence[int]) -> list[int]:
        """Notes in the order of their files and lines, by id."""
        if len(notes) <= _LOT:
            found = self._database.execute(
                f"SELECT id FROM notes WHERE id IN ({_marks(notes)}) ORDER BY path, line", notes
            )
            return [note for (note,) in found]
        (everything,) = self._database.execute(
            "SELECT group_concat(id) FROM (SELECT id FROM notes ORDER BY path, line)"
        ).fetchone()
        inside = _ids(everything)
        out: list[int] = inside[np.isin(inside, notes)].tolist()
        return out

    def found(self, note: int, points: float, now: str) -> Found:
        """A note by its id."""
        path, line, said, holds, expires = self._database.execute(
            "SELECT path, line, said, holds, expires FROM notes WHERE id = ?", (note,)
        ).fetchone()
        return Found(points, path, line, said, bool(holds) and (expires is None or expires >= now))

    def _refresh(self) -> None:
        there = note_files(self._root)
        known = dict(self._database.execute("SELECT path, signature FROM files"))
        signatures = {path: _signature(found) for path, found in there.items()}
        stale = [path for path, signature in signatures.items() if known.get(path) != signature]
        gone = [path for path in known if path not in there]
        if not stale and not gone:
            return
        if self._sparse():
            stale, gone = list(there), [*known]
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            for path in dict.fromkeys((*gone, *stale)):
                self._forget(path)
            for path in stale:
                now = time.time_ns()
                self._learn(path)
                # A file that was written just now, or is being written, is read again next time.
                settled = max(there[path].st_mtime_ns, there[path].st_ctime_ns) < now - _TICK_NS
                row = (path, signatures[path] if settled else "")
                self._database.execute("INSERT INTO files VALUES (?, ?)", row)

    def _sparse(self) -> bool:
        """Whether most ids belong to no note any more; arrays that are as long as the last id would grow and grow."""
        notes, last = self._database.execute("SELECT count(*), coalesce(max(id), 0) FROM notes").fetchone()
        return bool(last > 10_000 + 4 * notes)

    def _forget(self, path: str) -> None:
        self._database.execute(
            "INSERT INTO terms (terms, rowid, text, topic, title) "
            "SELECT 'delete', id, text, topic, title FROM notes WHERE path = ?",
            (path,),
        )
        self._database.execute("DELETE FROM notes WHERE path = ?", (path,))
        self._database.execute("DELETE FROM files WHERE path = ?", (path,))

    def _learn(self, path: str) -> None:
        document = look(self._root, path)
        if document is None:
            return
        title = " ".join(terms(document.title))
        for line, block in document.numbered():
            note = _note_of(block)
            if note is not None:
                self._add(path, line, block, note, title)

    def _add(self, path: str, line: int, block: Block, note: Bullet, title: str) -> None:
        end = note.expires
        expired = note.having(status="expired")
        row = (
            path, line, note.words, block.tier, standing(note, block.tier), standing(expired, block.tier),
            None if end is None else stamp(end), note.holds(block.tier),
            " ".join(terms(note.words)), " ".join(terms(note.topic)), title,
        )  # fmt: skip
        cursor = self._database.execute(
            "INSERT INTO notes (path, line, said, tier, points, expired_points, expires, holds, text, topic, title) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        self._database.execute(
            "INSERT INTO terms (rowid, text, topic, title) VALUES (?, ?, ?, ?)", (cursor.lastrowid, *row[-3:])
        )

    def _opened(self) -> sqlite3.Connection:
        place = self._place
        if place is None:
            with suppress(OSError):
                name = hashlib.sha256(os.fsencode(self._root)).hexdigest()[:32]
                place = files.cache_dir("notes") / f"{name}.sqlite"
        if place is None:
            return _made(":memory:")
        for _ in range(2):
            try:
                return _made(str(place))
            except sqlite3.DatabaseError:  # of another version, damaged, or not to be written
                # The log too: it would be played into the new file.
                for end in ("", "-wal", "-shm"):
                    with suppress(OSError):
                        place.with_name(place.name + end).unlink(missing_ok=True)
        return _made(":memory:")


def _made(place: str) -> sqlite3.Connection:
    """The index in a file, with its tables.

    Raises:
        sqlite3.DatabaseError: It is none, is one of another version, or cannot be written.
    """
    database = sqlite3.connect(place, timeout=10.0, isolation_level=None)
    try:
        # It can be made again: nothing has to outlast a power cut. What is forgotten is overwritten.
        database.executescript("PRAGMA synchronous = OFF; PRAGMA secure_delete = ON; PRAGMA journal_mode = WAL;")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.execute("BEGIN EXCLUSIVE")
            (version,) = database.execute("PRAGMA user_version").fetchone()  # another process may have been faster
            if version == 0:
                for statement in _TABLES.split(";\n"):
                    database.execute(statement)
            database.execute("COMMIT")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"version {version}")
    except BaseException:
        database.close()
        raise
    return database


def _note_of(block: Block) -> Bullet | None:
    """What a block says: its bullet, or the prose or code that a person wrote; None if nothing."""
    if block.bullet is not None or not block.prose:
        return block.bullet
    return Bullet(" ".join(line.strip() for line in block.lines))


def _signature(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}-{found.st_ino}"


def _ids(joined: str | None) -> Ids:
    """Ids that SQLite has joined by commas; None: none."""
    return np.fromstring(joined or "", dtype=np.int64, sep=",")


def _lots(items: Sequence[int]) -> Iterator[Sequence[int]]:
    """Parts of a list that fit into one statement."""
    return (items[i : i + _LOT] for i in range(0, len(items), _LOT))


def _marks(items: Sequence[int]) -> str:
    return ",".join("?" * len(items))
