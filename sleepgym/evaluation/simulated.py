"""Evaluation in the sim: many simulated episodes at once, with the schedulers and policies that play real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from sleepgym.env.observation import Observation
from sleepgym.evaluation.episodes import Decider, takes_masks
from sleepgym.evaluation.scores import ScoreMatrix
from sleepgym.evaluation.summary import means_by_score
from sleepgym.evaluation.tables import Column, Sheet
from sleepgym.schedulers.look_ahead import LookAhead
from sleepgym.schedulers.own import Predictor, SchedulerTypeError, as_scheduler, made
from sleepgym.schedulers.sim_planner import SimPlanner
from sleepgym.sim.observation import flattened
from sleepgym.sim.response import Response
from sleepgym.sim.rollouts import Rollouts
from sleepgym.sim.setting import Setting
from sleepgym.sim.streams import Streams


@dataclass(frozen=True)
class SimResult:
    """Result of a simulated episode; its score is a simulated score, and never to be shown without that word.

    Attributes:
        seed: Seed of the episode.
        draw: Number of the draw of what the model answers, from 0.
        score: Share of all questions that were answered correctly.
        recall: Recall over all arrived facts at the end.
        edits_used: Edits spent.
        budget: Edit budget.
        sleeps: Number of nights.
        naps: Number of naps.
        ppl_ratio: Perplexity at the end relative to the bare model, as on the sample that is measured during episodes.
        episode_return: Undiscounted sum of rewards.
        collapsed: Whether the episode terminated because of perplexity.
        actions: Actions in order.
        invalid: Number of steps that were not allowed.
        look_ups: Share of the questions that were looked up; 0 on a card without notes.
        tokens_read: Tokens that notes added to contexts, per question.
    """

    seed: int
    draw: int
    score: float
    recall: float
    edits_used: int
    budget: int
    sleeps: int
    naps: int
    ppl_ratio: float
    episode_return: float
    collapsed: bool
    actions: tuple[int | tuple[int, ...], ...]
    invalid: int = 0
    look_ups: float = 0.0
    tokens_read: float = 0.0


def simulate(
    setting: Setting,
    response: Response,
    scheduler: Decider | SimPlanner,
    seeds: Sequence[int],
    streams: Streams | None = None,
    draws: int = 1,
) -> list[SimResult]:
    """Plays simulated episodes, all of them at once.

    Args:
        setting: Numbers of the card.
        response: Stands in for the model.
        scheduler: What :func:`~sleepgym.evaluation.evaluate` takes, or a :class:`SimPlanner`; observations are flat for
            a policy whose ``observation_space`` is a box. A factory is called with
            the :class:`Rollouts` in place of an environment, and with a seed of each episode, by which those of one
            stream differ.
        seeds: Seeds of the episodes.
        streams: Streams that they live through, one per seed, such as real ones, so that scores can be compared in
            pairs; None to draw them from the seeds.
        draws: Episodes per seed, on the same stream, each of which draws anew what the model answers.

    Returns:
        Results in the order of the seeds, those of each seed in the order of the draws.

    Raises:
        ValueError: There are no draws, or not as many streams as seeds.
        SchedulerTypeError: The scheduler is none of the supported forms, or plans on a real environment.
        ActionError: The scheduler returned an invalid action.
    """
    if draws < 1:
        raise ValueError(f"expected at least one draw, found {draws=}")
    each = np.repeat(np.arange(len(seeds)), draws)
    played = Rollouts.of(setting, response, seeds, streams).branches(each, seed=0)
    names = [(int(seeds[row]), draw) for row in range(len(seeds)) for draw in range(draws)]
    policy = _policy(scheduler, played, [seed + (draw << 32) for seed, draw in names])
    returns, invalid = np.zeros(len(played)), np.zeros(len(played), int)
    actions: list[list[Any]] = [[] for _ in names]
    while len(running := np.flatnonzero(~played.over)):
        masks = played.masks
        chosen = policy.choose(played.observe(), masks, first=not any(actions))
        done = played.step(chosen, masks)
        returns += done.rewards.total
        invalid += done.invalid
        for row in running.tolist():
            action = chosen[row].tolist()
            actions[row].append(tuple(action) if isinstance(action, list) else action)
    return _results(played, names, returns, invalid, actions)


def simulated_sheet(results: Mapping[str, Sequence[SimResult]], rng: np.random.Generator, title: str = "") -> Sheet:
    """Tabulates schedulers by simulated score, best first, with its 95 % interval over streams; others are means.

    Args:
        results: Results of each scheduler.
        rng: Source of the resamples.
        title: Title of the table.

    Raises:
        ScoreError: A scheduler has no results.
    """
    columns = (
        Column("scheduler", "scheduler"),
        Column("sim_score", "sim score", ".3f"),
        Column("recall", "recall", ".2f"),
        Column("edits_used", "edits", ".0f"),
        Column("nights", "nights", ".1f"),
        Column("naps", "naps", ".1f"),
        Column("drift", "drift", "+.1%"),
        Column("invalid", "invalid", ".1f"),
    )
    fields = ("recall", "edits_used", "sleeps", "naps", "ppl_ratio", "invalid")
    entries = ((name, sim_scores(name, episodes), episodes) for name, episodes in results.items())
    return Sheet(title, columns, means_by_score(entries, fields, rng))


def sim_scores(name: str, episodes: Sequence[SimResult], field: str = "score") -> ScoreMatrix:
    """Returns simulated scores by stream, each the mean over its draws.

    Args:
        name: Name of the scheduler.
        episodes: Results on every stream.
        field: Another number of results to take instead of the score.

    Raises:
        ScoreError: There are no results.
    """
    by_seed: dict[int, list[float]] = {}
    for episode in episodes:
        by_seed.setdefault(episode.seed, []).append(float(getattr(episode, field)))
    return ScoreMatrix(f"{name} (sim)", tuple(by_seed), np.array([[np.mean(of) for of in by_seed.values()]]))


class _Policy:
    """Predictor with its recurrent state.

    Args:
        predictor: The predictor.
        played: The episodes, whose actions it chooses.
    """

    def __init__(self, predictor: Predictor, played: Rollouts) -> None:
        self._predictor, self._played = predictor, played
        self._state: Any = None
        self._takes_masks = takes_masks(predictor)
        self._is_flat = isinstance(getattr(predictor, "observation_space", None), gym.spaces.Box)

    def choose(self, seen: Observation, masks: NDArray[np.bool_], first: bool) -> NDArray[Any]:
        """Chooses an action per row.

        Args:
            seen: Observations.
            masks: Allowed operators.
            first: Whether episodes begin.
        """
        answer, self._state = self._predictor.predict(
            flattened(seen) if self._is_flat else seen,
            self._state,
            episode_start=np.full(len(masks), first),
            deterministic=True,
            **({"action_masks": self._played.tables.flat_masks(masks)} if self._takes_masks else {}),
        )
        return np.asarray(self._played.completed(np.asarray(answer)))


class _Rules:
    """Rules that were made for one episode each.

    Args:
        rules: A rule per episode.
        played: The episodes.
    """

    def __init__(self, rules: Sequence[Predictor], played: Rollouts) -> None:
        if any(isinstance(rule, LookAhead) for rule in rules):
            raise SchedulerTypeError(
                "expected a scheduler that decides by observations, found LookAhead, which forks a real environment; "
                "take SimPlanner"
            )
        self._rules = [_Policy(rule, played) for rule in rules]
        self._played = played

    def choose(self, seen: Observation, masks: NDArray[np.bool_], first: bool) -> NDArray[Any]:
        """See :meth:`_Policy.choose`; episodes that have ended WAIT."""
        chosen = np.zeros((len(masks), *(self._played.tables.space.shape or ())), np.int64)
        for row in np.flatnonzero(~self._played.over).tolist():
            own = {name: part[row : row + 1] for name, part in seen.items()}
            chosen[row] = self._rules[row].choose(own, masks[row : row + 1], first)[0]
        return chosen


def _policy(scheduler: Decider | SimPlanner, played: Rollouts, seeds: Sequence[int]) -> _Policy | _Rules:
    plays = scheduler.on(played) if isinstance(scheduler, SimPlanner) else as_scheduler(scheduler)
    if isinstance(plays, Predictor):
        return _Policy(plays, played)
    # Makers take an environment; those that need a real one are refused.
    return _Rules([made(plays, played, seed) for seed in seeds], played)  # type: ignore[arg-type]


def _results(
    played: Rollouts,
    names: Sequence[tuple[int, int]],
    returns: NDArray[np.float64],
    invalid: NDArray[np.integer],
    actions: Sequence[Sequence[Any]],
) -> list[SimResult]:
    episodes, clock = played.episodes, played.state.clock
    score, recall, collapsed = episodes.score, episodes.recall, episodes.collapsed
    notes, asked = played.state.notes, np.maximum(clock.asked, 1e-12)
    return [
        SimResult(
            seed=seed,
            draw=draw,
            score=float(score[row]),
            recall=float(recall[row]),
            edits_used=int(clock.edits_used[row]),
            budget=int(episodes.streams.edit_budget[row]),
            sleeps=int(clock.sleeps[row]),
            naps=int(clock.naps[row]),
            ppl_ratio=float(played.state.mind.ratio[row]),
            episode_return=float(returns[row]),
            collapsed=bool(collapsed[row]),
            actions=tuple(actions[row]),
            invalid=int(invalid[row]),
            look_ups=float(notes.looked_up[row] / asked[row]),
            tokens_read=float(notes.tokens_read[row] / asked[row]),
        )
        for row, (seed, draw) in enumerate(names)
    ]
