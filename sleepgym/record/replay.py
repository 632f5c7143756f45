"""Replay of recorded episodes, and comparison with the recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sleepgym._version import __version__
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import operator_of
from sleepgym.episode.card import CardError, differences, load_card
from sleepgym.files import card_paths
from sleepgym.record.recording import Recording, RecordingError

TOLERANCE = 1e-6
"""Default tolerance of rewards and scores, for rounding that differs between machines."""


@dataclass(frozen=True)
class Replay:
    """Result of a replay.

    Attributes:
        steps: Number of actions replayed.
        score: Score after the last of them.
        largest_error: Maximum absolute difference of a reward or the score from the recording.
        difference: First difference above the tolerance; empty if there is none.
        note: Caveat if the card is not one of this package and could not be checked; empty otherwise.
    """

    steps: int
    score: float
    largest_error: float
    difference: str
    note: str

    @property
    def agrees(self) -> bool:
        """Whether the replay equals the recording within the tolerance."""
        return not self.difference


def replay(recording: Recording, tolerance: float = TOLERANCE) -> Replay:
    """Performs the recorded actions in a new environment with the recorded card, up to the first difference.

    Args:
        recording: Recording to replay.
        tolerance: Maximum difference of a reward or the score.

    Raises:
        RecordingError: The recording is of another version, another card of that id or another model, and cannot be
            verified; or its random state is malformed.
        ModelLoadError: The card's model cannot be loaded.
    """
    _require_version(recording)
    note = _require_card(recording)
    env = SleepEnv(recording.card, recording.split)
    _require_model(recording, env.base.lm.fingerprint)
    if recording.rng is not None:
        try:
            env.np_random.bit_generator.state = recording.rng
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RecordingError(
                f"expected the state of a random generator, found a mistake in rng: {type(error).__name__}: {error}"
            ) from error
    env.reset(seed=recording.seed)
    largest = 0.0

    def outcome(steps: int, difference: str = "") -> Replay:
        return Replay(steps, float(env.episode.score), largest, difference, note)

    for step, (action, expected) in enumerate(zip(recording.actions, recording.rewards, strict=True)):
        if env.over:
            return outcome(step, f"step {step}: expected {operator_of(action).name}, found that the episode has ended")
        where = f"step {step} ({operator_of(action).name} at tick {env.episode.tick})"
        _, reward, *_ = env.step(action)
        gap = _gap(expected, float(reward))
        largest = max(largest, gap)
        if gap > tolerance:
            return outcome(step + 1, f"{where}: expected a reward of {expected!r}, found {float(reward)!r}")
    steps, score = len(recording.actions), float(env.episode.score)
    gap = _gap(recording.score, score)
    largest = max(largest, gap)
    if gap > tolerance:
        return outcome(steps, f"the end: expected a score of {recording.score!r}, found {score!r}")
    if env.over != recording.ended:
        expected_end, found_end = ("an episode that has ended", "one that has not")[:: 1 if recording.ended else -1]
        return outcome(steps, f"the end: expected {expected_end}, found {found_end}")
    return outcome(steps)


def _gap(expected: float, found: float) -> float:
    """Returns the absolute difference of two numbers; equal infinities or two NaNs differ by 0, one NaN by infinity."""
    if expected == found or (math.isnan(expected) and math.isnan(found)):
        return 0.0
    gap = abs(expected - found)
    return math.inf if math.isnan(gap) else gap


def _require_version(recording: Recording) -> None:
    if recording.sleepgym != __version__:
        raise RecordingError(
            f"expected a recording of sleepgym {__version__}, found one of {recording.sleepgym}; "
            "play it with the version that it was made with"
        )


def _require_card(recording: Recording) -> str:
    """Checks that a card with an id of this package is unchanged.

    Returns:
        A note if the card has another id; empty otherwise.

    Raises:
        RecordingError: The card differs from that of this package with the same id.
    """
    if recording.card_id not in card_paths():
        return f"card {recording.card_id!r} is not one of this package; played with the recorded one"
    try:
        found = differences(recording.card, load_card(recording.card_id, **recording.overrides))
    except CardError as error:
        found = [str(error)]
    if found:
        raise RecordingError(
            f"expected a recording with card {recording.card_id} as it is here, found one with another "
            f"({'; '.join(found)}); play it with the version of sleepgym that has the recorded card"
        )
    return ""


def _require_model(recording: Recording, fingerprint: str) -> None:
    if recording.fingerprint != fingerprint:
        raise RecordingError(
            f"expected model {recording.card.model.name!r} with fingerprint {recording.fingerprint[:12]}, as in the "
            f"recording, found {fingerprint[:12]}; play it with the weights that it was recorded with"
        )
