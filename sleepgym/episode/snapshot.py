"""Snapshots: the full state of an environment, to restore, branch, pickle or save."""

from __future__ import annotations

import reprlib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sleepgym.editing.base import Base
from sleepgym.episode.card import Card, differences, parse_card
from sleepgym.episode.episode import Episode
from sleepgym.episode.held_out import HeldOut
from sleepgym.episode.state import EpisodeState
from sleepgym.episode.state_files import read_state, read_stream, state_document, stream_document
from sleepgym.episode.stream import Stream
from sleepgym.errors import SleepGymError
from sleepgym.facts.world import SPLITS, Split
from sleepgym.lm.language_model import LanguageModel
from sleepgym.memory import checkpoint
from sleepgym.memory.checkpoint import CheckpointError
from sleepgym.memory.state import State
from sleepgym.reading import found_in
from sleepgym.sleeper import SleepingLM

FORMAT = 2
"""Format version of the episode in a saved snapshot."""
_EPISODE = "episode"


class SnapshotError(SleepGymError, ValueError):
    """A snapshot does not fit an environment; the environment is unchanged."""


@dataclass(frozen=True)
class ModelId:
    """Identity of a model, without the model.

    Attributes:
        name: Name of the model, for error messages.
        fingerprint: Hash of the model.
    """

    name: str
    fingerprint: str

    @classmethod
    def of(cls, lm: LanguageModel) -> ModelId:
        """Returns the identity of a loaded model."""
        return cls(lm.name, lm.fingerprint)


@dataclass(frozen=True)
class Randomness:
    """Random state of an environment.

    Attributes:
        generator: Generator of the seeds of later episodes.
        seed: Seed of the generator; -1 if unknown.
        stream: Seed of the current episode's stream.
    """

    generator: np.random.Generator
    seed: int
    stream: int


@dataclass(frozen=True)
class Snapshot:
    """Full state of an environment without its model; made by :meth:`SleepEnv.snapshot`.

    A snapshot can be restored any number of times. It can be pickled for another process that has loaded the model
    itself (unpickle only what you pickled yourself), and :meth:`save` writes files without executable content.

    Attributes:
        card: Card of the environment.
        model: Identity of the model.
        split: Split that facts are drawn from.
        stream: Stream of the episode; immutable, and so shared.
        state: State of the episode.
        randomness: Random state of the environment; that of the learner is in its state.
        over: Whether the episode has ended.
        seconds: Measured time of the episode so far, in seconds.
    """

    card: Card
    model: ModelId
    split: Split
    stream: Stream
    state: EpisodeState
    randomness: Randomness
    over: bool
    seconds: float

    def episode(self, base: Base, card: Card, held_out: HeldOut) -> Episode:
        """Restores the episode.

        Args:
            base: Base of the environment.
            card: Card of the environment.
            held_out: See :class:`~sleepgym.episode.episode.Episode`.

        Raises:
            SnapshotError: The card or the model differs from that of the snapshot.
        """
        self._require_fit(base.lm, card)
        learner = SleepingLM(base, card.sleep, card.budget.capacity, known=self.stream.known)
        episode = Episode(card, self.stream, learner, held_out)
        episode.resume(self.state)
        learner.state.memory = learner.state.memory.placed(base.lm)
        return episode

    def generator(self) -> np.random.Generator:
        """Returns an independent copy of the generator of later episodes' seeds."""
        return deepcopy(self.randomness.generator)

    def _require_fit(self, lm: LanguageModel, card: Card) -> None:
        found = differences(card, self.card)
        if found:
            raise SnapshotError(
                f"expected a snapshot of this environment's card, found one of another ({'; '.join(found)}); "
                "restore it in SleepEnv(snapshot.card)"
            )
        if self.model.fingerprint != lm.fingerprint:
            raise SnapshotError(
                f"expected a snapshot of {lm.name!r} ({lm.fingerprint[:12]}), found one of {self.model.name!r} "
                f"({self.model.fingerprint[:12]}); load the model it was taken with"
            )

    def save(self, folder: str | Path) -> None:
        """Writes safetensors and JSON atomically. The folder is a checkpoint of the learner as well.

        Raises:
            CheckpointError: The folder cannot be written; an earlier checkpoint in it is unchanged.
        """
        randomness = self.randomness
        document = {
            "format": FORMAT,
            "card": self.card.model_dump(mode="json"),
            "split": self.split,
            **stream_document(self.stream, randomness.stream),
            "rng": randomness.generator.bit_generator.state,
            "rng_seed": randomness.seed,
            **state_document(self.state, self.stream),
            "over": self.over,
            "seconds": self.seconds,
        }
        checkpoint.save(Path(folder), self.state.learner, self.model, {_EPISODE: document})

    @classmethod
    def load(cls, folder: str | Path, lm: LanguageModel) -> Snapshot:
        """Reads a snapshot that :meth:`save` wrote.

        Args:
            folder: Folder of the snapshot.
            lm: Model that it was taken with, such as ``env.unwrapped.base.lm``.

        Raises:
            CheckpointError: The files are missing, damaged, of another model or of a learner without an episode; or the
                stream cannot be reproduced, because its source of facts has changed.
        """
        learner, notes = checkpoint.load_with_notes(Path(folder), lm)
        document = notes.get(_EPISODE)
        if document is None:
            raise CheckpointError(
                f"expected an episode in {folder}, found a learner alone; load it with SleepingLM.load, or choose the "
                "folder of a snapshot"
            )
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        if found != FORMAT:
            raise CheckpointError(
                f"expected snapshot format {FORMAT} in {folder}, found {reprlib.repr(found)}; "
                "load it with the version of sleepgym that saved it"
            )
        try:
            return cls._read(document, learner, lm)
        except CheckpointError:
            raise
        except Exception as error:  # a forged file can make the parsers raise anything
            raise CheckpointError(
                f"expected a well-formed episode in {folder}, found {found_in(error)}; use another copy"
            ) from error

    @classmethod
    def _read(cls, document: dict[str, Any], learner: State, lm: LanguageModel) -> Snapshot:
        card, split = parse_card(document["card"], "card of the snapshot"), SPLITS[SPLITS.index(document["split"])]
        stream = read_stream(document, card, split)
        generator = np.random.default_rng()
        generator.bit_generator.state = document["rng"]
        return cls(
            card=card,
            model=ModelId.of(lm),
            split=split,
            stream=stream,
            state=read_state(document, card, stream, learner),
            randomness=Randomness(generator, int(document["rng_seed"]), int(document["stream_seed"])),
            over=bool(document["over"]),
            seconds=float(document["seconds"]),
        )
