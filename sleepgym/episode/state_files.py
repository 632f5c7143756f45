"""Serialisation of an episode's state as JSON, without its learner's state.

Facts are not stored: the stream is drawn again from its seed, and facts are referenced by their index in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, NonNegativeInt

from sleepgym.episode.actions import NoteAction
from sleepgym.episode.card import Card
from sleepgym.episode.history import History
from sleepgym.episode.inbox import Inbox
from sleepgym.episode.notes import Notes
from sleepgym.episode.state import Answers, EpisodeState
from sleepgym.episode.stream import Arrival, Stream, draw_stream, source_of
from sleepgym.facts.fact import Fact
from sleepgym.facts.world import Split
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.memory.state import State


class _Inbox(BaseModel):
    current: tuple[NonNegativeInt, ...]
    pending: tuple[NonNegativeInt, ...]
    written: tuple[NonNegativeInt, ...]
    lost: NonNegativeInt


class _Answers(BaseModel):
    version: int
    ratio: float | None
    facts: tuple[NonNegativeInt, ...]
    correct: tuple[bool, ...]
    forward_passes: NonNegativeInt


class _History(BaseModel):
    doing: list[str]
    offline: list[bool]
    arrivals: list[NonNegativeInt]
    standings: list[str]
    served: list[float]
    budget_left: list[float]
    pressure: list[float]
    perplexity_ratio: list[float]


class _Counts(BaseModel):
    tick: NonNegativeInt
    edits_used: NonNegativeInt
    sleeps: NonNegativeInt
    naps: NonNegativeInt
    slept_at: NonNegativeInt
    audited_at: NonNegativeInt
    lately_served: float
    asked: float
    answered: float


class _NoteCounts(BaseModel):
    answering: NoteAction
    look_ups: float
    looked_up: float
    tokens_read: float


class _Notes(BaseModel):
    told: tuple[NonNegativeInt, ...]
    archived: tuple[NonNegativeInt, ...]
    read: tuple[tuple[NonNegativeInt, float], ...]
    counts: _NoteCounts
    asked: tuple[NonNegativeInt, ...]
    sure: tuple[bool, ...]


class _Document(BaseModel):
    """What :func:`state_document` writes; snapshots of earlier versions say nothing of notes."""

    counts: _Counts
    inbox: _Inbox
    history: _History
    answers: _Answers
    notes: _Notes | None = None


def state_document(state: EpisodeState, stream: Stream) -> dict[str, Any]:
    """Returns a state without the learner's as JSON.

    Args:
        state: State of the episode.
        stream: Stream of the episode.
    """
    arrivals, facts = _arrivals(stream), _facts(stream)
    answers, notes = state.answers, state.notes
    return {
        "counts": state.counters,
        "inbox": {
            "current": _places(state.inbox.current.values(), arrivals),
            "pending": _places(state.inbox.pending.values(), arrivals),
            "written": _places(state.inbox.written.values(), facts),
            "lost": state.inbox.lost,
        },
        "history": state.history.columns(),
        "answers": {
            "version": answers.version,
            "ratio": answers.ratio,
            "facts": _places(answers.correct, facts),
            "correct": list(answers.correct.values()),
            "forward_passes": answers.forward_passes,
        },
        "notes": {
            "told": _places(notes.told.values(), facts),
            "archived": _places(notes.archived.values(), facts),
            "read": [list(item) for item in notes.read.items()],
            "counts": notes.counters,
            "asked": _places(answers.sure, facts),
            "sure": list(answers.sure.values()),
        },
    }


def read_state(document: Mapping[str, Any], card: Card, stream: Stream, learner: State) -> EpisodeState:
    """Returns the state that :func:`state_document` serialised.

    Args:
        document: JSON from :func:`state_document`.
        card: Card of the episode.
        stream: Stream of the episode.
        learner: State of the learner.

    Raises:
        KeyError: A key is missing; a forged document can raise anything.
    """
    read = _Document.model_validate(document)
    arrivals, facts = _arrivals(stream), _facts(stream)
    inbox = Inbox(card.budget.pending)
    inbox.current = {arrivals[i].fact.key: arrivals[i] for i in read.inbox.current}
    inbox.pending = {arrivals[i].fact.key: arrivals[i] for i in read.inbox.pending}
    inbox.written = {facts[i].key: facts[i] for i in read.inbox.written}
    inbox.lost = read.inbox.lost
    raw = read.answers
    correct = {facts[i]: right for i, right in zip(raw.facts, raw.correct, strict=True)}
    answers = Answers(raw.version, raw.ratio, correct, raw.forward_passes)
    notes = Notes()
    if read.notes is not None:
        answers.sure = {facts[i]: sure for i, sure in zip(read.notes.asked, read.notes.sure, strict=True)}
        told, archived = ({facts[i].key: facts[i] for i in which} for which in (read.notes.told, read.notes.archived))
        notes = Notes(told, archived, read=dict(read.notes.read), **vars(read.notes.counts))
    history = History(stream.rhythm, **vars(read.history))
    state = EpisodeState(learner, inbox, history, answers, notes, **vars(read.counts))
    _require_consistent(state, card, stream)
    return state


def _require_consistent(state: EpisodeState, card: Card, stream: Stream) -> None:
    """Checks what the parts of a state say about each other, so that a forged one is found out before it is played.

    Raises:
        ValueError: They contradict each other, the card or the stream.
    """
    inbox, ledger = state.inbox, state.learner.ledger
    arrived = {arrival.fact.key for tick in stream.arrivals[: state.tick + 1] for arrival in tick}
    for holds, what in (
        (state.tick == len(state.history) <= card.horizon, "a tick that is not the length of the history"),
        (state.edits_used <= stream.rhythm.edit_budget, "more edits than the budget"),
        (len(inbox.pending) <= inbox.size, "an inbox with more facts than it has room for"),
        (inbox.current.keys() <= arrived, "facts that have not arrived yet"),
        (
            inbox.pending.keys() | inbox.written.keys() <= inbox.current.keys(),
            "pending or written facts without arrival",
        ),
        (ledger.keys() <= inbox.written.keys(), "a ledger with facts that were not written"),
        (ledger.capacity == card.budget.capacity >= len(ledger), "a ledger of another size than the card's"),
        (all(entry.stage <= card.sleep.last_stage for entry in ledger.values()), "a stage beyond the last one"),
    ):
        if not holds:
            raise ValueError(what)


def stream_document(stream: Stream, seed: int) -> dict[str, Any]:
    """Returns the seed, the known facts and the checksum of a stream as JSON."""
    known = [list(fact.key) for fact in stream.known]
    return {"stream_seed": seed, "stream_sha256": stream.digest(), "known": known}


def read_stream(document: Mapping[str, Any], card: Card, split: Split) -> Stream:
    """Draws the stream that :func:`stream_document` serialised.

    Args:
        document: JSON from :func:`stream_document`.
        card: Card of the episode.
        split: Split that facts are drawn from.

    Raises:
        CheckpointError: The drawn stream differs, because its source of facts has changed.
    """
    # Taken from the document and not probed again: rounding on another device can flip a margin close to 0.
    known = {(subject, relation) for subject, relation in document["known"]}
    rng = np.random.default_rng(int(document["stream_seed"]))
    stream = draw_stream(card, source_of(card.stream), split, rng, lambda fact: fact.key in known)
    if stream.digest() != document["stream_sha256"]:
        raise CheckpointError(
            "expected the facts that the snapshot was taken with, found that its seed draws others; "
            "use the version of sleepgym, and the file of facts if the card names one, that it was saved with"
        )
    return stream


def _arrivals(stream: Stream) -> list[Arrival]:
    return [arrival for tick in stream.arrivals for arrival in tick]


def _facts(stream: Stream) -> list[Fact]:
    return [*(arrival.fact for arrival in _arrivals(stream)), *stream.known]


def _places(chosen: Iterable[Any], among: Sequence[Any]) -> list[int]:
    """Returns the indices of the chosen items."""
    index = {item: i for i, item in enumerate(among)}
    return [index[item] for item in chosen]
