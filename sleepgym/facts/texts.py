"""Checks of the texts that facts are made of: anything that is no usable text is refused with what to do about it."""

# ruff: noqa: RUF001 - the characters of other scripts are what this is about

from __future__ import annotations

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping, Set
from typing import Any

from sleepgym.errors import SleepGymError
from sleepgym.facts.writing import strip_outer

# Line ends and tabs are part of many prompts; other control characters no tokenizer was trained on.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Cyrillic and Greek letters, and the Latin ones that they look like.
_LOOKALIKES = str.maketrans("АВЕЅІЈКМНОРСТХУаеѕіјорсухΑΒΕΖΗΙΚΜΝΟΡΤΥΧοαν", "ABESIJKMHOPCTXYaesijopcyxABEZHIKMNOPTYXoav")
_DASHES = str.maketrans("‐‑‒–—−’‘`´", "------''''")


class FactError(SleepGymError, ValueError):
    """A fact that cannot be used: the message says what was expected, found, and what to do."""


def text_of(value: Any, what: str) -> str:
    """The text in its composed form (NFC) and without outer blanks.

    Two spellings of one name, such as ``"é"`` and ``"e"`` with a combining accent, are one name afterwards.

    Args:
        value: What was given.
        what: What it is, for the message.

    Raises:
        FactError: It is no text, or holds characters that no tokenizer can write.
    """
    return tidy(raw_text(value, what))


def tidy(text: str) -> str:
    """The text as facts keep it: in its composed form and without outer blanks."""
    return strip_outer(unicodedata.normalize("NFC", text))


def raw_text(value: Any, what: str) -> str:
    """The text as it is.

    Raises:
        FactError: It is no text, or holds characters that no tokenizer can write.
    """
    if not isinstance(value, str):
        raise FactError(f"expected {what} to be a text, found {_kind(value)}; {_remedy(value)}")
    found = _SURROGATE.search(value)
    if found:
        raise FactError(
            f"expected {what} to be Unicode text, found half of a surrogate pair ({_code(found)}) at position "
            f"{found.start()} of {reprlib.repr(value)}; read the text again with its right encoding"
        )
    found = _CONTROL.search(strip_outer(value))
    if found:
        raise FactError(
            f"expected {what} without control characters, found {_code(found)} in {reprlib.repr(value)}; take it out"
        )
    return str(value)  # not a subclass, such as numpy's


def texts_of(value: Any, what: str) -> tuple[str, ...]:
    """A sequence of texts as a tuple, each as in :func:`text_of`.

    Args:
        value: What was given: a tuple, a list or another iterable in an order of its own.
        what: What each of them is, for the message.

    Raises:
        FactError: It is no sequence, or one of them is no usable text.
    """
    if isinstance(value, str):
        raise FactError(
            f"expected a sequence of texts as {what}s, found the text {reprlib.repr(value)}; "
            f"put it into a tuple: ({reprlib.repr(value)},)"
        )
    return tuple(text_of(item, what) for item in _items(value, f"a sequence of texts as {what}s"))


def pairs_of(value: Any) -> tuple[tuple[str, str], ...]:
    """Neighbours as a tuple of ``(prompt, object)`` pairs, each text as in :func:`text_of`.

    Raises:
        FactError: It is no sequence of pairs, or a text is empty or unusable.
    """
    pairs = []
    for item in _items(value, "a sequence of (prompt, object) pairs as neighbours"):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise FactError(
                f"expected a (prompt, object) pair as each neighbour, found {_kind(item)}; "
                "write neighbours=((prompt, object), ...)"
            )
        prompt, obj = text_of(item[0], "a neighbour's prompt"), text_of(item[1], "a neighbour's object")
        if not prompt or not obj:
            raise FactError(
                f"expected a prompt and an object in each neighbour, found {tuple(item)!r}; fill in both or drop it"
            )
        pairs.append((prompt, obj))
    return tuple(pairs)


def require_subject(subject: str, text: str, what: str) -> None:
    """Checks that a subject stands in a text.

    Raises:
        FactError: It does not. Where only something that looks like it does, the message names the characters.
    """
    if subject not in text:
        raise FactError(f"{subject_missing(subject, text, what)}; write the subject exactly as it stands in the text")


def subject_missing(subject: str, text: str, what: str) -> str:
    """What is wrong with a text that a subject does not stand in."""
    if _looks(subject) not in _looks(text):
        return f"expected the subject {subject!r} in the {what}, found {text!r}"
    odd = "".join(dict.fromkeys(c for c in subject + text if not c.isascii()))
    names = ", ".join(f"{unicodedata.name(c, 'a character without a name')} (U+{ord(c):04X})" for c in odd[:6])
    return (
        f"expected the subject {subject!a} in the {what}, found {text!a}, which has something that looks "
        f"the same but is written with other characters: see {names or 'the blanks'}"
    )


def told_apart(*texts: str) -> list[str]:
    """The texts as messages quote them; with escapes, where two that differ would look the same."""
    alike = len({_looks(text) for text in texts}) < len(set(texts))
    return [ascii(text) if alike else repr(text) for text in texts]


def _items(value: Any, expected: str) -> Iterable[Any]:
    # A set has no order of its own: two runs would make two facts of it.
    if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Iterable):
        raise FactError(f"expected {expected}, found {_kind(value)}; put them into a tuple, or leave it out")
    return value


def _looks(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(_LOOKALIKES).translate(_DASHES)
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())


def _kind(value: Any) -> str:
    return "None" if value is None else f"{reprlib.repr(value)} ({type(value).__name__})"


def _remedy(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return f"write it as it is to be read, for example {str(value)!r}"
    if isinstance(value, bytes):
        return "decode it first"
    return "give a str"


def _code(found: re.Match[str]) -> str:
    return f"U+{ord(found.group()):04X}"
