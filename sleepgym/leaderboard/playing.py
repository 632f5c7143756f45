"""Leaderboard evaluation: fixed test streams, entries played on them, and their table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
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
from sleepgym.training.policy_card import PolicyCard

SPLIT: Split = "test"
"""Split that facts are drawn from; its subjects occur in no other split."""

FIRST_SEED = 10_000_000
"""Seed of the first test stream. What a seed determines besides subjects, such as the start of the night, is the same
on every split; so test seeds are far from those of training, tuning and validation."""


def frozen_seeds(streams: int) -> range:
    """Returns the seeds of the first ``streams`` test streams, which are the same for all entries.

    Raises:
        ValueError: ``streams`` is below 1.
    """
    if streams < 1:
        raise ValueError(f"expected at least one stream, found {streams}")
    return range(FIRST_SEED, FIRST_SEED + streams)


def make_test_env(env_id: str) -> SleepEnv:
    """Makes a test environment: an id of this package, without overrides, on the test split.

    Raises:
        ValueError: The id is unknown.
        ModelLoadError: The model cannot be loaded.
    """
    if env_id not in card_paths():
        raise ValueError(f"expected an id of this package, found {env_id!r}; known are {', '.join(card_paths())}")
    return SleepEnv(env_id, SPLIT)


@dataclass(frozen=True)
class Played:
    """Results and recordings of an entry on test streams.

    Attributes:
        name: Name of the player.
        policy: SHA-256 of the policy file; empty for a hand-written scheduler.
        rule: Text form of a hand-written scheduler with all fields; empty for a policy.
        results: Result of each stream, in order.
        recordings: Recording of each stream, in order.
        seconds: Wall time of all episodes, of scheduler and environment, in seconds.
        card: Policy card; None for a hand-written scheduler or a policy without a card.
    """

    name: str
    policy: str
    rule: str
    results: tuple[EpisodeResult, ...]
    recordings: tuple[Recording, ...]
    seconds: float
    card: PolicyCard | None = None

    @property
    def scores(self) -> ScoreMatrix:
        """Scores of the entry, as a matrix with one run."""
        return ScoreMatrix.from_results(self.name, [self.results])


def play(
    player: Player,
    env_id: str,
    seeds: Sequence[int],
    slots: int = 16,
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
) -> Played:
    """Evaluates a player on test streams of an environment and records the episodes.

    Args:
        player: Scheduler or policy to evaluate.
        env_id: Id of the environment.
        seeds: Seeds of the streams, out of :func:`frozen_seeds`.
        slots: Maximum number of parallel episodes.
        on_episode: Called with each result when its episode ends.

    Raises:
        ValueError: The id is unknown, ``slots`` is below 1, or the player returned an invalid action.
        ModelLoadError: The model cannot be loaded.
    """
    recorders: list[Recorder] = []
    recordings: dict[int, Recording] = {}

    def make() -> gym.Env[Any, Any]:
        recorders.append(Recorder(make_test_env(env_id)))
        return player.wrap(recorders[-1])

    def keep(result: EpisodeResult) -> None:
        # Runs before the next episode resets this slot's recorder.
        recordings[result.seed] = next(r.recording for r in recorders if r.np_random_seed == result.seed)
        on_episode(result)

    start = time.perf_counter()
    results = evaluate(make, player.scheduler, seeds, slots, keep)
    seconds = time.perf_counter() - start
    played = tuple(recordings[seed] for seed in seeds)
    return Played(player.name, player.policy, player.rule, tuple(results), played, seconds, player.card)


def joined(parts: Sequence[Played]) -> Played:
    """Concatenates the parts of one entry on consecutive lots of streams.

    Args:
        parts: At least one, of the same player.
    """
    results = tuple(result for part in parts for result in part.results)
    recordings = tuple(recording for part in parts for recording in part.recordings)
    first = parts[0]
    seconds = sum(part.seconds for part in parts)
    return Played(first.name, first.policy, first.rule, results, recordings, seconds, first.card)


def leaderboard_sheet(played: Sequence[Played], rng: np.random.Generator, title: str = "") -> Sheet:
    """Tabulates entries by mean score, best first, with its 95 % interval over streams; other columns are means.

    Args:
        played: Entries on the same streams.
        rng: Source of the resamples, which are the same for all entries: an interval does not depend on the others.
        title: Title of the table.
    """
    columns = (
        Column("scheduler", "scheduler"),
        Column("score", "score", ".3f"),
        Column("edits_used", "edits", ".1f"),
        Column("nights", "nights", ".1f"),
        Column("drift", "drift", "+.1%"),
        Column("invalid", "invalid", ".1f"),
        Column("seconds", "s per episode", ".1f"),
        Column("policy", "policy"),
        Column("model", "model"),
    )
    rows = []
    for entry in played:
        score = stratified_bootstrap(statistics.mean, entry.scores, rng=deepcopy(rng))
        edits, nights, ratio, invalid = (
            float(np.mean([getattr(result, field) for result in entry.results]))
            for field in ("edits_used", "sleeps", "ppl_ratio", "invalid")
        )
        hashes = entry.policy[:12], entry.recordings[0].fingerprint[:12]
        seconds = entry.seconds / len(entry.results)
        rows.append((score, (entry.name, score, edits, nights, ratio - 1, invalid, seconds, *hashes)))
    return Sheet(title, columns, [row for _, row in sorted(rows, key=lambda pair: -pair[0].point)])
