"""Files replaced and deleted: never through a link, and so that it outlasts a power cut."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from sleepgym import files
from sleepgym.notes.paths import within


def replace_file(root: Path, name: str, data: bytes, durable: bool = True) -> None:
    """Writes a file of the folder; whatever happens, it is the old one or the new one.

    Args:
        root: Folder of the notes.
        name: The file, relative to it.
        data: What.
        durable: Whether it must outlast a power cut.

    Raises:
        NotesError: A part of the way is a link.
        OSError: It cannot be written; an earlier file is whole.
    """
    place = within(root, name)
    # A leftover of a process that died, or a link that somebody has put there to be written through.
    (place.parent / f"{place.name}.{os.getpid()}{files.PART}").unlink(missing_ok=True)
    files.write_all(place.parent, {place.name: data}, durable)


def delete_file(root: Path, name: str) -> None:
    """Deletes a file of the folder, and the folders that are empty then.

    Raises:
        NotesError: A part of the way is a link.
        OSError: It cannot be deleted.
    """
    place = within(root, name)
    place.unlink(missing_ok=True)
    with suppress(OSError):  # not those that hold anything; nor is there a folder to keep where none was
        files.sync(place.parent)
        for folder in place.relative_to(root).parents[:-1]:
            (root / folder).rmdir()
