"""Snapshots in a folder: a checkpoint of the learner, with the episode in its notes.

Facts are not written twice: they are drawn again from the stream's seed, and named by their place in the stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sleepgym import checkpoint
from sleepgym.checkpoint import CheckpointError
from sleepgym.env.card import parse_card
from sleepgym.env.episode import Counts, Paused
from sleepgym.env.examiner import Answers
from sleepgym.env.history import History
from sleepgym.env.inbox import Inbox
from sleepgym.env.snapshot import ModelId, Randomness, Snapshot
from sleepgym.env.stream import Arrival, Stream, draw_stream, source_of
from sleepgym.facts.fact import Fact
from sleepgym.facts.world import SPLITS
from sleepgym.lm.language_model import LanguageModel
from sleepgym.state import State

FORMAT = 2
_EPISODE = "episode"


def save(folder: Path, snapshot: Snapshot) -> None:
    """Writes a snapshot; see :meth:`Snapshot.save`."""
    paused, randomness = snapshot.paused, snapshot.randomness
    arrivals, facts = _arrivals(snapshot.stream), _facts(snapshot.stream)
    document = {
        "format": FORMAT,
        "card": snapshot.card.model_dump(mode="json"),
        "split": snapshot.split,
        "stream_seed": randomness.stream,
        "stream_sha256": snapshot.stream.digest(),
        "known": [list(fact.key) for fact in snapshot.stream.known],
        "rng": randomness.generator.bit_generator.state,
        "rng_seed": randomness.seed,
        "counts": asdict(paused.counts),
        "inbox": {
            "current": _places(paused.inbox.current.values(), arrivals),
            "pending": _places(paused.inbox.pending.values(), arrivals),
            "written": _places(paused.inbox.written.values(), facts),
            "lost": paused.inbox.lost,
        },
        "history": paused.history.columns(),
        "answers": {
            "version": paused.answers.version,
            "ratio": paused.answers.ratio,
            "facts": _places(paused.answers.correct, facts),
            "correct": list(paused.answers.correct.values()),
            "forward_passes": paused.answers.forward_passes,
        },
        "over": snapshot.over,
        "seconds": snapshot.seconds,
    }
    checkpoint.save(folder, paused.state, snapshot.model, {_EPISODE: document})


def load(folder: Path, lm: LanguageModel) -> Snapshot:
    """Reads a snapshot; see :meth:`Snapshot.load`."""
    state, notes = checkpoint.load_with_notes(folder, lm)
    document = notes.get(_EPISODE)
    if document is None:
        raise CheckpointError(
            f"expected an episode in {folder}, found a learner alone; load it with SleepingLM.load, or choose the "
            "folder of a snapshot"
        )
    found = document.get("format") if isinstance(document, dict) else type(document).__name__
    if found != FORMAT:
        raise CheckpointError(
            f"expected snapshot format {FORMAT} in {folder}, found {found}; "
            "load it with the version of sleepgym that saved it"
        )
    try:
        return _snapshot(folder, document, state, lm)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a forged file does to the parsers
        raise CheckpointError(
            f"expected a well-formed episode in {folder}, found {type(error).__name__}: {error}; use another copy"
        ) from error


def _snapshot(folder: Path, document: dict[str, Any], state: State, lm: LanguageModel) -> Snapshot:
    card, split = parse_card(document["card"], "card of the snapshot"), SPLITS[SPLITS.index(document["split"])]
    seed = int(document["stream_seed"])
    # As noted rather than asked of the model anew: another device might round a very close answer otherwise.
    known = {(subject, relation) for subject, relation in document["known"]}
    rng = np.random.default_rng(seed)
    stream = draw_stream(card, source_of(card.stream), split, rng, lambda fact: fact.key in known)
    if stream.digest() != document["stream_sha256"]:
        raise CheckpointError(
            f"expected the facts that the snapshot in {folder} was taken with, found that its seed draws others; "
            "use the version of sleepgym, and the file of facts if the card names one, that it was saved with"
        )
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
    history, counts = History(stream.rhythm, **document["history"]), Counts(**document["counts"])
    generator = np.random.default_rng()
    generator.bit_generator.state = document["rng"]
    return Snapshot(
        card=card,
        model=ModelId.of(lm),
        split=split,
        stream=stream,
        paused=Paused(state, inbox, history, answers, counts),
        randomness=Randomness(generator, int(document["rng_seed"]), seed),
        over=bool(document["over"]),
        seconds=float(document["seconds"]),
    )


def _arrivals(stream: Stream) -> list[Arrival]:
    return [arrival for tick in stream.arrivals for arrival in tick]


def _facts(stream: Stream) -> list[Fact]:
    return [*(arrival.fact for arrival in _arrivals(stream)), *stream.known]


def _places(chosen: Iterable[Any], among: Sequence[Any]) -> list[int]:
    """Where things stand in the stream."""
    place = {thing: i for i, thing in enumerate(among)}
    return [place[thing] for thing in chosen]
