"""Checks of what people ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sleepgym.facts.fact import FactError
from sleepgym.lm.encoding import Turn


def texts_of(given: str | Sequence[str], what: str) -> tuple[bool, list[str]]:
    """Whether one text was given, and all texts.

    Raises:
        FactError: Something is no text, or there is none.
    """
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Iterable) else [given]
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong or not texts or not all(text.strip() for text in texts):
        found = f"{type(wrong[0]).__name__} {wrong[0]!r}" if wrong else "an empty one" if texts else "none"
        raise FactError(f"expected a {what} as text, or a sequence of them, found {found}; give words to go on from")
    return isinstance(given, str), texts


def turns_of(history: Sequence[Turn]) -> Iterator[Turn]:
    """Earlier turns, checked.

    Raises:
        FactError: Something is no pair of texts.
    """
    for turn in history:
        pair = tuple(turn) if isinstance(turn, (tuple, list)) else (turn,)
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise FactError(f"expected a history of (question, answer) pairs, found {turn!r}; give both as text")
        yield pair[0], pair[1]
