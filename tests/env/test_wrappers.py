"""Wrappers change what their point is and leave the rest alone."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import FlattenObservation, TransformReward
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.wrappers import FlattenLedger, PadLedger, RecordSleepStatistics, RLlibActionMask
from sleepgym.episode.actions import Action

MINI = "SleepLLM-Mini-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 1, "validation_rows": 2, "rehearsal_rows": 1},
    "episode": {"days": 1, "perplexity_rows": 2},
}
WRAPPERS = [FlattenLedger, RLlibActionMask, RecordSleepStatistics]


def make() -> gym.Env[Any, Any]:
    return gym.make(MINI, **QUICK)


class Script(gym.Env[dict[str, Any], np.int64]):
    """Plays back infos, so that what is counted is known; it can be pickled, which a model with hooks cannot."""

    observation_space = spaces.Dict({"ledger": spaces.Box(-1, 1, (2, 3)), "stats": spaces.Box(0, 4, (5,))})  # type: ignore[assignment]
    action_space = spaces.Discrete(len(Action))

    def __init__(self, *infos: dict[str, Any]) -> None:
        self.infos, self.at = infos, 0

    def _info(self) -> dict[str, Any]:
        mask = np.array([1, 0, 1, 0, 0, 1], np.int8)
        usual = {"action_mask": mask, "invalid_action": False, "rolled_back": False, "ppl_ratio": 1.1, "naps": 0}
        return usual | self.infos[self.at]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.at = 0
        return self.observation_space.sample(), self._info()

    def step(self, action: np.int64) -> Any:
        self.at += 1
        return self.observation_space.sample(), 1.0, False, self.at == len(self.infos) - 1, self._info()


def info(tick: int, recall: float, **others: Any) -> dict[str, Any]:
    return {"tick": tick, "recall": recall, "score": recall / 2, "edits_used": tick, "sleeps": 1} | others


EPISODE = (
    info(0, 1.0),
    info(1, 0.8),
    info(2, 0.6, invalid_action=True),
    info(8, 0.5, rolled_back=True),
    info(10, 0.25, rolled_back=False),
)
ACTIONS = (Action.INJECT, Action.REFRESH, Action.SLEEP, Action.SLEEP)


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")  # that is what is checked here
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_gymnasium_finds_no_fault_in_a_wrapped_environment(wrapper: Any) -> None:
    check_env(wrapper(make().unwrapped), skip_render_check=True)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_leaves_rewards_and_infos_alone(wrapper: Any) -> None:
    plain, wrapped = make(), wrapper(make())
    assert data_equivalence(plain.reset(seed=0)[1], wrapped.reset(seed=0)[1], exact=True)
    for action in (Action.WAIT, Action.INJECT, Action.NAP):
        assert data_equivalence(plain.step(action)[1:], wrapped.step(action)[1:], exact=True)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_is_part_of_the_spec_and_survives_json(wrapper: Any) -> None:
    spec = wrapper(make()).spec
    again = gym.make(EnvSpec.from_json(spec.to_json()))
    assert isinstance(again, wrapper)
    assert again.spec == spec
    assert again.unwrapped.card.episode.days == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_can_be_pickled_where_its_environment_can(wrapper: Any) -> None:
    env = wrapper(Script(*EPISODE))
    env.reset(seed=0)
    env.step(Action.WAIT)
    again = pickle.loads(pickle.dumps(env))
    assert again.observation_space == env.observation_space
    assert again.step(Action.WAIT)[4]["tick"] == 2


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_masks_are_within_reach_of_sb3_contrib(wrapper: Any) -> None:
    env = wrapper(make())
    _, info = env.reset(seed=0)
    assert np.array_equal(get_action_masks(env), info["action_mask"].astype(bool))


# ---------------------------------------------------------------- FlattenLedger


def test_the_flat_vector_is_the_rows_of_the_ledger_and_then_the_statistics() -> None:
    plain, flat = make(), FlattenLedger(make())
    observation, _ = plain.reset(seed=0)
    vector, _ = flat.reset(seed=0)
    for action in (Action.WAIT, Action.INJECT, Action.NAP, Action.WAIT):
        assert vector.dtype == np.float32
        assert vector in flat.observation_space
        ledger = vector[: -len(STATS_FEATURES)].reshape(-1, len(LEDGER_FEATURES))
        assert np.array_equal(ledger, observation["ledger"])
        assert np.array_equal(vector[-len(STATS_FEATURES) :], observation["stats"])
        assert data_equivalence(spaces.unflatten(plain.observation_space, vector), dict(observation), exact=True)
        observation, vector = plain.step(action)[0], flat.step(action)[0]


def test_every_entry_of_the_flat_vector_keeps_its_bounds() -> None:
    flat = FlattenLedger(make())
    rows = flat.unwrapped.observation_space["ledger"].shape[0]  # type: ignore[index]
    features = [*LEDGER_FEATURES.values()] * rows + [*STATS_FEATURES.values()]
    bounds = [(feature.low, feature.high) for feature in features]
    box = flat.observation_space
    assert isinstance(box, spaces.Box)
    assert box.dtype == np.float32
    assert list(zip(box.low.tolist(), box.high.tolist(), strict=True)) == bounds
    assert box == FlattenObservation(make()).observation_space


def test_stable_baselines_reads_the_flat_vector_with_its_mlp(recwarn: pytest.WarningsRecorder) -> None:
    env = FlattenLedger(make())
    sb3_check_env(env, warn=True)
    assert [str(warning.message) for warning in recwarn if warning.category is UserWarning] == []
    for algorithm in (PPO, MaskablePPO):
        model = algorithm("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0).learn(8)
        assert model.predict(env.reset(seed=0)[0])[0] in env.action_space


# --------------------------------------------------------------- RLlibActionMask


@pytest.mark.parametrize("flat", [False, True])
def test_the_mask_stands_beside_the_observation(flat: bool) -> None:
    inner = FlattenLedger(make()) if flat else make()
    env = RLlibActionMask(inner)
    observation, info = env.reset(seed=0)
    for action in (Action.WAIT, Action.INJECT, Action.NAP):
        assert observation in env.observation_space
        assert set(observation) == {"observations", "action_mask"}
        assert observation["observations"] in inner.observation_space
        assert observation["action_mask"].dtype == np.float32
        assert np.array_equal(observation["action_mask"], info["action_mask"])
        assert observation["action_mask"][Action.WAIT] == 1
        observation, *_, info = env.step(action)


def test_only_discrete_actions_can_be_masked() -> None:
    with pytest.raises(TypeError, match="Discrete"):
        RLlibActionMask(gym.make("Pendulum-v1"))


# ---------------------------------------------------------- RecordSleepStatistics


def play(env: gym.Env[Any, Any], actions: tuple[Action, ...] = ACTIONS) -> dict[str, Any]:
    env.reset(seed=0)
    for action in actions:
        *_, truncated, info = env.step(action)
        assert ("sleep" in info) == truncated
    return info


def test_an_episode_is_summed_up_at_its_end() -> None:
    assert play(RecordSleepStatistics(Script(*EPISODE)))["sleep"] == {
        "score": 0.125,
        "recall": 0.25,
        "recall_mean": pytest.approx((0.8 + 0.6 + 6 * 0.5 + 2 * 0.25) / 10),
        "edits_used": 10,
        "sleeps": 1,
        "naps": 0,
        "rolled_back": 1,
        "invalid": 1,
        "ppl_ratio": 1.1,
        "length": 4,
        "ticks": 10,
        "seconds": 0.0,
        "actions": {"wait": 0, "inject": 0.25, "refresh": 0.25, "nap": 0, "sleep": 0.5, "prune": 0},
    }


def test_queues_hold_the_last_episodes_and_no_unfinished_one() -> None:
    env = RecordSleepStatistics(Script(*EPISODE), buffer_length=2)
    for _ in range(3):
        play(env)
    env.reset(seed=0)
    env.step(Action.WAIT)
    last = play(env)["sleep"]
    assert last["length"] == 4
    assert env.episode_count == 4
    assert list(env.queues["score"]) == [0.125, 0.125]
    assert list(env.queues["actions/sleep"]) == [0.5, 0.5]
    assert {len(queue) for queue in env.queues.values()} == {2}


def test_the_summary_of_a_real_episode_agrees_with_its_infos() -> None:
    env = FlattenLedger(RecordSleepStatistics(TransformReward(make(), lambda r: 2 * r), stats_key="night"))
    rng, over, steps, invalid = np.random.default_rng(0), False, 0, 0
    env.reset(seed=0)
    while not over:
        *_, terminated, truncated, info = env.step(np.int64(rng.choice([0, 1, 3, 5])))
        steps, invalid, over = steps + 1, invalid + bool(info["invalid_action"]), terminated or truncated
    found = info["night"]
    for name in ("score", "recall", "sleeps", "naps", "ppl_ratio"):
        assert found[name] == info[name]
    assert (found["length"], found["invalid"], found["edits_used"]) == (steps, invalid, info["edits_used"])
    assert found["ticks"] == info["tick"]
    assert sum(found["actions"].values()) == pytest.approx(1)
    history = env.unwrapped.episode.history  # type: ignore[attr-defined]
    assert min(history.recall) <= found["recall_mean"] <= 1


def test_a_padded_ledger_has_empty_rows_behind_its_own() -> None:
    env, padded = Script({}, {}), PadLedger(Script({}, {}), 5)
    assert padded.observation_space["ledger"].shape == (5, 3)
    assert padded.observation_space["stats"] == env.observation_space["stats"]
    observation, _ = padded.reset(seed=0)
    assert padded.observation_space.contains(observation)
    assert observation["ledger"].shape == (5, 3)
    assert not observation["ledger"][2:].any() and observation["ledger"][:2].any()


def test_a_ledger_is_not_cut() -> None:
    with pytest.raises(ValueError, match="at most 1 rows, found 2"):
        PadLedger(Script({}, {}), 1)
