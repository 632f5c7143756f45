"""A moment of a FastWeights environment: to go back to, to branch from, or on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, NonNegativeInt

from sleepgym.env.fastweights.card import FastWeightsCard
from sleepgym.env.fastweights.life import Life, Moment
from sleepgym.env.fastweights.stream import Stream, draw_stream
from sleepgym.errors import SleepGymError
from sleepgym.facts.world import Split
from sleepgym.fastweights import Trained
from sleepgym.files import write_json
from sleepgym.reading import UnreadableError, found_in, read_model

FORMAT = 1
"""Version of the file."""


class FastSnapshotError(SleepGymError, ValueError):
    """A file holds no snapshot, or one of another model."""


class _File(BaseModel):
    format: int
    card: FastWeightsCard
    split: Split
    origin: dict[str, Any]
    generator: dict[str, Any]
    actions: tuple[NonNegativeInt, ...]
    score: float
    norm: float


@dataclass(frozen=True)
class Snapshot:
    """A moment of an environment.

    Attributes:
        card: Its card.
        stream: What happens in the episode.
        origin: State of the generator before the stream was drawn.
        moment: All that changes in the episode.
        generator: Source of the episodes that follow.
        split: Split of the documents.
    """

    card: FastWeightsCard
    stream: Stream
    origin: Mapping[str, Any]
    moment: Moment
    generator: np.random.Generator
    split: Split

    def save(self, path: str | Path) -> None:
        """Writes the snapshot as JSON, all or nothing: where the stream comes from, and what was done in it.

        Raises:
            OSError: It cannot be written.
        """
        file = _File(
            format=FORMAT,
            card=self.card,
            split=self.split,
            origin=dict(self.origin),
            generator=dict(self.generator.bit_generator.state),
            actions=self.moment.actions,
            score=self.moment.score,
            norm=float(self.moment.digested.state.norm()),
        )
        write_json(Path(path), file)

    @classmethod
    def load(cls, path: str | Path, card: FastWeightsCard, trained: Trained) -> Snapshot:
        """Reads what :meth:`save` wrote: draws the stream again, and does in it what was done.

        Args:
            path: File.
            card: Card of the environment, ``env.unwrapped.card``.
            trained: Its model, ``env.unwrapped.trained``.

        Raises:
            FastSnapshotError: The file is missing, damaged, or of another card or model.
        """
        try:
            file = read_model(Path(path), _File)
            if file.format != FORMAT or file.card != card:
                what = "card" if file.format == FORMAT else "format"
                raise FastSnapshotError(f"{path}: expected a snapshot with this {what}, found one with another {what}")
            origin, generator = _generator(file.origin), _generator(file.generator)
        except (OSError, UnreadableError, ValueError, TypeError, KeyError, OverflowError) as error:
            if isinstance(error, FastSnapshotError):
                raise
            raise FastSnapshotError(
                f"{path}: expected a snapshot of a FastWeights environment, found {found_in(error)}; use another copy"
            ) from error
        life = Life(card, trained.model, draw_stream(card, trained.task, file.split, origin))
        for action in file.actions:
            if life.over or action >= len(card.passes.choices):
                raise FastSnapshotError(f"{path}: expected actions of one episode, found others; use another copy")
            life.step(action)
        # Vectors make passes together, which may round otherwise than one by one.
        if not np.allclose([life.score, float(life.now.digested.state.norm())], [file.score, file.norm], atol=1e-3):
            raise FastSnapshotError(
                f"{path}: expected a snapshot of this model, found one in which another one answers; "
                "load the model that it was taken with"
            )
        return cls(card, life.stream, file.origin, life.now, generator, file.split)


def _generator(state: Mapping[str, Any]) -> np.random.Generator:
    generator = np.random.default_rng()
    generator.bit_generator.state = dict(state)
    return generator
