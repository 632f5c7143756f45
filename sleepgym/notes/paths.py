"""Names of files: safe ones from any text, and checks of those that are given."""

from __future__ import annotations

import hashlib
import reprlib
import stat
import unicodedata
from pathlib import Path

from sleepgym.notes.errors import NotesError

SUFFIX = ".md"
TREE = "_tree.md"
PRIVATE = ".notes"
"""Folder beside the notes for what is no note: lock, undo, what was taught."""
TAUGHT, TAUGHT_SUFFIX = f"{PRIVATE}/taught/", ".json"
"""What stands around the path of a file of notes in the name of the file that says what was taught of it."""

_MAX_BYTES = 200  # of a part of a path: file systems take 255, and a file that is being written has a longer name
_MAX_CHARACTERS = 1000
_RESERVED = '%~/\\:*?"<>|'


def file_key(name: str) -> str:
    """A file name for a text, without a suffix: letters of every script stay, and two texts never share one.

    What file systems or shells take for something else is written as in URLs (``%2F``). A name that would be too long
    ends in a hash.

    Raises:
        NotesError: The text is empty or has halves of surrogate pairs in it.
    """
    text = unicodedata.normalize("NFC", name)
    if not text or any(unicodedata.category(c) == "Cs" for c in text):
        raise NotesError(f"expected a name in Unicode text, found {reprlib.repr(name)}; give it one")
    last = len(text) - 1
    key = "".join(_coded(c) if _awkward(c, i in (0, last)) else c for i, c in enumerate(text))
    if len(key.encode()) <= _MAX_BYTES - len(SUFFIX):
        return key
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    return f"{key.encode()[:120].decode(errors='ignore')}~{digest}"


def checked(path: str) -> str:
    """A path of a note's file relative to the folder, such as ``personal/about.md``.

    Raises:
        NotesError: It leads out of the folder or to what is no note, or no file system takes it.
    """
    parts = path.split("/")
    wrong = (
        "a shorter path"
        if len(path) > _MAX_CHARACTERS or any(len(part.encode(errors="replace")) > _MAX_BYTES for part in parts)
        else "no control characters"
        if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in path)
        else "slashes between its parts"
        if "\\" in path
        else "a path within the folder, whose parts do not begin with a dot"
        if any(not part or part.startswith(".") for part in parts)
        else f"a name that ends in {SUFFIX}"
        if not path.endswith(SUFFIX)
        else f"another name than that of the generated {TREE}"
        if parts[-1] == TREE
        else ""
    )
    if wrong:
        raise NotesError(f"expected {wrong}, found {reprlib.repr(path)}; name a file such as 'personal/about{SUFFIX}'")
    return path


def checked_stored(name: str) -> str:
    """The name of a file that a change may write: one of notes, or of what was taught of them.

    Raises:
        NotesError: It is the name of anything else.
    """
    checked(name.removeprefix(TAUGHT).removesuffix(TAUGHT_SUFFIX) if name.startswith(TAUGHT) else name)
    return name


def title_of(path: str) -> str:
    """The title of a new file: ``work/sleep-lab.md`` is about Sleep lab, and ``work/about.md`` about Work."""
    *folders, name = path.removesuffix(SUFFIX).split("/")
    told = folders[-1] if name == "about" and folders else name
    return told[:1].upper() + told[1:].replace("-", " ")


def within(root: Path, name: str) -> Path:
    """The place of a file of the folder; no part of the way may be a link.

    Args:
        root: The folder.
        name: Relative to it; checked before.

    Raises:
        NotesError: A part of the way is a link, or something that is no folder.
        OSError: It cannot be looked at.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise NotesError(f"expected a path within {root}, found {reprlib.repr(name)}; name a file in the folder")
    place = root
    for i, part in enumerate(parts):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            mode = stat.S_IFREG
        wanted = stat.S_ISREG if i == len(parts) - 1 else stat.S_ISDIR
        if not wanted(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "something else"
            what = "a file" if i == len(parts) - 1 else "a folder"
            raise NotesError(f"expected {what} at {place}, found {kind}; put the file itself there, or take it away")
    return place


def _awkward(character: str, outer: bool) -> bool:
    return (
        character in _RESERVED
        or unicodedata.category(character) in ("Cc", "Zl", "Zp")
        or (outer and (character in "._" or character.isspace()))
    )


def _coded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())
