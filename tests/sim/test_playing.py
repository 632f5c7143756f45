"""Simulated episodes are those of the sim's environments, whoever plays them, and their scores are called simulated."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleepgym.env.observation import STATS_FEATURES, stat
from sleepgym.env.spaces import ActionError
from sleepgym.episode.actions import Action, NoteAction, Operator
from sleepgym.episode.card import load_card
from sleepgym.episode.stream import draw_stream
from sleepgym.evaluation import sim_scores, simulate, simulated_sheet
from sleepgym.facts import World
from sleepgym.schedulers import (
    AlwaysSleep,
    Caretaker,
    LookAhead,
    NeverSleep,
    NightOwl,
    RandomScheduler,
    SchedulerTypeError,
    SimPlanner,
)
from sleepgym.schedulers.base import first_allowed
from sleepgym.schedulers.sim_planner import _Option
from sleepgym.sim.env import SimEnv
from sleepgym.sim.response import Response
from sleepgym.sim.rollouts import Rollouts
from sleepgym.sim.setting import Setting
from sleepgym.sim.streams import streams_of
from sleepgym.sim.vector import SimVectorEnv
from tests.sim.conftest import NOTES

OWL = NightOwl(load_at=0.05)


@pytest.fixture
def mini() -> Setting:
    return Setting.of(load_card("SleepLLM-Mini-v0"))


def lived(env: SimEnv, seed: int, scheduler: Any) -> tuple[float, list[int], dict[str, Any]]:
    """Return, actions and last info of an episode of the environment."""
    observation, info = env.reset(seed=seed)
    total, actions = 0.0, []
    while not env.over:
        actions.append(int(scheduler.predict(observation, action_masks=env.action_masks())[0]))
        observation, reward, *_, info = env.step(actions[-1])
        total += reward
    return total, actions, info


def test_rollouts_are_the_first_episodes_of_environments_with_these_seeds(mini: Setting, wear: Response) -> None:
    env, seeds = SimEnv("SleepLLM-Mini-v0", wear), [4, 9, 2]
    played, returns, actions = Rollouts.of(mini, wear, seeds), np.zeros(3), [[], [], []]
    while not played.over.all():
        running, masks = np.flatnonzero(~played.over), played.masks
        chosen = OWL.predict(played.observe(), action_masks=masks)[0]
        returns += played.step(chosen, masks).rewards.total
        for row in running:
            actions[row].append(int(chosen[row]))
    for row, seed in enumerate(seeds):
        total, own, info = lived(env, seed, OWL)
        assert (returns[row], actions[row]) == (total, own)
        assert played.episodes.score[row] == info["score"] and played.episodes.recall[row] == info["recall"]


def test_results_say_what_the_last_info_of_the_episode_says(mini: Setting, wear: Response) -> None:
    setting = Setting.of(load_card("SleepLLM-Mini-v0", episode={"max_perplexity_ratio": 1.05}))
    results = simulate(setting, wear, OWL, range(20), draws=2)
    assert [(each.seed, each.draw) for each in results] == [(seed, draw) for seed in range(20) for draw in (0, 1)]
    assert 0 < sum(each.collapsed for each in results) < 40
    envs = Rollouts.of(setting, wear, range(20)).branches(np.repeat(np.arange(20), 2), seed=0)
    for step in range(max(len(each.actions) for each in results)):
        envs.step(np.array([each.actions[step] if step < len(each.actions) else 0 for each in results]))
    assert envs.over.all()
    clock = envs.state.clock
    np.testing.assert_array_equal([each.score for each in results], envs.episodes.score)
    np.testing.assert_array_equal([each.recall for each in results], envs.episodes.recall)
    np.testing.assert_array_equal([each.sleeps for each in results], clock.sleeps)
    np.testing.assert_array_equal([each.edits_used for each in results], clock.edits_used)
    np.testing.assert_array_equal([each.ppl_ratio for each in results], envs.state.mind.ratio)


def test_draws_share_the_stream_and_differ_in_what_the_model_answers(mini: Setting, wear: Response) -> None:
    stream = draw_stream(mini.card, World(), "validation", np.random.default_rng(0))
    results = simulate(mini, wear, OWL, [5, 6], streams_of(mini.card, [stream, stream]), draws=3)
    assert len({each.budget for each in results}) == 1
    assert len({each.score for each in results}) == 6, "each draw, and each seed, has answers of its own"
    assert results == simulate(mini, wear, OWL, [5, 6], streams_of(mini.card, [stream, stream]), draws=3)


@pytest.mark.parametrize("parameters", [None, {"facts": [2, 4], "sleep": [2, 3, 6]}], ids=["discrete", "parameters"])
def test_all_forms_of_schedulers_play_and_random_ones_draw_for_each_episode(parameters: Any, wear: Response) -> None:
    sections = {} if parameters is None else {"parameters": parameters}
    setting = Setting.of(load_card("SleepLLM-Mini-v0", **sections))

    def owl(observation: Any, mask: Any) -> Action:
        return OWL.act(observation, mask)

    def alone(env: Any, seed: int) -> NightOwl:
        return OWL

    wanted = simulate(setting, wear, OWL, [1, 2])
    assert wanted == simulate(setting, wear, owl, [1, 2]) == simulate(setting, wear, alone, [1, 2])
    assert all(isinstance(each.actions[0], int if parameters is None else tuple) for each in wanted)
    assert simulate(setting, wear, NeverSleep, [1])[0].sleeps == 0
    played = simulate(setting, wear, lambda env, seed: RandomScheduler(seed), [1, 2], draws=2)
    assert len({each.actions for each in played}) == 4


def test_forbidden_actions_are_counted_and_what_cannot_play_is_refused(mini: Setting, wear: Response) -> None:
    def stubborn(observation: Any, mask: Any) -> Action:
        return Action.REFRESH

    (result,) = simulate(mini, wear, stubborn, [0])
    assert result.invalid == len(result.actions) == mini.card.horizon
    with pytest.raises(SchedulerTypeError, match=r"found LookAhead, .* take SimPlanner"):
        simulate(mini, wear, lambda env, seed: LookAhead(env, OWL), [0])
    with pytest.raises(ActionError, match="found"):
        simulate(mini, wear, lambda env, seed: Loud(), [0])
    with pytest.raises(ValueError, match="at least one draw"):
        simulate(mini, wear, OWL, [0], draws=0)
    with pytest.raises(ValueError, match="a stream for each of 2 seeds, found 1"):
        simulate(mini, wear, OWL, [0, 1], Rollouts.of(mini, wear, [0]).episodes.streams)


class Loud:
    """Chooses what is no action."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        return np.full(len(observation["stats"]), 17), state


