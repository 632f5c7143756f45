"""Reward: a sum of named terms, each a function of a tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.card import Card


@dataclass(frozen=True)
class Tick:
    """Measurements of one tick.

    Attributes:
        traffic: Number of questions, relative to the peak of the day.
        served: Probability that a question was answered correctly.
        perplexity_ratio: Perplexity relative to the bare model.
        invalid: Whether the tick was spent on an invalid action.
    """

    traffic: float
    served: float
    perplexity_ratio: float
    invalid: bool = False


class RewardTerm(Protocol):
    """Term of the reward."""

    @property
    def name(self) -> str:
        """Name of the term; ``info`` has its value under ``reward_`` and this name."""

    def __call__(self, tick: Tick) -> float:
        """Value of the term for a tick."""


@dataclass(frozen=True)
class Served:
    """Reward for questions that are answered correctly."""

    weight: float
    name: str = "served"

    def __call__(self, tick: Tick) -> float:
        """Traffic times the probability of a correct answer."""
        return self.weight * tick.traffic * tick.served


@dataclass(frozen=True)
class Drift:
    """Penalty for a rise of perplexity on held-out text; a fall is not rewarded.

    Attributes:
        weight: Weight of the relative rise.
        limit: Ratio at which the rise is clipped, that at which the episode ends: perplexity can be infinite, but a
            reward must be finite.
        name: In the info, after ``reward_``.
    """

    weight: float
    limit: float
    name: str = "drift"

    def __call__(self, tick: Tick) -> float:
        """Minus the relative rise of perplexity."""
        # Compared so that a NaN ratio is clipped to the limit.
        ratio = tick.perplexity_ratio if tick.perplexity_ratio < self.limit else self.limit
        return -self.weight * max(0.0, ratio - 1.0)


@dataclass(frozen=True)
class Invalid:
    """Penalty for actions that are not allowed or fail."""

    weight: float
    name: str = "invalid"

    def __call__(self, tick: Tick) -> float:
        """Minus the penalty."""
        return -self.weight if tick.invalid else 0.0


@dataclass(frozen=True)
class Reward:
    """Sum of reward terms."""

    terms: tuple[RewardTerm, ...]

    @classmethod
    def of(cls, card: Card) -> Reward:
        """Builds the reward of a card."""
        weights, limit = card.reward, card.episode.max_perplexity_ratio
        return cls((Served(weights.served), Drift(weights.drift, limit), Invalid(weights.invalid)))

    def __call__(self, ticks: Sequence[Tick]) -> dict[str, float]:
        """Returns each term by name, summed over the ticks of an action."""
        return {term.name: sum(term(tick) for tick in ticks) for term in self.terms}


def question_weights(
    popularity: NDArray[np.float64], age: NDArray[np.float64], recency_boost: float, recency_ticks: float
) -> NDArray[np.float64]:
    """Returns the share of the questions that ask each arrived fact; shares sum to 1.

    Args:
        popularity: Popularity of each fact, ``[facts]``.
        age: Ticks since the current version of each fact arrived, ``[facts]``.
        recency_boost: Relative increase of the question rate at age 0.
        recency_ticks: Time constant of the boost's exponential decay, in ticks.
    """
    weights = popularity * (1 + recency_boost * np.exp(-age / recency_ticks))
    return weights / weights.sum()


def served(
    weights: NDArray[np.float64], correct: NDArray[np.bool_], known_correct: NDArray[np.bool_], known_share: float
) -> float:
    """Returns the probability that a question of one tick is answered correctly; 1 if there are no facts.

    Args:
        weights: Share of each arrived fact among the questions about arrived facts, ``[facts]``.
        correct: Whether each of them is answered correctly, ``[facts]``.
        known_correct: Whether each pretrained fact is answered correctly, ``[known facts]``.
        known_share: Share of the questions that ask pretrained facts; ignored if there are no arrived or no pretrained
            facts.
    """
    about_known = np.count_nonzero(known_correct) / max(1, len(known_correct))
    if not len(weights):
        return about_known if len(known_correct) else 1.0
    about_new = min(1.0, float(weights[correct].sum()))  # rounding: the weights need not sum to 1 exactly
    if not len(known_correct):
        return about_new
    return (1 - known_share) * about_new + known_share * about_known
