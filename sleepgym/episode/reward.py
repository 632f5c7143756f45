"""The reward: named terms that add up, each a function of what happened in one tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sleepgym.episode.card import Card


@dataclass(frozen=True)
class Tick:
    """What one tick brought.

    Attributes:
        traffic: Questions, relative to the peak of the day.
        served: Probability that a question was answered correctly.
        perplexity_ratio: Perplexity relative to the bare model.
        invalid: Whether the tick was spent on an invalid action.
    """

    traffic: float
    served: float
    perplexity_ratio: float
    invalid: bool = False


class RewardTerm(Protocol):
    """One part of the reward."""

    @property
    def name(self) -> str:
        """Its key in ``info["reward_terms"]``."""

    def __call__(self, tick: Tick) -> float:
        """What the tick is worth."""


@dataclass(frozen=True)
class Served:
    """Questions answered correctly."""

    weight: float
    name: str = "served"

    def __call__(self, tick: Tick) -> float:
        """Traffic times the probability of a correct answer."""
        return self.weight * tick.traffic * tick.served


@dataclass(frozen=True)
class Drift:
    """Damage to everything else the model says. Text that got easier is no merit.

    Attributes:
        weight: Of the relative rise.
        limit: Ratio from which on the rise counts no further: that at which the episode ends. A ruined model's
            perplexity can be infinite, a reward must not be.
    """

    weight: float
    limit: float
    name: str = "drift"

    def __call__(self, tick: Tick) -> float:
        """Minus the relative rise of perplexity."""
        # "Not below the limit": a ratio that is no number is damage too.
        ratio = tick.perplexity_ratio if tick.perplexity_ratio < self.limit else self.limit
        return -self.weight * max(0.0, ratio - 1.0)


@dataclass(frozen=True)
class Invalid:
    """A price on actions that the mask forbids."""

    weight: float
    name: str = "invalid"

    def __call__(self, tick: Tick) -> float:
        """Minus the penalty."""
        return -self.weight if tick.invalid else 0.0


@dataclass(frozen=True)
class Reward:
    """A sum of terms."""

    terms: tuple[RewardTerm, ...]

    @classmethod
    def of(cls, card: Card) -> Reward:
        """The reward of a card."""
        weights, limit = card.reward, card.episode.max_perplexity_ratio
        return cls((Served(weights.served), Drift(weights.drift, limit), Invalid(weights.invalid)))

    def __call__(self, ticks: Sequence[Tick]) -> dict[str, float]:
        """Each term summed over the ticks of an action."""
        return {term.name: sum(term(tick) for tick in ticks) for term in self.terms}


def question_weights(
    popularity: NDArray[np.float64], age: NDArray[np.float64], recency_boost: float, recency_ticks: float
) -> NDArray[np.float64]:
    """Share of the questions that go to each arrived fact; they sum to 1.

    Args:
        popularity: Of each fact.
        age: Ticks since its present version arrived.
        recency_boost: How many times more often a fact is asked at age 0, beyond once.
        recency_ticks: Time after which the boost has fallen by 1/e.
    """
    weights = popularity * (1 + recency_boost * np.exp(-age / recency_ticks))
    return weights / weights.sum()


def served(
    weights: NDArray[np.float64], correct: NDArray[np.bool_], known_correct: NDArray[np.bool_], known_share: float
) -> float:
    """Probability that a question of one tick is answered correctly.

    Args:
        weights: Share of each arrived fact among the questions about arrived facts.
        correct: Whether each of them is answered correctly.
        known_correct: Whether each sampled pretrained fact is.
        known_share: Share of the questions that ask pretrained facts. A kind of fact of which there are
            none gets no questions.
    """
    if not len(weights):
        return float(known_correct.mean()) if len(known_correct) else 1.0
    about_new = min(1.0, float(weights[correct].sum()))  # rounding: the weights need not sum to 1 exactly
    if not len(known_correct):
        return about_new
    return (1 - known_share) * about_new + known_share * float(known_correct.mean())