def test_a_recurrent_policy_is_told_when_episodes_begin_and_keeps_a_row_for_each(mini: Setting, wear: Response) -> None:
    class Counts:
        starts: list[bool] = []  # noqa: RUF012

        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
        ) -> Any:
            self.starts.append(bool(episode_start.all()))
            state = np.zeros(len(episode_start), int) if state is None else state + 1
            return state % 2, state

    policy = Counts()
    results = simulate(mini, wear, policy, [0, 1, 2])
    assert policy.starts == [True, *[False] * (len(policy.starts) - 1)]
    assert all(each.actions[:4] == (0, 1, 0, 1) for each in results)


def test_a_policy_of_flat_observations_reads_them_flat(mini: Setting, wear: Response) -> None:
    flat = SimVectorEnv(1, mini.card, wear, flat=True)

    class Flat:
        observation_space = flat.single_observation_space

        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
        ) -> Any:
            assert all(self.observation_space.contains(row) for row in observation)
            full = observation[:, -len(STATS_FEATURES) + list(STATS_FEATURES).index("pending")] > 0
            return np.where(full, Action.INJECT, Action.WAIT), state

    def same(observation: Any, mask: Any) -> Action:
        return Action.INJECT if stat(observation, "pending") > 0 else Action.WAIT

    assert simulate(mini, wear, Flat(), [0, 1]) == simulate(mini, wear, same, [0, 1])


def test_a_simulated_score_is_never_shown_without_that_word(mini: Setting, wear: Response) -> None:
    results = {
        "owl": simulate(mini, wear, OWL, range(3), draws=2),
        "never": simulate(mini, wear, NeverSleep(), range(3)),
    }
    sheet = simulated_sheet(results, np.random.default_rng(0))
    headings = [column.heading for column in sheet.columns]
    assert [heading for heading in headings if "score" in heading] == ["sim score"]
    assert '"sim_score"' in sheet.json() and '"score"' not in sheet.json()
    scores = sim_scores("owl", results["owl"])
    assert scores.name == "owl (sim)" and scores.streams == (0, 1, 2)
    assert scores.scores[0, 0] == np.mean([each.score for each in results["owl"][:2]])


