"""Stable-Baselines3 sees grouped environments exactly as it would see them one by one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.episode.actions import Action
from sleepgym.training.sb3 import SB3VecEnv

MINI = "SleepLLM-Mini-v0"
# Short nights and little text: what is compared does not depend on them.
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2},
    "episode": {"days": 1, "perplexity_rows": 2},
}
FRAGILE = {**QUICK, "episode": {**QUICK["episode"], "max_perplexity_ratio": 1.00001}}


def make(vec_env: type[DummyVecEnv], n: int, flat: bool = False, card: dict[str, Any] = QUICK) -> VecEnv:
    return make_vec_env(
        MINI, n, seed=7, env_kwargs=card, vec_env_cls=vec_env, wrapper_class=FlattenLedger if flat else None
    )


def assert_alike(found: Any, expected: Any) -> None:
    """Equal but for rounding and measured times."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected.keys() - {"episode"}:
            assert_alike(found[key], expected[key])
    else:
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(("flat", "card"), [(False, QUICK), (True, FRAGILE)], ids=["dict", "flat, collapsing"])
def test_every_step_is_that_of_a_dummy_vec_env(flat: bool, card: dict[str, Any]) -> None:
    grouped, plain = make(SB3VecEnv, 2, flat, card), make(DummyVecEnv, 2, flat, card)
    assert grouped.observation_space == plain.observation_space and grouped.action_space == plain.action_space
    rng = np.random.default_rng(0)
    assert_alike(grouped.reset(), plain.reset())
    ends = []
    for _ in range(14):
        masks = get_action_masks(grouped)
        assert np.array_equal(masks, get_action_masks(plain))
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        assert_alike_step(grouped.step(actions), plain.step(actions))
        for info, other in zip(grouped.reset_infos, plain.reset_infos, strict=True):
            assert_alike(info, other)
        ends += [info for info in plain.buf_infos if "terminal_observation" in info]  # type: ignore[attr-defined]
    assert len(ends) >= 2
    collapsed = [not info["TimeLimit.truncated"] for info in ends]
    assert any(collapsed) == (card is FRAGILE)


def assert_alike_step(found: Any, expected: Any) -> None:
    observations, rewards, dones, infos = found
    assert_alike(observations, expected[0])
    assert_alike(rewards, expected[1])
    assert np.array_equal(dones, expected[2])
    assert observations_dtype(observations) == np.float32 and rewards.dtype == np.float32
    for info, other in zip(infos, expected[3], strict=True):
        assert_alike(info, other)
        assert (info["recall"], info["TimeLimit.truncated"]) == (other["recall"], other["TimeLimit.truncated"])


def observations_dtype(observations: Any) -> Any:
    return observations["ledger"].dtype if isinstance(observations, dict) else observations.dtype


def test_masks_and_seeds_are_those_of_the_single_environments() -> None:
    envs = make(SB3VecEnv, 3)
    assert is_masking_supported(envs)
    observations = envs.reset()
    for i in range(3):
        single = gym.make(MINI, **QUICK)
        observation, info = single.reset(seed=7 + i)
        assert np.array_equal(observations["ledger"][i], observation["ledger"])  # type: ignore[call-overload, index]
        assert np.array_equal(envs.env_method("action_masks", indices=[i])[0], info["action_mask"].astype(bool))
        assert np.array_equal(envs.reset_infos[i]["action_mask"], info["action_mask"])


def test_naps_are_taken_in_the_same_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = make(SB3VecEnv, 3)
    envs.reset()
    while not get_action_masks(envs)[:, Action.INJECT].all():
        envs.step(np.full(3, Action.WAIT))
    envs.step(np.full(3, Action.INJECT))
    overlay = type(envs.get_attr("base")[0].overlay)
    used, original = [], overlay.logits

    def count(self: Any, memories: Any, *others: Any) -> Any:
        used.append(memories)
        return original(self, memories, *others)

    monkeypatch.setattr(overlay, "logits", count)
    envs.step(np.full(3, Action.NAP))
    assert [len(memories) for memories in used] == [3], "what was asked after the injections is still true"


def test_attributes_and_wrappers_of_single_environments_are_within_reach() -> None:
    envs = make(SB3VecEnv, 2, flat=True)
    assert envs.env_is_wrapped(Monitor) == envs.env_is_wrapped(FlattenLedger) == [True, True]
    assert envs.get_attr("split") == ["train", "train"]
    envs.set_options({"split": "test"})
    envs.reset()
    assert envs.get_attr("split") == ["test", "test"]


