"""Arguments and actions that are none are refused with the usual words and the usual errors."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.spaces import ActionError, ActionTypeError
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.card import CardError, UnknownArgumentError, load_card
from sleepgym.errors import SleepGymError

MINI = "SleepLLM-Mini-v0"


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: gym.make(MINI, **given),
        lambda **given: gym.make("sleepgym:SleepLLM-Mini-Flat-v0", **given),
        lambda **given: gym.make_vec(MINI, num_envs=2, **given),
        lambda **given: SleepEnv(load_card(MINI), **given),
        lambda **given: SleepVectorEnv(2, card=MINI, **given),
        lambda **given: load_card(MINI, **given),
    ],
)
@pytest.mark.parametrize("given", [{"frameskip": 1}, {"frameskip": {"steps": 3}}, {"frameskip": None, "seed": 3}])
def test_an_unknown_argument_is_a_type_error_with_pythons_words(make: Any, given: dict[str, Any]) -> None:
    """Libraries that try arguments out, as TorchRL's GymEnv does, go by the type and these words."""
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'frameskip'") as caught:
        make(**given)
    assert isinstance(caught.value, UnknownArgumentError | CardError)
    assert isinstance(caught.value, CardError) and isinstance(caught.value, ValueError)
    for section in ("model", "stream", "budget", "episode"):
        assert section in str(caught.value)


@pytest.mark.parametrize(
    ("given", "meant"), [("spilt", "split"), ("rendermode", "render_mode"), ("streams", "stream"), ("flatt", "flat")]
)
def test_the_nearest_argument_is_named(given: str, meant: str) -> None:
    with pytest.raises(UnknownArgumentError, match=f"did you mean '{meant}'"):
        gym.make(MINI, **{given: "test"})


@pytest.mark.parametrize("value", [3, "days", None, [("days", 1)]])
def test_a_section_of_a_wrong_type_stays_a_mistake_in_the_card(value: Any) -> None:
    with pytest.raises(CardError, match="override of episode: expected a mapping") as caught:
        gym.make(MINI, episode=value)
    assert not isinstance(caught.value, TypeError)


# ---------------------------------------------------------------------- actions


@pytest.fixture
def env() -> SleepEnv:
    made = SleepEnv(MINI)
    made.reset(seed=0)
    return made


@pytest.mark.parametrize(
    "action",
    [0, Action.WAIT, np.int64(0), np.uint8(0), np.int8(0), np.array(0), np.array(0, np.int32), torch.tensor(0).numpy()],
    ids=repr,
)
def test_what_a_discrete_space_contains_is_an_action(env: SleepEnv, action: Any) -> None:
    assert action in env.action_space
    env.step(action)
    assert env.episode.tick == 1


@pytest.mark.parametrize(
    "action",
    [0.0, 4.0, np.float32(1), None, "sleep", "SLEEP", b"4", [], {}, object, Action, np.array(None), [[1], 2]],
    ids=repr,
)
def test_what_is_of_another_type_is_a_type_error_and_a_value_error(env: SleepEnv, action: Any) -> None:
    with pytest.raises(ActionTypeError, match=r"expected an action in Discrete\(6\), found ") as caught:
        env.step(action)
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, ValueError)
    assert isinstance(caught.value, SleepGymError)
    assert env.episode.tick == 0


@pytest.mark.parametrize(
    "action", [6, -1, 2**70, -(2**70), np.int64(6), np.array([1]), [1], (0, 1), np.zeros((2, 2), int)]
)
def test_a_number_that_is_no_action_is_a_value_error(env: SleepEnv, action: Any) -> None:
    with pytest.raises(ActionError, match=r"expected an action in Discrete\(6\), found ") as caught:
        env.step(action)
    assert not isinstance(caught.value, TypeError)
    assert env.episode.tick == 0


def test_a_hint_says_what_would_do(env: SleepEnv) -> None:
    with pytest.raises(ActionError, match=r"say Action\.SLEEP"):
        env.step("sleep")
    with pytest.raises(ActionError, match=r"take its only entry, action\[0\]"):
        env.step(np.array([4]))
    with pytest.raises(ActionError, match="actions are whole numbers"):
        env.step(4.0)


@pytest.mark.parametrize("action", [None, 0, "inject", [0.0, 1.0, 2.0], [0, [1], 2], [0, 9, 0], [0, 0], object()])
def test_several_parts_are_asked_for_where_there_are_several(action: Any) -> None:
    env = SleepEnv(MINI, parameters={"facts": [1, 2, 4], "sleep": [2, 3, 6]})
    env.reset(seed=0)
    with pytest.raises(ActionError, match="expected an action in MultiDiscrete"):
        env.step(action)
    env.step([0, 0, 0])
    env.step(np.array([0, 1, 2], np.int32))


@pytest.mark.parametrize(
    "actions", [None, 0, "00", [None, 0], [0, [1]], [0, 2**70], np.array([0, 6]), np.zeros((2, 1), int), object()]
)
def test_vectors_refuse_them_too(actions: Any) -> None:
    envs = SleepVectorEnv(2, card=MINI)
    envs.reset(seed=0)
    with pytest.raises(ActionError, match=r"expected 2 actions in Discrete\(6\), found "):
        envs.step(actions)
    assert [env.unwrapped.episode.tick for env in envs.envs] == [0, 0]
