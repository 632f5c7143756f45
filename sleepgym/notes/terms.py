"""Words of a text, as look-ups compare them: in any script, and such that C++ and C# are two."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_ASCII = re.compile(r"[a-z0-9]+[+#]*")
# Scripts that put no blanks between words, and Hangul, whose particles cling to them: pairs of letters stand for words.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1100, 0x11FF), (0x1780, 0x17FF), (0x3005, 0x3007),
    (0x3040, 0x30FF), (0x3130, 0x318F), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF),
    (0x20000, 0x3FFFF),
)  # fmt: skip


def terms(text: str) -> tuple[str, ...]:
    """The different terms of a text, in its order: words in lower case, or pairs of letters where no blanks are.

    Numbers are words; plus signs and hashes count behind a word. A term never has a blank or a quotation mark in it.
    """
    low = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return tuple(dict.fromkeys(_ASCII.findall(low) if low.isascii() else _words(low)))


def _words(text: str) -> Iterator[str]:
    word, letters = "", ""  # of a spaced script, and of one without blanks; at most one of them is not empty
    for character in f"{text} ":
        kind = unicodedata.category(character)
        if kind[0] in "LNM" or (character in "+#" and word):
            if _unspaced(character) and character not in "+#":
                yield from (word,) if word else ()
                word, letters = "", letters + character
            elif letters and kind[0] == "M":
                letters += character
            else:
                yield from _pairs(letters)
                letters = ""
                # "C+x" is two words, as in a text of ASCII alone.
                if word.endswith(("+", "#")) and character not in "+#":
                    yield word
                    word = ""
                word += character
        elif kind != "Cf":  # joiners and soft hyphens are within words
            yield from (word,) if word else _pairs(letters)
            word = letters = ""


def _pairs(letters: str) -> Iterator[str]:
    if len(letters) == 1:
        yield letters
    yield from (letters[i : i + 2] for i in range(len(letters) - 1))


def _unspaced(character: str) -> bool:
    code = ord(character)
    return code >= 0x0E00 and any(first <= code <= last for first, last in _UNSPACED)
