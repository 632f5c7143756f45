"""Runs schedulers on seeds and says how sure the numbers are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from rich import box
from rich.table import Table


class Predictor(Protocol):
    """A scheduler of this package or a Stable-Baselines3 model."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        """Action and state."""


@dataclass(frozen=True)
class EpisodeResult:
    """How an episode went.

    Attributes:
        seed: Its seed.
        score: Share of all questions that were answered correctly.
        recall: True recall over all arrived facts at the end.
        edits: Edits spent.
        budget: Edits that were allowed.
        sleeps: Nights.
        naps: Naps.
        ppl_ratio: Perplexity at the end relative to the bare model.
        seconds: Measured time of the environment.
        episode_return: Undiscounted sum of rewards.
        collapsed: Whether the model was damaged beyond the limit.
    """

    seed: int
    score: float
    recall: float
    edits: int
    budget: int
    sleeps: int
    naps: int
    ppl_ratio: float
    seconds: float
    episode_return: float
    collapsed: bool


@dataclass(frozen=True)
class Estimate:
    """A mean with a percentile-bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def run_episode(
    env: gym.Env[Any, Any],
    scheduler: Predictor,
    seed: int,
    on_step: Callable[[Mapping[str, Any]], None] = lambda info: None,
) -> EpisodeResult:
    """Plays one episode to its end.

    Args:
        env: A SleepEnv, wrapped or not.
        scheduler: What decides. It is given the mask if it takes one.
        seed: Seed of the episode.
        on_step: Called with the info of every step.
    """
    observation, info = env.reset(seed=seed)
    state, total, terminated, truncated = None, 0.0, False, False
    # Plain SB3 models know no masks; sb3-contrib's and this package's do.
    takes_mask = "action_masks" in scheduler.predict.__code__.co_varnames
    while not (terminated or truncated):
        arguments = {"action_masks": info["action_mask"].astype(bool)} if takes_mask else {}
        action, state = scheduler.predict(observation, state, deterministic=True, **arguments)
        observation, reward, terminated, truncated, info = env.step(int(action))
        total += float(reward)
        on_step(info)
    return EpisodeResult(
        seed=seed,
        score=info["score"],
        recall=info["recall"],
        edits=info["edits_used"],
        budget=info["edits_used"] + info["edits_left"],
        sleeps=info["sleeps"],
        naps=info["naps"],
        ppl_ratio=info["ppl_ratio"],
        seconds=info["seconds"],
        episode_return=total,
        collapsed=terminated,
    )


def evaluate(
    env: gym.Env[Any, Any],
    scheduler: Predictor,
    seeds: Sequence[int],
    on_episode: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """Plays one episode per seed; the same seeds make schedulers comparable."""
    results = []
    for seed in seeds:
        results.append(run_episode(env, scheduler, seed))
        on_episode(results[-1])
    return results


def estimate(
    values: Sequence[float], rng: np.random.Generator, resamples: int = 10_000, confidence: float = 0.95
) -> Estimate:
    """Mean of values with a percentile-bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Args:
        values: One per episode.
        rng: Draws the resamples.
        resamples: Number of resamples.
        confidence: Coverage.

    Raises:
        ValueError: There are no values.
    """
    if not len(values):
        raise ValueError("expected at least one value to estimate a mean from, found none")
    data = np.asarray(values, dtype=float)
    means = data[rng.integers(len(data), size=(resamples, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(data.mean()), float(low), float(high))


def table(results: Mapping[str, Sequence[EpisodeResult]], rng: np.random.Generator, title: str = "") -> Table:
    """Schedulers by score, the best first, with its 95 % interval over episodes; the rest are means."""
    # Narrow enough for a terminal of 80 columns.
    out = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    out.add_column("scheduler", no_wrap=True)
    for name in ("score", "recall", "edits", "nights", "naps", "drift", "s"):
        out.add_column(name, justify="right", no_wrap=True)

    def mean(episodes: Sequence[EpisodeResult], name: str) -> float:
        return float(np.mean([getattr(episode, name) for episode in episodes]))

    for scheduler, episodes in sorted(results.items(), key=lambda item: -mean(item[1], "score")):
        out.add_row(
            scheduler,
            str(estimate([episode.score for episode in episodes], rng)),
            f"{mean(episodes, 'recall'):.2f}",
            f"{mean(episodes, 'edits'):.0f}/{mean(episodes, 'budget'):.0f}",
            f"{mean(episodes, 'sleeps'):.1f}",
            f"{mean(episodes, 'naps'):.1f}",
            f"{mean(episodes, 'ppl_ratio') - 1:+.1%}",
            f"{mean(episodes, 'seconds'):.1f}",
        )
    return out
