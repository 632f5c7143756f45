"""Evaluations: how many episodes are under way at once changes nothing, and what is no action is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import RecurrentPPO

from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics
from sleepgym.episode.actions import Action
from sleepgym.evaluation import EpisodeResult, evaluate, run_episode
from sleepgym.schedulers import NightOwl, Predictor, RandomScheduler

Make = Callable[..., SleepEnv]


def lived(result: EpisodeResult) -> EpisodeResult:
    """Without the measured time, and without what rounding may change."""
    return replace(result, seconds=0.0, episode_return=0.0, ppl_ratio=1.0, score=round(result.score, 6))


class Scripted:
    """A predictor that answers with what a function makes of the number of rows, and notes what it was given."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer, self.observations = answer, []  # type: ignore[var-annotated]

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[Any, Any]:
        self.observations.append(observation)
        return self.answer(len(episode_start)), state


class Counting:
    """Naps at the third step of every episode, by a count that it keeps in its state: a recurrent policy."""

    def __init__(self) -> None:
        self.counts: list[list[int]] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        count = np.zeros(len(episode_start), dtype=int) if state is None else state
        count = np.where(episode_start, 0, count) + 1
        self.counts.append(count.tolist())
        inject = np.where(action_masks[:, Action.INJECT], Action.INJECT, Action.WAIT)
        return np.where(count % 3 == 0, Action.NAP, inject), count


def waiting(rows: int) -> Any:
    return np.zeros(rows, dtype=np.int64)


# ------------------------------------------------------------- slots and seeds


