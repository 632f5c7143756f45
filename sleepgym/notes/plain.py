r"""Notes as plain text: a line ``[personal/about.md]`` per file, and a line per note under it.

Only what is current is written, without fields. A text that begins with ``[`` or ``\`` has a ``\`` before it.
"""

from __future__ import annotations

from sleepgym.notes.bullet import bullet, stamp
from sleepgym.notes.errors import NotesError
from sleepgym.notes.merging import Incoming
from sleepgym.notes.omf import ELSEWHERE
from sleepgym.notes.paths import checked
from sleepgym.notes.store import NoteStore
from sleepgym.notes.texts import note_text


def exported_text(store: NoteStore) -> str:
    """What is current, in the order of files and lines.

    Raises:
        NotesError: A file is no text or too large.
        OSError: A file cannot be read.
    """
    parts, now = [], store.clock()
    for path in store.files():
        lines = [one.words for block, one in store.read(path).notes() if one.words and one.holds(block.tier, now)]
        if lines:
            parts.append("\n".join([f"[{path}]", *map(_escaped, lines)]))
    return "\n\n".join(parts) + "\n" if parts else ""


def read_plain(text: str, store: NoteStore) -> list[Incoming]:
    """What a text brings: a note for each line with words in it, dated now.

    Lines before the first that names a file go to ``personal/imported.md``.

    Raises:
        NotesError: A line cannot be written, or names a file outside the folder.
    """
    now, path, out = stamp(store.clock()), ELSEWHERE, []
    for number, line in enumerate(text.split("\n"), 1):
        told = line.strip()
        try:
            if told.startswith("["):
                if not told.endswith("]"):
                    raise NotesError(
                        f"expected a file such as [personal/about.md], found {told!r}; begin a text with \\["
                    )
                path = checked(told[1:-1])
            elif told:
                said = note_text(told.removeprefix("\\"))
                note = bullet(said, tier="long_term", status="active", updated_at=now)
                out.append(Incoming(path, "long_term", note))
        except NotesError as error:
            raise NotesError(f"line {number}: {error}") from error
    return out


def _escaped(text: str) -> str:
    return "\\" + text if text.startswith(("[", "\\")) else text
