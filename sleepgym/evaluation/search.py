"""Search for a rule in the sim, where thousands of candidates are played at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sleepgym.schedulers.caretaker import RANGES, Caretaker, decisions
from sleepgym.sim.response import Response
from sleepgym.sim.rollouts import Rollouts
from sleepgym.sim.setting import Setting

_FIRST_SEED = 1_000_000
"""Seed of the first stream; each round plays others."""

_KEPT = 12
"""Candidates that a round passes on."""

_CHANGED = 0.4
"""Share of the thresholds that a candidate of a later round changes."""

_SPREAD = (0.15, 0.7)
"""Standard deviation of a change in the second round, relative to the range, and its factor from round to round."""


@dataclass(frozen=True)
class Found:
    """Rule that a search has found.

    Attributes:
        rule: The rule.
        sim_score: Its simulated score, the mean over streams that did not choose it.
        played: Number of simulated episodes that the search played.
    """

    rule: Caretaker
    sim_score: float
    played: int


def search_rule(
    setting: Setting,
    response: Response,
    rng: np.random.Generator,
    candidates: int = 256,
    rounds: int = 5,
    streams: int = 24,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Searches for the thresholds of a :class:`~sleepgym.schedulers.caretaker.Caretaker` with the best simulated score.

    The first round draws candidates at random; every later one keeps the best and adds such as differ from them in some
    thresholds, by less and less (an evolution strategy; Rechenberg 1973). The last of them are compared on streams of
    their own, and what the winner scores is measured on others again: the best of many noisy means is too good to be
    true.

    Args:
        setting: Numbers of the card.
        response: Stands in for the model.
        rng: Source of the candidates.
        candidates: Number of the first round's; later rounds have half as many.
        rounds: Number of rounds.
        streams: Streams that each is played on; twice as many for the last comparison.
        progress: Called as ``(done, total)`` after each round and comparison.

    Raises:
        ValueError: There are no candidates, rounds or streams.
    """
    if min(candidates, rounds, streams) < 1:
        raise ValueError(f"expected at least one of each, found {candidates=}, {rounds=} and {streams=}")
    low, high = np.array(list(RANGES.values())).T
    pool = low + (high - low) * rng.random((candidates, len(low)))
    pool[0] = list(vars(Caretaker()).values())
    played, best = 0, pool
    for number in range(rounds):
        if number:
            spread = _SPREAD[0] * _SPREAD[1] ** (number - 1)
            parents = best[rng.integers(len(best), size=max(1, candidates // 2))]
            changes = rng.normal(0, spread, parents.shape) * (high - low) * (rng.random(parents.shape) < _CHANGED)
            pool = np.concatenate((best, np.clip(parents + changes, low, high)))
        scores = sim_scores_of(setting, response, pool, _seeds(number, streams))
        played += scores.size
        best = pool[np.argsort(-scores.mean(1), kind="stable")[:_KEPT]]
        progress(number + 1, rounds + 2)
    last = sim_scores_of(setting, response, best, _seeds(rounds, 2 * streams))
    progress(rounds + 1, rounds + 2)
    winner = best[last.mean(1).argmax()]
    measured = sim_scores_of(setting, response, winner[None], _seeds(rounds + 2, 2 * streams))
    progress(rounds + 2, rounds + 2)
    rule = Caretaker(**dict(zip(RANGES, np.round(winner, 3).tolist(), strict=True)))
    return Found(rule, float(measured.mean()), played + last.size + measured.size)


def sim_scores_of(
    setting: Setting, response: Response, thresholds: NDArray[np.float64], seeds: Sequence[int]
) -> NDArray[np.float64]:
    """Returns the simulated scores of caretakers, ``[candidates, seeds]``; all are played at once, on equal streams.

    Args:
        setting: Numbers of the card.
        response: Stands in for the model.
        thresholds: Of each candidate, in the order of :data:`~sleepgym.schedulers.caretaker.RANGES`.
        seeds: Seeds of the episodes.
    """
    count, of_each = len(thresholds), np.repeat(thresholds, len(seeds), 0)
    named: Mapping[str, NDArray[np.float64]] = dict(zip(RANGES, of_each.T, strict=True))
    played = Rollouts.of(setting, response, seeds).branches(np.tile(np.arange(len(seeds)), count))
    while not played.over.all():
        masks = played.masks
        played.step(decisions(named, played.observe(), masks), masks)
    return played.episodes.score.reshape(count, len(seeds))


def _seeds(number: int, streams: int) -> range:
    """Returns seeds that no other round has."""
    first = _FIRST_SEED + 10_000 * number
    return range(first, first + streams)