def test_slots_do_not_change_results(short: Make) -> None:
    seeds = range(4)
    alone = evaluate(short, lambda env, seed: RandomScheduler(seed), seeds, slots=1)
    together = evaluate(short, lambda env, seed: RandomScheduler(seed), seeds, slots=3)
    assert [lived(result) for result in together] == [lived(result) for result in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.episode_return == pytest.approx(other.episode_return, abs=1e-6)
        assert one.ppl_ratio == pytest.approx(other.ppl_ratio, abs=1e-6)
    assert any(result.sleeps for result in alone)
    assert len({result.actions for result in alone}) == len(alone)


def test_results_are_in_the_order_of_the_seeds_and_told_as_they_end(short: Make) -> None:
    told: list[int] = []
    results = evaluate(short, NightOwl(), [9, 2, 5], slots=2, on_episode=lambda result: told.append(result.seed))
    assert [result.seed for result in results] == [9, 2, 5]
    assert sorted(told) == [2, 5, 9]
    # The third begins when one of the first two is over.
    assert told[-1] == 5


def test_a_seed_given_twice_is_played_twice(short: Make) -> None:
    first, second = evaluate(short, NightOwl(), [1, 1], slots=2)
    assert lived(first) == lived(second)


def test_no_seeds_are_no_episodes_and_make_no_environments() -> None:
    def make() -> SleepEnv:
        raise AssertionError("made an environment")

    assert evaluate(make, NightOwl(), []) == []


def test_no_more_environments_than_seeds_and_all_are_closed(short: Make) -> None:
    made: list[Closing] = []

    def make() -> Closing:
        made.append(Closing(short()))
        return made[-1]

    evaluate(make, NightOwl(), [1], slots=16)
    assert [env.closed for env in made] == [True]
    with pytest.raises(ValueError, match="expected 2 actions"):
        evaluate(make, Scripted(lambda rows: np.full(rows, 6)), [1, 2])
    assert [env.closed for env in made] == [True, True, True]


class Closing(gym.Wrapper[Any, Any, Any, Any]):
    closed = False

    def close(self) -> None:
        self.closed = True
        super().close()


# --------------------------------------------------------------------- results


def test_a_result_is_what_the_environment_said_and_its_actions_repeat_it(short: Make) -> None:
    infos: list[Any] = []
    played = short()
    result = run_episode(played, lambda env, seed: RandomScheduler(seed), 3, on_step=infos.append)
    assert len(infos) == len(result.actions)
    env = short()
    env.reset(seed=3)
    total, over = 0.0, False
    for action in result.actions:
        assert not over
        _, reward, terminated, truncated, info = env.step(action)
        total, over = total + reward, terminated or truncated
    assert over
    assert total == result.episode_return
    assert 0 < played.seconds == result.seconds
    assert (result.score, result.recall, result.ppl_ratio) == (info["score"], info["recall"], info["ppl_ratio"])
    assert (result.sleeps, result.naps, result.collapsed) == (info["sleeps"], info["naps"], terminated)
    assert (result.edits_used, result.budget) == (info["edits_used"], env.episode.stream.rhythm.edit_budget)


def test_a_collapse_is_told(short: Make) -> None:
    # A limit below that of the bare model.
    ruined = short(episode={"days": 1, "perplexity_rows": 2, "max_perplexity_ratio": 1.0 + 1e-9})
    result = run_episode(ruined, lambda env, seed: RandomScheduler(seed), 2)
    assert result.collapsed
    assert len(result.actions) < 12


# ---------------------------------------------------------- what is passed along


def test_recurrent_state_is_passed_and_begins_anew_with_each_episode(short: Make) -> None:
    alone, together = Counting(), Counting()
    one = evaluate(short, alone, [1, 2, 3], slots=1)
    two = evaluate(short, together, [1, 2, 3], slots=2)
    assert [lived(result) for result in one] == [lived(result) for result in two]
    # In one slot, the counts of the calls are those of the steps of one episode after the other.
    assert [count for (count,) in alone.counts] == [n + 1 for result in one for n in range(len(result.actions))]
    for result in one:
        naps = [i for i, action in enumerate(result.actions) if action == Action.NAP]
        assert naps == list(range(2, len(result.actions), 3))


def test_a_recurrent_policy_of_sb3_contrib_plays_alike_in_any_number_of_slots(short: Make) -> None:
    policy = RecurrentPPO("MlpLstmPolicy", FlattenLedger(short()), n_steps=8, seed=0, device="cpu")
    # An untrained head hardly looks at the memory; so that it matters, weights are drawn larger.
    policy.policy.action_net.weight.data.normal_()
    results = [evaluate(lambda: FlattenLedger(short()), policy, [1, 2, 3], slots=slots) for slots in (1, 2)]
    assert [lived(result) for result in results[0]] == [lived(result) for result in results[1]]


def test_wrapped_environments_are_seen_as_their_wrapper_shows_them(short: Make) -> None:
    vectors, dictionaries = Scripted(waiting), Scripted(waiting)
    evaluate(lambda: FlattenLedger(short()), vectors, [1, 2])
    evaluate(short, dictionaries, [1, 2])
    rows = short().observation_space["ledger"].shape[0]
    assert vectors.observations[0].shape == (2, rows * len(LEDGER_FEATURES) + len(STATS_FEATURES))
    seen = dictionaries.observations[0]
    assert seen["ledger"].shape == (2, rows, len(LEDGER_FEATURES))
    flat = np.concatenate([seen["ledger"].reshape(2, -1), seen["stats"]], axis=1)
    np.testing.assert_array_equal(vectors.observations[0], flat)


def test_masks_are_those_of_the_environments(short: Make) -> None:
    class Watching(NightOwl):
        def act(self, observation: Any, mask: Any) -> Action:
            np.testing.assert_array_equal(mask, env.action_masks())
            return super().act(observation, mask)

    env = short()
    run_episode(env, Watching(load_at=0.01), 2)


def test_a_maker_makes_one_scheduler_per_episode_from_its_environment(short: Make) -> None:
    made: list[tuple[SleepEnv, int]] = []

    def make(env: SleepEnv, seed: int) -> Predictor:
        assert env.episode.tick == 0
        made.append((env, seed))
        return NightOwl()

    evaluate(lambda: RecordSleepStatistics(short()), make, [4, 5, 6], slots=2)
    assert [seed for _, seed in made] == [4, 5, 6]
    assert all(type(env) is SleepEnv for env, _ in made)


# ----------------------------------------------------------- cards with parameters

PARAMETERS = {"facts": [1, 2, 4], "sleep": [2, 3, 6]}


def test_a_hand_written_scheduler_plays_a_card_with_parameters_as_one_without(short: Make) -> None:
    plain = evaluate(short, NightOwl(load_at=0.01), [1, 3])
    rich = evaluate(lambda: short(parameters=PARAMETERS), NightOwl(load_at=0.01), [1, 3])
    assert [[action[0] for action in result.actions] for result in rich] == [list(r.actions) for r in plain]  # type: ignore[index]
    assert [replace(lived(result), actions=()) for result in rich] == [
        replace(lived(result), actions=()) for result in plain
    ]


def test_a_random_scheduler_draws_operators_where_parameters_follow(short: Make) -> None:
    result = run_episode(short(parameters=PARAMETERS), lambda env, seed: RandomScheduler(seed), 1)
    assert {action[0] for action in result.actions} <= set(map(int, Action))  # type: ignore[index]


def test_a_policy_may_choose_parameters_itself(short: Make) -> None:
    env = short(parameters=PARAMETERS)
    result = run_episode(env, Scripted(lambda rows: np.tile([Action.INJECT, 0, 2], (rows, 1))), 1)
    assert set(result.actions) == {(Action.INJECT, 0, 2)}


# --------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: np.full(rows, 6),
        lambda rows: np.full(rows, -1),
        lambda rows: np.zeros(rows + 1, dtype=int),
        lambda rows: np.zeros(rows - 1, dtype=int),
        lambda rows: np.zeros(rows),
        lambda rows: np.zeros((rows, 3), dtype=int),
        lambda rows: None,
        lambda rows: ["wait"] * rows,
    ],
)
def test_what_is_no_action_is_refused(short: Make, answer: Callable[[int], Any]) -> None:
    with pytest.raises(ValueError, match=r"expected 2 actions in Discrete\(6\) from Scripted, found"):
        evaluate(short, Scripted(answer), [1, 2])


def test_no_parameters_beyond_the_cards_are_accepted(short: Make) -> None:
    with pytest.raises(ValueError, match="MultiDiscrete"):
        run_episode(short(parameters=PARAMETERS), Scripted(lambda rows: np.tile([Action.SLEEP, 0, 3], (rows, 1))), 1)


def test_other_environments_and_changed_actions_are_refused(short: Make) -> None:
    class Shifted(gym.ActionWrapper[Any, Any, Any]):
        def action(self, action: Any) -> Any:
            return action

    with pytest.raises(TypeError, match="expected a SleepEnv, wrapped or not, found CartPoleEnv"):
        evaluate(lambda: gym.make("CartPole-v1"), NightOwl(), [1])
    with pytest.raises(TypeError, match="leave actions alone, found Shifted"):
        evaluate(lambda: Shifted(short()), NightOwl(), [1])


def test_no_slots_are_an_error(short: Make) -> None:
    with pytest.raises(ValueError, match="found slots=0"):
        evaluate(short, NightOwl(), [1], slots=0)