def test_the_examples_of_the_page_run(wear: Response, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs/environments/sim.md").read_text(encoding="utf-8")
    source = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    smaller = {'fit="runs/sim.safetensors"': "fit=wear", "4096": "8", "range(100)": "range(3)", "every=4": "every=30"}
    for usual, small in smaller.items():
        assert usual in source
        source = source.replace(usual, small)
    exec(source, {"wear": wear})
    assert "| sim score |" in capsys.readouterr().out


# ------------------------------------------------------------------- planner


def test_the_planner_beats_its_rule_and_changes_nothing(mini: Setting, wear: Response) -> None:
    rule, seeds = AlwaysSleep(), range(8)
    own = np.mean([each.episode_return for each in simulate(mini, wear, rule, seeds)])
    planned = simulate(mini, wear, SimPlanner(rule, draws=4), seeds)
    assert np.mean([each.episode_return for each in planned]) > own
    assert not any(each.invalid for each in planned)
    assert planned == simulate(mini, wear, SimPlanner(rule, draws=4), seeds)


def test_with_a_single_action_to_try_the_planner_is_its_rule(mini: Setting, wear: Response) -> None:
    wanted = simulate(mini, wear, OWL, range(3))
    assert simulate(mini, wear, SimPlanner(OWL, width=1, draws=1), range(3)) == wanted
    assert simulate(mini, wear, SimPlanner(OWL, every=1000), range(3))[0].actions[1:2] == wanted[0].actions[1:2]


def test_all_actions_are_tried_under_the_same_draws(mini: Setting, wear: Response) -> None:
    planning = SimPlanner(OWL, draws=3).on(sim := Rollouts.of(mini, wear, [0, 1]))
    moment, running = sim.snapshot(), np.arange(2)
    values = planning._values(
        moment, running, [[_Option(Action.WAIT, 0), _Option(Action.WAIT, 0)], [_Option(Action.WAIT, 0)]]
    )
    assert [len(value) for value in values] == [2, 1] and np.array_equal(values[0][0], values[0][1])


def test_a_planner_tries_what_notes_can_do(wear: Response) -> None:
    setting, seeds = Setting.of(load_card("SleepLLM-Mini-v0", notes=NOTES)), range(8)

    def hasty(observation: Any, mask: Any) -> Operator:
        """Notes nothing, and looks everything up."""
        return first_allowed(mask, NoteAction.LOOK_UP_ALWAYS, Action.INJECT)

    own = simulate(setting, wear, hasty, seeds)
    planner = SimPlanner(hasty, width=10, draws=4, caution=0.0)
    planned = simulate(setting, wear, planner, seeds)
    assert not any(each.look_ups for each in own) and all(each.look_ups > 0 for each in planned)
    assert all(NoteAction.NOTE in each.actions and not each.invalid for each in planned)
    assert np.mean([each.score for each in planned]) > np.mean([each.score for each in own])
    without = simulate(setting, wear, replace(planner, without=(NoteAction.NOTE,)), seeds)
    assert not any(NoteAction.NOTE in each.actions for each in without)


def test_branches_are_played_for_so_many_ticks(mini: Setting, wear: Response) -> None:
    sim = Rollouts.of(mini, wear, [0, 1])
    moment, options = sim.snapshot(), [[_Option(Action.WAIT, 0)]] * 2

    def values(ticks: int | None) -> np.ndarray:
        return np.array(SimPlanner(OWL, draws=2, ticks=ticks).on(sim)._values(moment, np.arange(2), options))

    one = sim.branches(np.array([0, 0, 1, 1]), seed=0).step(np.zeros(4, np.int64)).rewards.total
    np.testing.assert_array_equal(values(1).ravel(), one)
    np.testing.assert_array_equal(values(mini.card.horizon), values(None))
    assert (values(1) < values(8)).all() and (values(8) < values(None)).all()


def test_a_planner_does_without_an_action(mini: Setting, wear: Response) -> None:
    seeds = range(3)
    for action in (Action.SLEEP, Action.INJECT):
        played = simulate(mini, wear, SimPlanner(OWL, draws=2, ticks=6, without=(action,)), seeds)
        assert all(action not in episode.actions for episode in played)
        assert all(episode.invalid == 0 for episode in played)
    with pytest.raises(ValueError, match="found WAIT"):
        SimPlanner(OWL, without=(Action.WAIT,))


def test_a_planner_with_more_rules_to_follow_finds_better_ones(mini: Setting, wear: Response) -> None:
    seeds = range(24)
    never = Caretaker(sleep_load=1.0, anyway_load=2.0)
    others = [Caretaker(sleep_load=load) for load in (0.1, 0.2, 0.3, 0.4)]

    def mean(*rules: Caretaker) -> float:
        planner = SimPlanner(never, rules, draws=4, caution=0.0, width=1)
        return float(np.mean([episode.episode_return for episode in simulate(mini, wear, planner, seeds)]))

    assert mean(*others) > mean()


def test_what_a_planner_follows_decides_without_chance(mini: Setting, wear: Response) -> None:
    asked: list[bool] = []

    class Policy:
        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False,
                    action_masks: Any = None) -> tuple[Any, Any]:  # fmt: skip
            asked.append(deterministic)
            return np.zeros(len(action_masks), np.int64), state

    simulate(mini, wear, SimPlanner(Policy(), draws=1, ticks=2), [0])
    assert asked and all(asked)


def test_the_planner_plans_for_a_vector_of_environments_too(wear: Response) -> None:
    envs = SimVectorEnv(2, "SleepLLM-Mini-v0", wear, flat=True)
    planning = SimPlanner(OWL, draws=2).on(envs)
    observation, _ = envs.reset(seed=0)
    before = envs.snapshot().state.mind
    actions, _ = planning.predict(observation, action_masks=envs.action_masks())
    assert envs.action_masks()[np.arange(2), actions].all()
    after = envs.snapshot().state.mind
    assert all(np.array_equal(array, getattr(after, name)) for name, array in vars(before).items())
    with pytest.raises(ValueError, match="expected action_masks, found none"):
        planning.predict(observation)


def test_numbers_and_rules_that_make_no_planner_are_refused() -> None:
    for number in ("width", "draws", "ticks", "every"):
        with pytest.raises(ValueError, match=f"of at least 1, found .*'{number}': 0"):
            SimPlanner(OWL, **{number: 0})
    with pytest.raises(SchedulerTypeError, match="decides by the observation alone"):
        SimPlanner(lambda env, seed: OWL)