@pytest.mark.parametrize("algorithm", [MaskablePPO, PPO, DQN])
@pytest.mark.parametrize("flat", [True, False])
def test_algorithms_learn_from_it(algorithm: Any, flat: bool) -> None:
    policy = "MlpPolicy" if flat else "MultiInputPolicy"
    single = [lambda: FlattenLedger(gym.make(MINI, **QUICK)) if flat else gym.make(MINI, **QUICK)] * 3
    envs = VecNormalize(VecMonitor(SB3VecEnv(single)))
    numbers = {"n_steps": 8, "batch_size": 24, "n_epochs": 1}
    if algorithm is DQN:
        numbers = {"learning_starts": 12, "train_freq": 8, "buffer_size": 50}
    model = algorithm(policy, envs, seed=0, **numbers).learn(24)
    assert model.num_timesteps == 24
    action, _ = model.predict(envs.reset())
    assert action.shape == (3,)


def test_actions_with_parameters_are_learnt_and_masked() -> None:
    envs = SB3VecEnv([lambda: gym.make("SleepLLM-Param-v0", **QUICK)] * 2)
    assert isinstance(envs.action_space, spaces.MultiDiscrete)
    model = MaskablePPO("MultiInputPolicy", envs, n_steps=4, batch_size=8, n_epochs=1, seed=0).learn(8)
    action, _ = model.predict(envs.reset(), action_masks=get_action_masks(envs))
    assert all(mask[operator] for mask, operator in zip(get_action_masks(envs), action[:, 0], strict=True))


def test_a_bad_action_moves_nobody() -> None:
    envs = make(SB3VecEnv, 2)
    envs.reset()
    with pytest.raises(ValueError, match=r"expected an action in Discrete\(6\), found"):
        envs.step(np.array([Action.WAIT, 6]))
    assert [episode.tick for episode in envs.get_attr("episode")] == [0, 0]


def test_other_environments_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected only SleepEnvs or only FastWeightsEnvs, found .*CartPole"):
        SB3VecEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(TypeError, match="expected only SleepEnvs or only FastWeightsEnvs"):
        SB3VecEnv([lambda: gym.make(MINI), lambda: gym.make(FAST)])


def test_environments_on_two_bases_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected environments on one model .* the same \[model\] and \[edit\]"):
        SB3VecEnv([lambda: gym.make(MINI), lambda: gym.make(MINI, edit={"steps": 5})])


FAST = "FastWeights-v0"


class Reluctant(gym.ActionWrapper[Any, Any, Any]):
    """Makes one pass where two are chosen."""

    def action(self, action: Any) -> Any:
        return min(int(action), 1)


@pytest.mark.parametrize("wrapper", [None, Reluctant])
def test_passes_over_windows_are_shared_too(monkeypatch: pytest.MonkeyPatch, wrapper: Any) -> None:
    arguments: dict[str, Any] = {
        "seed": 7,
        "env_kwargs": {"stream": {"documents": 1, "window_ticks": 6}},
        "wrapper_class": wrapper,
    }
    grouped = make_vec_env(FAST, 3, vec_env_cls=SB3VecEnv, **arguments)
    plain = make_vec_env(FAST, 3, vec_env_cls=DummyVecEnv, **arguments)
    np.testing.assert_allclose(grouped.reset(), plain.reset(), atol=1e-5)
    batches: list[int] = []
    model = type(grouped.get_attr("trained")[0].model)
    step = model.step
    monkeypatch.setattr(model, "step", lambda self, h, state: (batches.append(len(h)), step(self, h, state))[1])
    rng, ended = np.random.default_rng(0), 0
    for _ in range(16):
        masks = get_action_masks(grouped)
        assert np.array_equal(masks, get_action_masks(plain))
        actions = np.array([rng.choice(np.flatnonzero(mask[:3])) for mask in masks])
        (observations, rewards, dones, _), expected = grouped.step(actions), plain.step(actions)
        np.testing.assert_allclose(observations, expected[0], atol=1e-5)
        np.testing.assert_allclose(rewards, expected[1], atol=1e-5)
        assert np.array_equal(dones, expected[2])
        ended += int(dones.sum())
    assert ended and 3 in batches, "three windows were passed over in one batch"
    with pytest.raises(ValueError, match="expected an action in"):
        grouped.step(np.array([0, 9, 0]))
