"""Submissions to the leaderboard: scores, with the recordings that verify them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from sleepgym import files
from sleepgym.episode.card import differences, load_card
from sleepgym.evaluation.episodes import EpisodeResult
from sleepgym.evaluation.scores import ScoreError, ScoreMatrix
from sleepgym.files import card_paths
from sleepgym.leaderboard.players import Player
from sleepgym.leaderboard.playing import SPLIT, Played, frozen_seeds
from sleepgym.reading import UnreadableError, read_model
from sleepgym.record.recording import Recording, RecordingError
from sleepgym.record.replay import replay
from sleepgym.training.policy_card import PolicyCard, PolicyError

TOLERANCE = 1e-4
"""Tolerance of rewards and scores, larger than that of other replays: rounding differs between machines and numbers of
slots and grows over nights, and differences of this size do not affect ranks."""

SCORES, RECORDINGS, EPISODES, POLICY = "scores.json", "recordings", "episodes.json", "policy.json"


class _Episodes(BaseModel):
    """Further columns of an entry in the table, which verification does not use."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    format: Literal[1] = 1
    policy: str
    rule: str = ""
    seconds: float
    episodes: tuple[EpisodeResult, ...]


@dataclass(frozen=True)
class Submission:
    """Scores and recordings of an entry.

    Attributes:
        scores: Scores, a matrix with one run.
        recordings: Recording of each stream, in order.
        card: Policy card, which says how a policy was trained; None for a hand-written scheduler, or without a card.
    """

    scores: ScoreMatrix
    recordings: tuple[Recording, ...]
    card: PolicyCard | None = None

    def save(self, folder: Path) -> None:
        """Writes ``scores.json``, ``policy.json`` if there is a card, and ``recordings/SEED.json`` for every stream.

        Raises:
            ScoreError: The scores cannot be written.
            RecordingError: A recording cannot be written.
            OSError: The card cannot be written.
        """
        if self.card is None:
            (folder / POLICY).unlink(missing_ok=True)  # of an entry that was here before
        else:
            files.write_json(folder / POLICY, self.card)
        for stream, recording in zip(self.scores.streams, self.recordings, strict=True):
            recording.save(folder / RECORDINGS / f"{stream}.json")
        self.scores.save(folder / SCORES)

    @classmethod
    def load(cls, folder: Path) -> Submission:
        """Reads a submission that :meth:`save` wrote.

        Raises:
            ScoreError: The scores cannot be read.
            RecordingError: A recording is missing, cannot be read, or is a link that leads out of the folder.
            PolicyError: There is a card that cannot be read, or is a link that leads out of the folder.
        """
        scores = ScoreMatrix.load(folder / SCORES, folder)
        paths = (folder / RECORDINGS / f"{stream}.json" for stream in scores.streams)
        card = PolicyCard.read(folder / POLICY, folder) if (folder / POLICY).exists() else None
        return cls(scores, tuple(Recording.load(path, folder) for path in paths), card)

    def mistakes(self, tolerance: float = TOLERANCE) -> Iterator[str]:
        """Yields the formal mistakes of the submission, without replaying it.

        All streams must be present, each recorded to its end on the test split of one environment of this package
        without overrides, and each recorded score must equal the claimed one.

        Args:
            tolerance: Maximum difference between a claimed and a recorded score.
        """
        scores, streams = self.scores.scores, self.scores.streams
        if len(scores) != 1 or streams != tuple(frozen_seeds(len(streams))):
            yield f"expected one run on the streams from {frozen_seeds(1)[0]} on, found {len(scores)} on {streams}"
        models = sorted({recording.fingerprint[:12] for recording in self.recordings})
        if len(models) != 1:
            yield f"expected recordings with one model, found {models}"
        ids = sorted({recording.card_id for recording in self.recordings})
        if len(ids) != 1 or ids[0] not in card_paths():
            yield f"expected recordings of one environment of this package, found {ids}"
            return
        card = load_card(ids[0])
        for stream, claimed, recording in zip(streams, scores[0].tolist(), self.recordings, strict=True):
            recorded = recording.seed, recording.split, recording.overrides, recording.ended
            if recorded != (stream, SPLIT, {}, True):
                yield (
                    f"stream {stream}: expected a whole episode of that seed on split {SPLIT!r} with nothing replaced, "
                    f"found seed {recording.seed}, split {recording.split!r}, replaced {recording.overrides}, "
                    f"{'ended' if recording.ended else 'not ended'}"
                )
            if found := differences(card, recording.card):
                yield f"stream {stream}: expected the card of {ids[0]} as it is here, found {'; '.join(found)}"
            # Negated comparison, so that a NaN score is a mistake.
            if not abs(claimed - recording.score) <= tolerance:
                yield f"stream {stream}: expected the claimed score of {claimed!r}, found {recording.score!r} recorded"

    def replayed(self, count: int, rng: np.random.Generator, tolerance: float = TOLERANCE) -> Iterator[tuple[int, str]]:
        """Replays a random sample of the recordings.

        Args:
            count: Number of recordings to replay, at most all.
            rng: Source of the sample.
            tolerance: Maximum difference of a reward or the score.

        Yields:
            Stream and first difference; the latter is empty if the replay agrees.

        Raises:
            RecordingError: A recording is of another version, card or model, and cannot be verified.
            ModelLoadError: The model cannot be loaded.
        """
        chosen = rng.permutation(len(self.recordings))[:count]
        for at in sorted(chosen.tolist()):
            stream = self.scores.streams[at]
            try:
                played = replay(self.recordings[at], tolerance)
            except RecordingError as error:
                raise RecordingError(f"stream {stream}: {error}") from error
            yield stream, played.difference


