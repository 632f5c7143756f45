"""Look-ups: the notes that answer a query best, as plain sentences."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sleepgym.facts.writing import full_stop
from sleepgym.notes.bullet import stamp
from sleepgym.notes.errors import NotesError
from sleepgym.notes.index import Column, Floats, Found, Index
from sleepgym.notes.scoring import HIGHEST_STANDING, IN_TEXT, IN_TITLE, IN_TOPIC, weight
from sleepgym.notes.store import NoteStore
from sleepgym.notes.terms import terms
from sleepgym.notes.texts import MAX_CHARACTERS

_LOWEST = -1e9  # below any score; what is not to be found is at minus infinity
_FEW = 1000  # notes that are faster looked at one by one than all that have a common term

Counter = Callable[[str], int]
"""Says how many tokens a text has."""


@dataclass(frozen=True)
class Retrieved:
    """What a look-up found.

    Attributes:
        notes: The best first.
        tokens: Of all sentences together.
        milliseconds: What the look-up took, with reading what had changed.
    """

    notes: tuple[Found, ...]
    tokens: int
    milliseconds: float

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes as sentences, without their fields."""
        return tuple(sentence(note.said) for note in self.notes)

    @property
    def text(self) -> str:
        """The sentences, one per line."""
        return "\n".join(self.sentences)


class Retriever:
    """Looks notes up. It is for one thread; any number of processes may have one each.

    Args:
        store: The notes.
        count: Counts tokens; by default :func:`estimated_tokens`.
        index: File of the index; by default one among the user's cached files.
    """

    def __init__(self, store: NoteStore, *, count: Counter | None = None, index: Path | None = None) -> None:
        self._store = store
        self._count = estimated_tokens if count is None else count
        self._index = Index(store.folder, index)

    def close(self) -> None:
        """Closes the index."""
        self._index.close()

    def retrieve(self, query: str, k: int = 5, *, idf: bool = True, history: bool = False) -> Retrieved:
        """The notes with the highest scores, of those that have a word of the query.

        The files are looked at anew: what a person has edited meanwhile counts. Notes with equal scores
        come in the order of their files and lines.

        Args:
            query: A question, or words.
            k: Notes at most.
            idf: Whether a rare word counts more than a common one, and whether words count that are in the title of a
                note's file, which says what it is about; otherwise the points are just nanomem's.
            history: Whether what is superseded or expired may be found too.

        Raises:
            NotesError: The query is too long, or k is no positive number.
            OSError: The folder cannot be listed.
        """
        if k < 1:
            raise NotesError(f"expected at least 1 note to look for, found {k}; leave it out for 5")
        if len(query) > MAX_CHARACTERS:
            raise NotesError(f"expected a query of at most {MAX_CHARACTERS} characters, found {len(query)}; shorten it")
        started = time.perf_counter()
        self._index.refresh()
        now = stamp(self._store.clock())
        best = self._best(query, k, idf, history, now)
        notes = tuple(self._index.found(note, points, now) for points, note in best)
        tokens = self._count("\n".join(sentence(note.said) for note in notes)) if notes else 0
        return Retrieved(notes, tokens, (time.perf_counter() - started) * 1e3)

    def _best(self, query: str, k: int, idf: bool, history: bool, now: str) -> list[tuple[float, int]]:
        """The highest scores with the notes that have them."""
        points: dict[Column, float] = {"text": IN_TEXT, "topic": IN_TOPIC}
        if idf:
            points["title"] = IN_TITLE
        found = {term: number for term in terms(query) if (number := self._index.frequency(term))}
        total = self._index.count()
        weights = {term: weight(number, total) if idf else 1.0 for term, number in found.items()}
        scores = self._index.standings(now, history)
        matched = np.zeros(len(scores), bool)
        # Rare terms first. A common one is in a large part of all notes, and is looked up only where it can matter:
        # as soon as no note without the rare ones can be among the best, only those that were found are looked at.
        left = sorted(found, key=found.__getitem__)
        while left:
            rest = sum(weights[term] for term in left) * sum(points.values())
            bar = _highest(scores[matched], k)
            near = matched & (scores >= bar - rest)
            if rest + HIGHEST_STANDING < bar and np.count_nonzero(near) <= _FEW:
                matched = near
                for note, said in self._index.said(np.flatnonzero(near).tolist()).items():
                    scores[note] += sum(
                        points[column] * weights[term] for column in points for term in left if term in said[column]
                    )
                break
            term, *left = left
            for column, worth in points.items():
                notes = self._index.matching(term, column)
                scores[notes] += worth * weights[term]
                matched[notes] = True
        matched &= scores >= max(_highest(scores[matched], k), _LOWEST)
        # Equal scores: in the order of files and lines, not in that in which they were read.
        best = self._index.ordered(np.flatnonzero(matched).tolist())
        best.sort(key=lambda note: -scores[note])
        return [(float(scores[note]), note) for note in best[:k]]


def _highest(scores: Floats, k: int) -> float:
    """The k-th highest score; minus infinity if there are fewer."""
    return float(np.partition(scores, -k)[-k]) if len(scores) >= k else -np.inf


def estimated_tokens(text: str) -> int:
    """Tokens of a text, estimated: a quarter of its bytes, rounded up."""
    return -(-len(text.encode(errors="replace")) // 4)


def sentence(text: str) -> str:
    """A note's text with a full stop, in its script, if it ends in nothing of the kind."""
    return text + full_stop("", text) if text else text


def with_notes(question: str, sentences: Sequence[str]) -> str:
    """A question with notes before it, as a passage: ``tiny`` reads that better than a line for each note."""
    return " ".join((*sentences, question))
