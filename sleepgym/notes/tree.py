"""The generated list of all files, ``_tree.md``: a line for each with its items, their date and the first of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sleepgym.notes.bullet import moment
from sleepgym.notes.folder import look, note_files
from sleepgym.notes.paths import TREE, within
from sleepgym.notes.reading import MAX_FILE_BYTES, read_text
from sleepgym.notes.writing import replace_file

_LINE = re.compile(r"- (.*\.md) \(\d+ items, updated [-\d: ]+\) - .*")
_LONGEST = 1200  # characters of a line that is generated, at most
_SHOWN = 80  # characters of a note in the line of its file


def write_tree(root: Path) -> str:
    """Generates the whole tree anew, and returns it.

    Raises:
        OSError: It cannot be written.
    """
    return _write(root, {})


def refresh_tree(root: Path, changed: Sequence[str]) -> None:
    """Brings the lines of changed, new and deleted files up to date; the others stay as they are.

    Raises:
        OSError: It cannot be written.
    """
    old = read_text(within(root, TREE), 4 * MAX_FILE_BYTES, errors="replace") or ""
    ours = (line for line in old.split("\n") if len(line) <= _LONGEST)
    lines = {found[1]: line for line in ours if (found := _LINE.fullmatch(line))}
    _write(root, {path: line for path, line in lines.items() if path not in changed})


def _write(root: Path, known: dict[str, str]) -> str:
    lines = [
        known.get(path) or _line(root, path, datetime.fromtimestamp(found.st_mtime))
        for path, found in note_files(root).items()
    ]
    text = "\n".join(["# Memory tree", "", *lines]) + "\n"
    replace_file(root, TREE, text.encode(), durable=False)  # it can be generated again
    return text


def _line(root: Path, path: str, modified: datetime) -> str:
    document = look(root, path)
    notes = [] if document is None else list(document.notes())
    dates = [at for _, bullet in notes if (at := moment(bullet.get("updated_at"))) is not None]
    current = next((bullet.words for block, bullet in notes if bullet.holds(block.tier)), None)
    told = " ".join((current or (document.title if document else "") or path).split())
    told = told if len(told) <= _SHOWN else told[: _SHOWN - 1] + "…"
    return f"- {path} ({len(notes)} items, updated {max(dates, default=modified):%Y-%m-%d %H:%M}) - {told}"
