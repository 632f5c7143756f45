"""What is compared on a leaderboard: entries, the streams that all of them play, and the sheet that shows them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation import statistics
from sleepgym.evaluation.bootstrap import stratified_bootstrap
from sleepgym.evaluation.episodes import EpisodeResult, evaluate
from sleepgym.evaluation.scores import ScoreMatrix
from sleepgym.evaluation.tables import Column, Sheet
from sleepgym.facts.world import Split
from sleepgym.files import card_paths
from sleepgym.leaderboard.players import Player
from sleepgym.record.recording import Recorder, Recording

SPLIT: Split = "test"
"""Whose facts are taught: subjects that occur in no other split."""

FIRST_SEED = 10_000_000
"""Of the streams. What else a seed decides, such as when the night falls, is the same on every split: these seeds are
far from those that training, tuning and validation take."""


def frozen_seeds(streams: int) -> range:
    """Seeds of the first so many test streams; fixed, so that every entry meets the same episodes.

    Raises:
        ValueError: There are none.
    """
    if streams < 1:
        raise ValueError(f"expected at least one stream, found {streams}")
    return range(FIRST_SEED, FIRST_SEED + streams)


def make_test_env(env_id: str) -> SleepEnv:
    """The environment that entries play: an id of this package, nothing replaced in its card.

    Raises:
        ValueError: There is no such id.
        ModelLoadError: Its model cannot be loaded.
    """
    if env_id not in card_paths():
        raise ValueError(f"expected an id of this package, found {env_id!r}; known are {', '.join(card_paths())}")
    return SleepEnv(env_id, SPLIT)


@dataclass(frozen=True)
class Played:
    """How an entry did, stream by stream.

    Attributes:
        name: Who played.
        policy: SHA-256 of its file; empty for a hand-written scheduler.
        rule: A hand-written scheduler with all of its numbers; empty for a policy.
        results: One per stream, in order.
        recordings: Of the same episodes.
        seconds: Measured time of all of them, in which the scheduler thought and the environment acted.
    """

    name: str
    policy: str
    rule: str
    results: tuple[EpisodeResult, ...]
    recordings: tuple[Recording, ...]
    seconds: float

    @property
    def scores(self) -> ScoreMatrix:
        """One run."""
        return ScoreMatrix.from_results(self.name, [self.results])


def play(
    player: Player,
    env_id: str,
    seeds: Sequence[int],
    slots: int = 16,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
) -> Played:
    """Plays test streams and records them of an environment.

    Args:
        player: Who plays.
        env_id: Where.
        seeds: Of the streams, some or all of :func:`frozen_seeds`.
        slots: Most episodes at once.
        on_episode: Called with each result as its episode ends.

    Raises:
        ValueError: There is no such id, no slot, or what the player answers is no action.
        ModelLoadError: The model cannot be loaded.
    """
    recorders: list[Recorder] = []
    recordings: dict[int, Recording] = {}

    def make() -> gym.Env[Any, Any]:
        recorders.append(Recorder(make_test_env(env_id)))
        return player.wrap(recorders[-1])

    def keep(result: EpisodeResult) -> None:
        # Called before the next episode takes the slot.
        recordings[result.seed] = next(r.recording for r in recorders if r.np_random_seed == result.seed)
        on_episode(result)

    start = time.perf_counter()
    results = evaluate(make, player.scheduler, seeds, slots, keep)
    seconds = time.perf_counter() - start
    played = tuple(recordings[seed] for seed in seeds)
    return Played(player.name, player.policy, player.rule, tuple(results), played, seconds)


def joined(parts: Sequence[Played]) -> Played:
    """What an entry did on several lots of streams, as one; the lots follow each other."""
    results = tuple(result for part in parts for result in part.results)
    recordings = tuple(recording for part in parts for recording in part.recordings)
    one = parts[0]
    return Played(one.name, one.policy, one.rule, results, recordings, sum(part.seconds for part in parts))


def leaderboard_sheet(played: Sequence[Played], rng: np.random.Generator, title: str = "") -> Sheet:
    """Entries by mean score, the best first, with its 95 % interval over streams; the rest are means.

    Args:
        played: On the same streams.
        rng: Draws the resamples.
        title: Of the table.
    """
    columns = (
        Column("scheduler", "scheduler"),
        Column("score", "score", ".3f"),
        Column("edits_used", "edits", ".1f"),
        Column("nights", "nights", ".1f"),
        Column("drift", "drift", "+.1%"),
        Column("seconds", "s per episode", ".1f"),
        Column("policy", "policy"),
        Column("model", "model"),
    )
    rows = []
    for one in played:
        score = stratified_bootstrap(statistics.mean, one.scores, rng=rng)
        edits, nights, ratio = (
            float(np.mean([getattr(result, field) for result in one.results]))
            for field in ("edits_used", "sleeps", "ppl_ratio")
        )
        hashes = one.policy[:12], one.recordings[0].fingerprint[:12]
        rows.append((score, (one.name, score, edits, nights, ratio - 1, one.seconds / len(one.results), *hashes)))
    return Sheet(title, columns, [row for _, row in sorted(rows, key=lambda pair: -pair[0].point)])