def keep(played: Played, folder: Path) -> None:
    """Writes an entry: its submission, and a file with the further columns of the table.

    Raises:
        OSError: The file with the columns, or the policy card, cannot be written.
        ScoreError: The scores cannot be written.
        RecordingError: A recording cannot be written.
    """
    Submission(played.scores, played.recordings, played.card).save(folder)
    content = _Episodes(policy=played.policy, rule=played.rule, seconds=played.seconds, episodes=played.results)
    files.write_json(folder / EPISODES, content)


def kept(folder: Path, player: Player, env_id: str, streams: int) -> Played | None:
    """Reads an entry that :func:`keep` wrote, if it is still valid.

    Args:
        folder: Folder of the entry.
        player: Player that would be evaluated.
        env_id: Id of the environment.
        streams: Number of test streams; an entry may hold the first of them only.

    Returns:
        The entry on these streams, or on those of them that it has played; None if it is missing, or of another policy,
        rule, environment or card.
    """
    try:
        submission = Submission.load(folder)
        found = read_model(folder / EPISODES, _Episodes, inside=folder)
    except (OSError, ScoreError, RecordingError, PolicyError, UnreadableError):
        return None
    ids = {recording.card_id for recording in submission.recordings}
    seeds = tuple(episode.seed for episode in found.episodes)
    if (submission.scores.name, found.policy, found.rule, ids) != (player.name, player.policy, player.rule, {env_id}):
        return None
    # Scores are written first: there may be more of them if writing was interrupted.
    if not seeds or seeds != submission.scores.streams[: len(seeds)] or any(submission.mistakes()):
        return None
    episodes = found.episodes[:streams]
    recordings = submission.recordings[: len(episodes)]
    seconds = found.seconds * len(episodes) / len(seeds)
    return Played(player.name, player.policy, player.rule, episodes, recordings, seconds, player.card)


def folder_name(name: str) -> str:
    """Converts an entry's name into a portable folder name: other characters become dashes."""
    return re.sub(r"[^\w.,=-]+", "-", name).strip("-.") or "entry"
