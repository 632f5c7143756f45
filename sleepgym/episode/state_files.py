"""Serialisation of an episode's state as JSON, without its learner's state.

Facts are not stored: the stream is drawn again from its seed, and facts are referenced by their index in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

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
    arrivals, facts = _arrivals(stream), _facts(stream)
    raw = document["inbox"]
    inbox = Inbox(card.budget.pending)
    inbox.current = {arrivals[i].fact.key: arrivals[i] for i in raw["current"]}
    inbox.pending = {arrivals[i].fact.key: arrivals[i] for i in raw["pending"]}
    inbox.written = {facts[i].key: facts[i] for i in raw["written"]}
    inbox.lost = int(raw["lost"])
    raw = document["answers"]
    correct = {facts[i]: bool(right) for i, right in zip(raw["facts"], raw["correct"], strict=True)}
    answers = Answers(int(raw["version"]), raw["ratio"], correct, int(raw["forward_passes"]))
    history = History(stream.rhythm, **document["history"])
    notes = Notes()
    if card.notes is not None:
        raw = document["notes"]
        answers.sure = {facts[i]: bool(sure) for i, sure in zip(raw["asked"], raw["sure"], strict=True)}
        told, archived = ({facts[i].key: facts[i] for i in raw[name]} for name in ("told", "archived"))
        counts = raw["counts"] | {"answering": NoteAction(raw["counts"]["answering"])}
        read = {int(tokens): float(amount) for tokens, amount in raw["read"]}
        notes = Notes(told, archived, read=read, **counts)
    return EpisodeState(learner, inbox, history, answers, notes, **document["counts"])


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
