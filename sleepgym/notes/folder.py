"""What is in a folder of notes, for readers who change nothing."""

from __future__ import annotations

import os
from pathlib import Path

from sleepgym.notes.document import Document, parse
from sleepgym.notes.errors import NotesError
from sleepgym.notes.paths import SUFFIX, TREE, checked, within
from sleepgym.notes.reading import MAX_FILE_BYTES, read_text


def note_files(root: Path) -> dict[str, os.stat_result]:
    """Every file of notes by its path in the folder, in order. Links and hidden files are none.

    Raises:
        OSError: A folder cannot be listed.
    """
    found: dict[str, os.stat_result] = {}
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            entries = os.scandir(root / prefix)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                if entry.name.startswith(".") or not _writable(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{prefix}{entry.name}/")
                elif entry.name.endswith(SUFFIX) and entry.name != TREE and entry.is_file(follow_symlinks=False):
                    found[prefix + entry.name] = entry.stat(follow_symlinks=False)
    return dict(sorted(found.items()))


def look(root: Path, path: str) -> Document | None:
    """The notes of a file, whatever bytes are in it; None if it cannot be read now. Not to be written back."""
    try:
        text = read_text(within(root, path), MAX_FILE_BYTES, errors="replace")
    except (NotesError, OSError):
        return None
    return None if text is None else parse(text)


def _writable(name: str) -> bool:
    """Whether a name of a file or folder is one that could be given."""
    if name.isascii() and name.isprintable() and "\\" not in name and len(name) <= 100:  # nearly all are
        return True
    try:
        checked(f"{name}/x{SUFFIX}")
    except NotesError:
        return False
    return True
