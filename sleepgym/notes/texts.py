"""Checks of what goes into a note: one line that reads back as it was written."""

from __future__ import annotations

import re
import reprlib
import unicodedata

from sleepgym.facts.writing import strip_outer
from sleepgym.notes.errors import NotesError

MAX_CHARACTERS = 20_000
"""Characters of the longest text of a note."""

_KEY = re.compile(r"[^\W\d][\w-]*")


def note_text(value: str, what: str = "a note") -> str:
    """The text in its composed form (NFC), without outer blanks.

    Args:
        value: What was given.
        what: What it is, for the message.

    Raises:
        NotesError: It is empty, too long, has several lines, or holds characters that no file of text should.
    """
    text = one_line(value, what)
    if not text:
        raise NotesError(f"expected {what} with words in it, found {value!r}; say what is to be remembered")
    return text


def one_line(value: str, what: str) -> str:
    """As :func:`note_text`, but may be empty.

    Raises:
        NotesError: As there.
    """
    if len(value) > MAX_CHARACTERS:
        raise NotesError(
            f"expected {what} of at most {MAX_CHARACTERS} characters, found {len(value)}; make several notes of it"
        )
    text = strip_outer(value)
    odd = next((c for c in text if _unwritable(c)), None)
    if odd is not None:
        advice = "make a note of each line" if odd in "\n\r\u2028\u2029" else "take it out"
        raise NotesError(
            f"expected {what} in one line without control characters, found U+{ord(odd):04X} in "
            f"{reprlib.repr(value)}; {advice}"
        )
    return strip_outer(unicodedata.normalize("NFC", text))


def field_name(value: str) -> str:
    """The name of a field, such as ``topic``.

    Raises:
        NotesError: It does not begin with a letter, or has others than letters, digits, ``_`` and ``-``.
    """
    if not _KEY.fullmatch(value):
        raise NotesError(
            f"expected the name of a field in letters, digits, '_' and '-', found {reprlib.repr(value)}; rename it"
        )
    return value


def same_words(text: str) -> str:
    """The text as texts are compared: composed, with single blanks. Case and punctuation tell notes apart."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _unwritable(character: str) -> bool:
    return character != "\t" and unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
