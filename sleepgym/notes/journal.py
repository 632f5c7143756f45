"""Changes of several files that happen as a whole or not at all, and can be taken back.

A change is first put down in ``pending.json``: what every file held before, and the hash of what it will hold. Then
the files are replaced, each by a rename, the tree is brought up to date, and the journal becomes ``undo.json``. If the
process dies in between, the next one that takes the lock finds the pending journal, and finishes the change or takes
it back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sleepgym import files
from sleepgym.notes.errors import NotesError
from sleepgym.notes.paths import PRIVATE, TREE, checked_stored, within
from sleepgym.notes.reading import MAX_FILE_BYTES, read_bytes, read_text
from sleepgym.notes.tree import refresh_tree
from sleepgym.notes.writing import delete_file, replace_file
from sleepgym.reading import first_mistake

PENDING, UNDO = "pending.json", "undo.json"
_MAX_JOURNAL_BYTES = 2**29


class _Side(BaseModel):
    """A file before and after a change: its text (null: no such file), and the SHA-256 of its new text."""

    model_config = ConfigDict(extra="forbid")
    before: str | None
    after: str | None


class _Journal(BaseModel):
    model_config = ConfigDict(extra="forbid")
    what: str
    files: dict[str, _Side]

    @field_validator("files")
    @classmethod
    def _only_notes(cls, sides: dict[str, _Side]) -> dict[str, _Side]:
        """Refuses names of anything but notes and what was taught: a journal may come with a folder of others."""
        for name in sides:
            checked_stored(name)
        return sides


def commit(root: Path, what: str, before: Mapping[str, str | None], after: Mapping[str, str | None]) -> None:
    """Replaces files, all or none; the lock must be held.

    Args:
        root: Folder of the notes.
        what: What is done, for who takes it back.
        before: What the files hold, by name; None: there is none.
        after: What they will hold; of the same names.

    Raises:
        NotesError: A file was changed by somebody else since it was read, or became too large.
        OSError: They cannot be written; all are as before.
    """
    new = {name: None if text is None else text.encode() for name, text in after.items()}
    for name, data in new.items():
        if data is not None and len(data) > MAX_FILE_BYTES:
            raise NotesError(
                f"expected at most {MAX_FILE_BYTES} bytes in {name}, found {len(data)}; make another file of some notes"
            )
        if _current(root, name) != before[name]:
            raise NotesError(f"expected nobody else to write {name}, found it changed meanwhile; try again")
    journal = _Journal(what=what, files={name: _Side(before=before[name], after=_digest(new[name])) for name in new})
    pending = journal.model_dump_json().encode()
    if len(pending) > _MAX_JOURNAL_BYTES:
        raise NotesError(
            f"expected a change of at most {_MAX_JOURNAL_BYTES} bytes, found {len(pending)}; make it in parts"
        )
    within(root, TREE)  # or all would have to be taken back
    replace_file(root, f"{PRIVATE}/{PENDING}", pending)
    try:
        for name, data in new.items():
            _put(root, name, data)
        _finish(root, journal)
    except BaseException:
        with suppress(OSError, NotesError):  # if even that fails, whoever takes the lock next tries again
            _take_back(root, journal)
        raise


def recover(root: Path) -> None:
    """Finishes or takes back a change that a process died over; the lock must be held.

    A file that somebody has edited since is left as it is.

    Raises:
        NotesError: The journal is damaged.
        OSError: A file cannot be read or written.
    """
    private = root / PRIVATE
    for part in private.glob(f"*{files.PART}"):
        part.unlink(missing_ok=True)
    journal = _read(private / PENDING)
    if journal is None:
        return
    for name in (*journal.files, TREE):
        place = within(root, name)
        for part in place.parent.glob(f"*{files.PART}"):
            part.unlink(missing_ok=True)
    if all(_digest_of(_current(root, name)) == side.after for name, side in journal.files.items()):
        _finish(root, journal)
    else:
        _take_back(root, journal)


def undo(root: Path) -> str:
    """Takes the last change back; the lock must be held. To do it once more does the change again.

    Returns:
        What is taken back.

    Raises:
        NotesError: There is nothing to take back, or a file was edited since.
        OSError: A file cannot be read or written; all are as before.
    """
    journal = _read(root / PRIVATE / UNDO)
    if journal is None:
        raise NotesError(f"expected an earlier change in {root}, found none; there is nothing to undo")
    now = {name: _current(root, name) for name in journal.files}
    for name, side in journal.files.items():
        if _digest_of(now[name]) != side.after:
            raise NotesError(f"expected {name} as the last change left it, found it edited since; change it by hand")
    what = journal.what.removeprefix("undo: ") if journal.what.startswith("undo: ") else f"undo: {journal.what}"
    commit(root, what, now, {name: side.before for name, side in journal.files.items()})
    return journal.what


def _finish(root: Path, journal: _Journal) -> None:
    """Brings the tree up to date, and makes the pending change the one that can be undone."""
    refresh_tree(root, [name for name in journal.files if not name.startswith(".")])
    (root / PRIVATE / PENDING).replace(root / PRIVATE / UNDO)


def _take_back(root: Path, journal: _Journal) -> None:
    """Puts files back that a change has replaced already, and forgets the change."""
    for name, side in journal.files.items():
        now = _current(root, name)
        if now != side.before and _digest_of(now) == side.after:
            _put(root, name, None if side.before is None else side.before.encode())
    refresh_tree(root, [name for name in journal.files if not name.startswith(".")])
    (root / PRIVATE / PENDING).unlink()


def _current(root: Path, name: str) -> str | None:
    return read_text(within(root, name), MAX_FILE_BYTES)


def _put(root: Path, name: str, data: bytes | None) -> None:
    if data is None:
        delete_file(root, name)
    else:
        replace_file(root, name, data)


def _read(path: Path) -> _Journal | None:
    data = read_bytes(path, _MAX_JOURNAL_BYTES)
    if data is None:
        return None
    try:
        return _Journal.model_validate_json(data)
    except ValidationError as error:
        raise NotesError(
            f"expected a journal of changes in {path}, found {first_mistake(error)}; look at the notes, then delete it"
        ) from error


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _digest_of(text: str | None) -> str | None:
    return _digest(None if text is None else text.encode())
