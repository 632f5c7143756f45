"""How texts are written: what belongs to them, what stands between two of them, and what ends a sentence.

Only characters are looked at, never a tokenizer, so that a fact is the same fact for every model.
"""

# ruff: noqa: RUF001 - the characters of other scripts are what this is about

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

Writing = Literal["east", "southeast", "spaced"]

# White space, and what shows as nothing at the end of a text. Not the joiners: old Malayalam words end in one.
_INVISIBLE = "\ufeff\u200b\u2060\u180e\u00ad\u200e\u200f\u061c\u2800\u3164\uffa0"
_OUTER = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + _INVISIBLE

# Names begin with the script: Python's tables of characters have no scripts.
_EAST = (
    "CJK ", "HIRAGANA ", "KATAKANA", "BOPOMOFO ", "IDEOGRAPHIC ", "FULLWIDTH ", "HALFWIDTH KATAKANA", "KANGXI ", "YI ",
    "HENTAIGANA ", "TANGUT ", "NUSHU ", "HALFWIDTH IDEOGRAPHIC", "HALFWIDTH LEFT CORNER", "HALFWIDTH RIGHT CORNER",
)  # fmt: skip
_SOUTHEAST = (
    "THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ", "TAI ", "NEW TAI ", "JAVANESE ", "BALINESE ",
)  # fmt: skip
_STOPS = {
    "DEVANAGARI": "।", "BENGALI": "।", "GURMUKHI": "।", "ORIYA": "।", "MYANMAR": "။", "KHMER": "។", "TIBETAN": "།",
    "ETHIOPIC": "።", "ARMENIAN": "։", "THAI": "", "LAO": "",
}  # fmt: skip
_QUOTES = "\"'“”‘’«»‹›„‚`"
_ENDS = ".!?…。．！？｡।॥။།።։۔؟"
_TIGHT = ",.;:!?…、。，．；：！？｡､،؛؟।۔"


def strip_outer(text: str) -> str:
    """The text without white space of any kind, byte order marks and zero-width spaces at its ends."""
    return text.strip(_OUTER)


def joiner_between(before: str, after: str) -> str:
    """What stands between a text and one that continues it: a blank or nothing.

    Nothing stands between scripts that put no blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese,
    Tibetan and others), after Chinese and Japanese whatever follows, after an opening bracket or quotation mark,
    after what clings to the next word (``l'``, ``$``, ``LH-``), before closing punctuation, and where a blank is
    already there. After Thai and its neighbours, words of other scripts and numbers are set off by a blank.

    Args:
        before: Text that is continued, such as a prompt.
        after: What continues it, such as an object.
    """
    if not before or not after or before[-1].isspace() or before[-1] == "\u200b" or after[0].isspace():
        return ""
    if _opens(before, after) or _closes(before, after):
        return ""
    return "" if _run_on(before, after) else " "


def full_stop(before: str, after: str) -> str:
    """What ends the sentence that the two texts make together: ``"。"`` in Chinese and Japanese, mostly ``"."``.

    Nothing, where the second text ends a sentence already, and in scripts that end sentences with nothing.
    """
    if ends_sentence(after):
        return ""
    if _east(before[-1:]) or (_nearest(reversed(after)) == "east" and (_has_east(before) or not _letters(before))):
        return "。"
    letter = next((c for c in reversed(before or after) if c.isalpha()), "")
    return _STOPS.get(unicodedata.name(letter, "").partition(" ")[0] if letter else "", ".")


def ends_sentence(text: str) -> bool:
    """Returns whether a text ends in what ends a sentence, behind which quotation marks and brackets may close."""
    return text.rstrip(_QUOTES + ")]}」』）")[-1:] in tuple(_ENDS)


def _run_on(before: str, after: str) -> bool:
    """Whether the scripts that meet put no blank between words."""
    left, right = _writing(_visible(reversed(before))), _writing(_visible(after))
    if left == "east":
        return True
    unspaced = right in ("east", "southeast")
    if left is None:  # digits, punctuation and symbols go with the letters before them
        if before[-1] in _TIGHT and before[-1].isascii() and not unspaced:
            return False
        left = _nearest(reversed(before))
        if left == "east":
            return True
    if left == "spaced":
        return right == "east" and _has_east(before)
    return unspaced


def _opens(before: str, after: str) -> bool:
    """Whether the last character belongs to what follows."""
    last, earlier = before[-1], before[:-1]
    attached = bool(earlier) and not earlier[-1].isspace()
    if last in _QUOTES and last not in "„‚":
        if last in "'’" and attached and earlier[-1].isalpha():
            word = earlier.split()[-1]
            return len(word) == 1 or word[-1] not in "sS"  # l'Italia, qu'il; but the dogs' bowl
        return not attached or unicodedata.category(earlier[-1]) in ("Ps", "Pd")
    kind = unicodedata.category(last)
    if kind == "Ps" or last in "¿¡\u1361":
        return True
    if kind == "Sc":
        return after[0].isdecimal()
    if kind == "Pd" or last in "/\\_\u0f0b":
        return attached
    return last in "#@" and not attached


def _closes(before: str, after: str) -> bool:
    """Whether the first character belongs to what stands before."""
    first, second = after[0], after[1:2]
    if first in _QUOTES:
        return not second.strip() or second in _TIGHT
    if unicodedata.category(first) == "Pe":
        return True
    if first in "%‰°":
        return before[-1].isdecimal()
    return first in _TIGHT and not second.isalnum()  # but .NET and !Kung


def _visible(characters: Iterable[str]) -> str:
    """The first one that is not a mark on another, a variation selector or a joiner."""
    return next((c for c in characters if unicodedata.category(c) not in ("Mn", "Me", "Cf")), "")


def _nearest(characters: Iterable[str]) -> Writing | None:
    """How the first one is written that belongs to a script."""
    return next((writing for c in characters if (writing := _writing(c))), None)


def _has_east(text: str) -> bool:
    return any(map(_east, text))


def _east(character: str) -> bool:
    return _writing(character) == "east"


def _letters(text: str) -> bool:
    return any(c.isalpha() for c in text)


@lru_cache(maxsize=4096)
def _writing(character: str) -> Writing | None:
    """Whether the script of a character sets words apart by blanks; None if it has no script of its own."""
    if not character:
        return None
    name = unicodedata.name(character, "")
    # The block of East Asian punctuation, and planes that hold nothing but Han, named or not.
    if name.startswith(_EAST) or "\u3000" <= character <= "\u303f" or "\U00020000" <= character <= "\U0003ffff":
        return "east"
    if name.startswith(_SOUTHEAST):
        return "southeast"
    return "spaced" if character.isalpha() else None
