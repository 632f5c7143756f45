"""Score matrices: scores of one scheduler, with a row per training run and a column per stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from sleepgym import files
from sleepgym.errors import SleepGymError
from sleepgym.evaluation.episodes import EpisodeResult
from sleepgym.reading import UnreadableError, read_model


class ScoreError(SleepGymError, ValueError):
    """Scores cannot be read, written, compared or normalised."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    name: str
    streams: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of a scheduler.

    Attributes:
        name: Name of the scheduler.
        streams: Seeds of the episodes, as plain integers.
        scores: Scores ``[runs, streams]``, float64, read-only. A run is a training seed; a hand-written scheduler has
            one.

    Raises:
        ScoreError: Shapes do not match, a stream occurs twice, or a score is not finite.
    """

    name: str
    streams: tuple[int, ...]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float64)
        if scores.ndim != 2 or not scores.size or scores.shape[1] != len(self.streams):
            raise ScoreError(
                f"expected scores of {self.name!r} as [runs, {len(self.streams)} streams] with at least one of each, "
                f"found shape {scores.shape}"
            )
        if len(set(self.streams)) < len(self.streams):
            raise ScoreError(f"expected each stream of {self.name!r} once, found {self.streams}; leave out repetitions")
        if not np.isfinite(scores).all():
            raise ScoreError(f"expected finite scores of {self.name!r}, found {scores[~np.isfinite(scores)][0]}")
        scores.setflags(write=False)
        object.__setattr__(self, "scores", scores)
        # NumPy's integers, as of np.arange, are not JSON-serialisable.
        object.__setattr__(self, "streams", tuple(int(stream) for stream in self.streams))

    @classmethod
    def from_results(cls, name: str, runs: Sequence[Sequence[EpisodeResult]]) -> ScoreMatrix:
        """Collects the scores of evaluated episodes.

        Args:
            name: Name of the scheduler.
            runs: Results of each training run, on the same seeds in the same order.

        Raises:
            ScoreError: Runs differ in seeds, or there are none.
        """
        seeds = [tuple(result.seed for result in run) for run in runs]
        if len(set(seeds)) != 1:
            raise ScoreError(f"expected runs of {name!r} on the same seeds in the same order, found {seeds}")
        return cls(name, seeds[0], np.array([[result.score for result in run] for run in runs]))

    def on(self, streams: Sequence[int]) -> ScoreMatrix:
        """Returns the scores on some of the streams, in the given order.

        Args:
            streams: Seeds of the streams.

        Raises:
            ScoreError: The matrix lacks one of the streams, or ``streams`` is empty.
        """
        if missing := sorted(set(streams) - set(self.streams)):
            raise ScoreError(f"expected scores of {self.name!r} on streams {missing}, found none; play them first")
        columns = [self.streams.index(stream) for stream in streams]
        return ScoreMatrix(self.name, tuple(streams), self.scores[:, columns])

    def normalised(self, low: ScoreMatrix, high: ScoreMatrix) -> ScoreMatrix:
        """Returns normalised scores, on a scale on which one reference is 0 and the other is 1 on average.

        As human-normalised scores for Atari (Mnih et al. 2015, "Human-level control through deep reinforcement
        learning"), but with one unit for all streams::

            (score[run, stream] - low[stream]) / (mean(high) - mean(low))

        The lower reference is subtracted per stream, so that the difficulty of a stream does not add variance. The
        divisor is the mean gain of the upper reference over all streams: that of a single stream can be close to zero
        or negative, and the stream would then dominate the mean.

        Args:
            low: Lower reference (never sleeping), which becomes 0, on every stream if it has one run.
            high: Upper reference (the planner), which becomes 1 on average.

        Raises:
            ScoreError: A reference has other streams, or the upper one does not score above the lower one.
        """
        check_same_streams([self, low, high])
        unit = float(high.scores.mean() - low.scores.mean())
        if unit <= 0:
            raise ScoreError(
                f"expected {high.name!r} to score above {low.name!r}, found means of {high.scores.mean():.4f} and "
                f"{low.scores.mean():.4f}; compare raw scores, or take references that are further apart"
            )
        return ScoreMatrix(self.name, self.streams, (self.scores - low.scores.mean(axis=0)) / unit)

    def save(self, path: str | Path) -> None:
        """Writes JSON atomically, without loss of precision.

        Raises:
            ScoreError: The file cannot be written.
        """
        rows = tuple(tuple(row) for row in self.scores.tolist())
        content = _File(name=self.name, streams=self.streams, scores=rows)
        try:
            files.write_json(Path(path), content)
        except OSError as error:
            raise ScoreError(f"expected to write scores to {path}, found {error}; check the folder") from error

    @classmethod
    def load(cls, path: str | Path, inside: Path | None = None) -> ScoreMatrix:
        """Reads the scores that :meth:`save` wrote.

        Args:
            path: Their file.
            inside: Folder that the file has to lie in, wherever links lead; None for anywhere.

        Raises:
            ScoreError: The file is missing, or has no scores of this format.
        """
        try:
            read = read_model(Path(path), _File, inside=inside)
        except OSError as error:
            raise ScoreError(f"expected scores, found {error}; check the name") from error
        except UnreadableError as error:
            raise ScoreError(
                f"expected scores in {path}, found {error.found}; write the file with ScoreMatrix.save"
            ) from error
        if len({len(row) for row in read.scores}) > 1:
            raise ScoreError(f"expected rows of equal length in {path}, found {[len(row) for row in read.scores]}")
        return cls(read.name, read.streams, np.array(read.scores, dtype=np.float64))


def check_same_streams(matrices: Sequence[ScoreMatrix]) -> None:
    """Checks that matrices have the same streams in the same order, as comparisons require.

    Raises:
        ScoreError: Streams differ, or there are no matrices.
    """
    if not matrices:
        raise ScoreError("expected at least one score matrix, found none")
    first = matrices[0]
    for other in matrices[1:]:
        if other.streams != first.streams:
            raise ScoreError(
                f"expected {other.name!r} on the streams of {first.name!r}, {first.streams}, found {other.streams}; "
                "evaluate both on the same seeds"
            )
