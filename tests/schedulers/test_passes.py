"""Schedulers of passes do what they are named after, and the planner is no worse than its rules."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sleepgym.env.fastweights.card import FastWeightsCard, load_fast_card
from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.fastweights.features import FEATURES
from sleepgym.fastweights import FastWeightModel, ModelSpec, Rule110, Trained, save_model
from sleepgym.schedulers.passes import FixedPasses, PassScheduler, Rollouts, UntilSettled, WhileWrong

OPEN = np.ones(4, bool)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> FastWeightsCard:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    task = Rule110(cells=5, deepest=2, queries=4)
    save_model(path, Trained(FastWeightModel(ModelSpec(task.vocabulary, 10, 8, 1, 1), seed=3), task))
    return load_fast_card("FastWeights-v0", model={"file": str(path)}, stream={"documents": 2, "window_ticks": 8})


def observation(**values: float) -> NDArray[np.float32]:
    return np.array([values.get(name, 0.0) for name in FEATURES], np.float32)


def play(env: FastWeightsEnv, scheduler: PassScheduler, seed: int) -> float:
    seen, info = env.reset(seed=seed)
    over, total = False, 0.0
    while not over:
        action, _ = scheduler.predict(seen, action_masks=info["action_mask"])
        assert info["action_mask"][action]
        seen, reward, _, over, info = env.step(action)
        total += reward
    return total


@pytest.mark.parametrize("passes", [0, 1, 2, 3, 4])
def test_fixed_passes_are_made_over_every_window_at_once(card: FastWeightsCard, passes: int) -> None:
    env = FastWeightsEnv(card)
    play(env, FixedPasses(passes, card.passes), 0)
    assert env.life.slept == passes * 4
    for window in range(4):
        ticks = env.life.now.ticks[window * 8 : window * 8 + 8]
        assert [tick.offline for tick in ticks] == [True] * passes + [False] * (8 - passes)


def test_a_pass_follows_the_other_until_the_state_settles(card: FastWeightsCard) -> None:
    rule = UntilSettled(0.3, card.passes)
    assert rule.act(observation(), OPEN) == 1
    assert rule.act(observation(passes=0.25, change=0.5), OPEN) == 1
    assert rule.act(observation(passes=0.25, change=0.2), OPEN) == 0
    assert rule.act(observation(passes=1, change=0.5), np.array([True, False, False, False])) == 0


def test_passes_are_made_while_answers_are_wrong_and_wait_for_quiet(card: FastWeightsCard) -> None:
    rule, patient = WhileWrong(0.2, card.passes), WhileWrong(0.2, card.passes, patience=0.3)
    wrong = {"passes": 0.25, "loss": 0.9, "left": 0.8}
    assert rule.act(observation(loss=0.0), OPEN) == 1
    assert rule.act(observation(**wrong, traffic=1.0), OPEN) == 1
    assert rule.act(observation(**(wrong | {"loss": 0.1})), OPEN) == 0
    assert patient.act(observation(**wrong, traffic=1.0), OPEN) == 0
    assert patient.act(observation(**wrong, traffic=0.1), OPEN) == 1
    assert patient.act(observation(**(wrong | {"left": 0.25}), traffic=1.0), OPEN) == 1
    assert patient.act(observation(loss=0.9, left=1.0, traffic=1.0), OPEN) == 1


def test_passes_end_where_they_do_not_help_and_where_nothing_is_asked(card: FastWeightsCard) -> None:
    rule = WhileWrong(0.2, card.passes, most=2, unasked=2, hopeless=0.8)
    last = {"window": 1.0}
    assert rule.act(observation(loss=1.0), OPEN) == 2  # both at once, since nobody asks
    assert rule.act(observation(loss=1.0, passes=0.5), OPEN) == 0
    assert rule.act(observation(**last, loss=1.0), OPEN) == 1
    assert rule.act(observation(**last, loss=0.5, passes=0.25), OPEN) == 1
    assert rule.act(observation(**last, loss=0.9, passes=0.25), OPEN) == 0
    assert rule.act(observation(**last, loss=0.5, passes=0.5), OPEN) == 0


@pytest.mark.slow
def test_the_planner_is_no_worse_than_the_rules_it_goes_on_by(card: FastWeightsCard) -> None:
    env = FastWeightsEnv(card)
    rules = [FixedPasses(passes, card.passes) for passes in card.passes.choices]
    for seed in range(3):
        planned = play(env, Rollouts(env, rules), seed)
        assert planned >= max(play(env, rule, seed) for rule in rules) - 1e-9


def test_batches_are_decided_row_by_row_and_a_mask_is_needed(card: FastWeightsCard) -> None:
    rows = np.stack([observation(), observation(passes=0.5), observation(passes=1)])
    chosen, _ = FixedPasses(4, card.passes).predict(rows, action_masks=np.ones((3, 4)))
    assert chosen.tolist() == [3, 2, 0]
    with pytest.raises(ValueError, match="expected action_masks, found None"):
        FixedPasses(4, card.passes).predict(rows)
