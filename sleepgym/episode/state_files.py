"""The state of an episode as JSON, beside a checkpoint of its learner.

Facts are not written twice: they are drawn again from the stream's seed, and named by their place in the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sleepgym.episode.card import Card
from sleepgym.episode.history import History
from sleepgym.episode.inbox import Inbox
from sleepgym.episode.state import Answers, EpisodeState
from sleepgym.episode.stream import Arrival, Stream, draw_stream, source_of
from sleepgym.facts.fact import Fact
from sleepgym.facts.world import Split
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.memory.state import State


def state_document(state: EpisodeState, stream: Stream) -> dict[str, Any]:
    """All of a state but the learner's, as JSON."""
    arrivals, facts = _arrivals(stream), _facts(stream)
    answers = state.answers
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
    }


def read_state(document: Mapping[str, Any], card: Card, stream: Stream, learner: State) -> EpisodeState:
    """The state that :func:`state_document` wrote down.

    Args:
        document: What it returned.
        card: The episode's.
        stream: The episode's.
        learner: What is not in the document.

    Raises:
        KeyError: Something is missing; a forged document can raise anything.
    """
    arrivals, facts = _arrivals(stream), _facts(stream)
    raw = document["inbox"]
    inbox = Inbox(card.budget.pending)
    inbox.current = {arrivals[i].fact.key: arrivals[i] for i in raw["current"]}
    inbox.pending = {arrivals[i].fact.key: arrivals[i] for i in raw["pending"]}
    inbox.written = {facts[i].key: facts[i] for i in raw["written"]}
    inbox.lost = int(raw["lost"])
    raw = document["answers"]
    correct = {facts[i]: bool(yes) for i, yes in zip(raw["facts"], raw["correct"], strict=True)}
    answers = Answers(int(raw["version"]), raw["ratio"], correct, int(raw["forward_passes"]))
    history = History(stream.rhythm, **document["history"])
    return EpisodeState(learner, inbox, history, answers, **document["counts"])


def stream_document(stream: Stream, seed: int) -> dict[str, Any]:
    """What a stream is drawn from, as JSON."""
    known = [list(fact.key) for fact in stream.known]
    return {"stream_seed": seed, "stream_sha256": stream.digest(), "known": known}


def read_stream(document: Mapping[str, Any], card: Card, split: Split) -> Stream:
    """Draws the stream again that :func:`stream_document` wrote down.

    Raises:
        CheckpointError: What is drawn is another stream, because its facts have changed.
    """
    # As noted rather than asked of the model anew: another device might round a very close answer otherwise.
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
    """Where things stand in the stream."""
    place = {thing: i for i, thing in enumerate(among)}
    return [place[thing] for thing in chosen]
