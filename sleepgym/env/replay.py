"""Plays a recorded episode again and says whether the same comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import sleepgym
from sleepgym.env.actions import Action
from sleepgym.env.card import CardError, differences, load_card
from sleepgym.env.recording import Recording, RecordingError
from sleepgym.env.registration import card_paths
from sleepgym.env.sleep_env import SleepEnv

TOLERANCE = 1e-6
"""Other machines add up in another order: rewards that differ by less are the same."""


@dataclass(frozen=True)
class Replay:
    """What came of it.

    Attributes:
        steps: Actions that were performed again.
        score: After the last of them.
        largest_error: Largest difference of a reward or of the score from what was recorded.
        difference: Where it first differs by more than the tolerance; empty if it does not.
        notes: What else is not as it was when the episode was recorded: the card of that name, the model.
    """

    steps: int
    score: float
    largest_error: float
    difference: str
    notes: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether it came out as recorded, within the tolerance."""
        return not self.difference


def replay(recording: Recording, tolerance: float = TOLERANCE) -> Replay:
    """Performs the recorded actions in a new environment with the recorded card, up to the first difference.

    Args:
        recording: What to play.
        tolerance: By how much a reward or the score may differ.

    Raises:
        RecordingError: The recorded random state is none.
        ModelLoadError: The card's model cannot be loaded.
    """
    env = SleepEnv(recording.card, recording.split)
    notes = _notes(recording, env.base.lm.fingerprint)
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
        return Replay(steps, float(env.episode.score), largest, difference, notes)

    for step, (action, expected) in enumerate(zip(recording.actions, recording.rewards, strict=True)):
        if env.over:
            return outcome(step, f"step {step}: expected {Action(action).name}, found that the episode has ended")
        where = f"step {step} ({Action(action).name} at tick {env.episode.tick})"
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
        said, is_so = ("an episode that has ended", "one that has not")[:: 1 if recording.ended else -1]
        return outcome(steps, f"the end: expected {said}, found {is_so}")
    return outcome(steps)


def _gap(expected: float, found: float) -> float:
    """Difference of two numbers, either of which may be infinite or none."""
    if expected == found or (math.isnan(expected) and math.isnan(found)):
        return 0.0
    gap = abs(expected - found)
    return math.inf if math.isnan(gap) else gap


def _notes(recording: Recording, fingerprint: str) -> tuple[str, ...]:
    notes = []
    if recording.fingerprint != fingerprint:
        notes.append(
            f"model {recording.card.model.name!r}: expected fingerprint {recording.fingerprint[:12]}, "
            f"found {fingerprint[:12]}; it was recorded with other weights"
        )
    if recording.card_id in card_paths():
        try:
            found = differences(recording.card, load_card(recording.card_id, **recording.overrides))
        except CardError as error:
            found = [str(error)]
        if found:
            notes.append(f"card {recording.card_id} is another now ({'; '.join(found)}); played with the recorded one")
    else:
        notes.append(f"card {recording.card_id!r} is not one of this package; played with the recorded one")
    if recording.sleepgym != sleepgym.__version__:
        notes.append(f"recorded with sleepgym {recording.sleepgym}, played with {sleepgym.__version__}")
    return tuple(notes)
