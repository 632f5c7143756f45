"""A card with parameters: the agent also chooses how many facts it writes and how long it sleeps."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.distributions import make_masked_proba_distribution
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.env.wrappers import FlattenLedger, RecordSleepStatistics, RLlibActionMask
from sleepgym.episode.actions import Action, Choice
from sleepgym.episode.card import CardError, load_card
from sleepgym.episode.snapshot import Snapshot
from sleepgym.record.recording import Recorder, Recording, RecordingError
from sleepgym.record.replay import replay

MINI = "SleepLLM-Mini-v0"
PARAMETERS = {"facts": [1, 2, 4], "sleep": [2, 3, 6, 9]}
SHORT: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2},
    "episode": {"days": 1, "perplexity_rows": 2},
}
FACTS, NIGHTS = np.arange(3), np.arange(4)


def make(**overrides: Any) -> SleepEnv:
    return SleepEnv(MINI, parameters=PARAMETERS, **(SHORT | overrides))


def draw(rng: np.random.Generator, mask: Any) -> NDArray[np.int64]:
    """A random allowed action with random parameters."""
    return np.array([rng.choice(np.flatnonzero(part)) for part in mask])


def busy(env: SleepEnv, pending: int = 1) -> None:
    """Until as many facts wait."""
    while len(env.episode.inbox.pending) < pending:
        env.step(env.choices.usual(Action.WAIT))


# --------------------------------------------------------------------- choices


def test_the_card_decides_the_action_space() -> None:
    assert SleepEnv(MINI).action_space == spaces.Discrete(6)
    assert make().action_space == spaces.MultiDiscrete([6, 3, 4])
    card = load_card("SleepLLM-Param-v0")
    assert card.parameters is not None and load_card("SleepLLM-v0").parameters is None
    assert card.parameters.facts == (2, 4, 8, 16) and card.parameters.sleep == (2, 4, 6)


@pytest.mark.parametrize("action", Action)
def test_a_parameter_is_read_by_the_operators_that_use_it_alone(action: Action) -> None:
    env = make()
    chosen = {env.choices.of(np.array([action, facts, night])) for facts in FACTS for night in NIGHTS}
    ticks, facts = env.card.ticks, set(PARAMETERS["facts"])
    if action in (Action.INJECT, Action.REFRESH):
        assert chosen == {Choice(action, n, 1) for n in facts}
    elif action == Action.SLEEP:
        assert chosen == {Choice(action, 0, n) for n in PARAMETERS["sleep"]}
    else:
        assert chosen == {Choice(action, 0, getattr(ticks, action.name.lower()))}
    assert env.choices.of(env.choices.usual(action)) == SleepEnv(MINI).choices.of(action)


@pytest.mark.parametrize("action", [0, [6, 0, 0], [0, 3, 0], [0, 0, 4], [0, 0], [[0, 0, 0]], [0.5, 0, 0], None, "WAIT"])
def test_what_is_no_action_is_refused(action: Any) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected an action in MultiDiscrete\(\[6 3 4\]\), found"):
        env.step(action)
    assert env.episode.tick == 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"facts": [], "sleep": [3]}, r"key parameters\.facts: expected at least one number, ascending, found \[\]"),
        ({"facts": [4], "sleep": [6, 3]}, r"key parameters\.sleep: .* ascending, found \[6, 3\]"),
        ({"facts": [0, 4], "sleep": [3]}, r"key parameters\.facts\.0: expected greater than 0, found 0"),
        ({"facts": [4]}, r"key parameters\.sleep: expected a value, found nothing"),
        ({"facts": [4], "sleep": [2]}, r"key ticks\.sleep: expected one of the parameters \[2\], found 3"),
        ({"facts": [8], "sleep": [3]}, r"key budget\.inject: expected one of the parameters \[8\], found 4"),
    ],
)
def test_a_mistake_in_the_parameters_is_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        load_card(MINI, parameters=parameters)


# ------------------------------------------------------------------- behaviour


def test_usual_parameters_live_through_the_same_episode_as_none_bit_for_bit() -> None:
    plain, rich = SleepEnv(MINI, **SHORT), make()
    rng = np.random.default_rng(0)
    expected, found = plain.reset(seed=1), rich.reset(seed=1)
    over = False
    while not over:
        assert data_equivalence(found[0], expected[0], exact=True)
        assert np.array_equal(rich.action_masks()[:6], plain.action_masks())
        action = Action(int(rng.integers(len(Action))))
        expected, found = plain.step(action), rich.step(rich.choices.usual(action))
        over = expected[2] or expected[3]
        assert found[1:4] == expected[1:4]
    for info in (expected[4], found[4]):
        del info["action_mask"]
    assert data_equivalence(found[4], expected[4], exact=True)


@pytest.mark.parametrize(("place", "facts"), enumerate(PARAMETERS["facts"]))
def test_as_many_facts_are_written_as_chosen(place: int, facts: int) -> None:
    env = make(stream={"update_share": [0.0, 0.0]})
    env.reset(seed=0)
    busy(env, 3)
    *_, info = env.step([Action.INJECT, place, 0])
    assert info["edits_used"] == len(env.episode.learner.state.ledger) == min(facts, 3)


def test_the_budget_caps_what_is_chosen() -> None:
    env = make(budget={"edits": [0.2, 0.2]})
    env.reset(seed=0)
    budget = env.episode.stream.rhythm.edit_budget
    assert budget < 4
    busy(env, 2)
    while env.action_masks()[Action.INJECT]:
        *_, info = env.step([Action.INJECT, 2, 0])
    assert info["edits_used"] <= budget


def test_a_longer_night_is_longer_offline_and_trains_as_many_more_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(sleep={**SHORT["sleep"], "steps": 6, "stop_nll": 0.0}, episode={"days": 2, "perplexity_rows": 2})
    env.reset(seed=0)
    busy(env, 2)
    env.step([Action.INJECT, 2, 0])
    begin = env.episode.tick
    for night, ticks in enumerate(PARAMETERS["sleep"]):
        branch, steps = env.fork(), []
        learner, original = type(branch.episode.learner), type(branch.episode.learner).sleep

        def sleep(self: Any, *args: Any, into: list[int] = steps, **named: Any) -> Any:
            report = original(self, *args, **named)  # noqa: B023 (called within this turn of the loop)
            into.append(report.steps)
            return report

        with monkeypatch.context() as patch:
            patch.setattr(learner, "sleep", sleep)
            *_, info = branch.step([Action.SLEEP, 0, night])
        assert info["tick"] - begin == ticks
        assert branch.episode.history.offline[begin:] == [True] * ticks
        # A usual night is three ticks and six steps.
        assert steps == [2 * ticks]


# ----------------------------------------------------------------------- masks


def test_masks_are_what_sb3_contrib_and_gymnasium_ask_for() -> None:
    env = make()
    _, info = env.reset(seed=0)
    busy(env)
    *_, info = env.step(env.choices.usual(Action.INJECT))
    flat, parts = get_action_masks(env), info["action_mask"]
    assert flat.dtype == bool and flat.shape == (6 + 3 + 4,)
    assert isinstance(parts, tuple) and all(part.dtype == np.int8 for part in parts)
    assert np.array_equal(np.concatenate(parts), flat)
    assert np.array_equal(flat[:6], env.episode.mask()) and flat[6:].all() and not flat[:6].all()
    for _ in range(50):
        assert flat[env.action_space.sample(mask=parts)[0]]
    distribution = make_masked_proba_distribution(env.action_space)
    distribution.proba_distribution(torch.zeros(1, 13))
    distribution.apply_masking(flat)
    assert all(flat[int(distribution.sample()[0, 0])] for _ in range(50))


def test_a_vector_of_them_hands_on_masks_that_the_single_action_space_samples_with() -> None:
    for parameters in ({}, {"parameters": PARAMETERS}):
        envs = gym.make_vec(MINI, num_envs=3, **SHORT, **parameters)
        _, infos = envs.reset(seed=0)
        for _ in range(6):
            actions = np.array([envs.single_action_space.sample(mask=mask) for mask in infos["action_mask"]])
            *_, infos = envs.step(actions)
            assert not infos["invalid_action"].any()
    assert envs.action_masks().shape == (3, 13)


# ------------------------------------------------- what is around environments


def test_checkers_find_no_fault() -> None:
    check_env(make(), skip_render_check=True)
    sb3_check_env(FlattenLedger(make()))


def test_each_slot_lives_as_a_single_environment() -> None:
    envs = SleepVectorEnv(3, AutoresetMode.DISABLED, card=MINI, parameters=PARAMETERS, **SHORT)
    alone = [make() for _ in range(3)]
    _, infos = envs.reset(seed=5)
    for i, env in enumerate(alone):
        env.reset(seed=5 + i)
    rng, slept = np.random.default_rng(0), False
    over = np.zeros(3, dtype=bool)
    while not over.any():
        masks = envs.action_masks()
        actions = np.stack([draw(rng, mask) for mask in infos["action_mask"]])
        if not slept:
            actions[:, 0] = np.where(masks[:, Action.INJECT], Action.INJECT, Action.WAIT)
        if not slept and masks[:, Action.SLEEP].all():
            # The first two equally long.
            actions, slept = np.array([[Action.SLEEP, 0, 0], [Action.SLEEP, 1, 0], [Action.SLEEP, 0, 1]]), True
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        for i, env in enumerate(alone):
            single, reward, *ended, info = env.step(actions[i])
            assert all(np.allclose(observations[key][i], single[key], atol=1e-3) for key in single)
            assert rewards[i] == pytest.approx(reward, abs=1e-4)
            assert [terminated[i], truncated[i]] == ended
            assert (infos["tick"][i], infos["edits_used"][i], infos["recall"][i]) == (
                info["tick"],
                info["edits_used"],
                info["recall"],
            )
        over = terminated | truncated
    assert slept


@pytest.mark.parametrize("actions", [[0, 0], [[0, 0, 0]], [[0, 0, 0], [0, 3, 0]], [[0.5, 0, 0], [0, 0, 0]]])
def test_bad_actions_move_nobody(actions: Any) -> None:
    envs = SleepVectorEnv(2, card=MINI, parameters=PARAMETERS, **SHORT)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected 2 actions in MultiDiscrete\(\[6 3 4\]\), found"):
        envs.step(actions)
    assert [env.unwrapped.episode.tick for env in envs.envs] == [0, 0]


def test_a_recorded_episode_is_read_and_played_again(tmp_path: Any) -> None:
    env = Recorder(make())
    _, info = env.reset(seed=2)
    rng, over = np.random.default_rng(2), False
    while not over:
        *_, terminated, truncated, info = env.step(draw(rng, info["action_mask"]))
        over = terminated or truncated
    recording = env.recording
    recording.save(tmp_path / "one.json")
    again = Recording.load(tmp_path / "one.json")
    assert again == recording and all(len(action) == 3 for action in again.actions)  # type: ignore[arg-type]
    played = replay(again)
    assert played.agrees and played.largest_error == 0
    plain = recording.model_dump_json().replace('"parameters":{', '"parameters":null,"x":{')
    (tmp_path / "one.json").write_text(plain)
    with pytest.raises(RecordingError):
        Recording.load(tmp_path / "one.json")


def test_a_snapshot_goes_on_with_parameters(tmp_path: Any) -> None:
    env = make()
    env.reset(seed=2)
    busy(env)
    env.step([Action.INJECT, 2, 0])
    env.snapshot().save(tmp_path / "snapshot")
    other = make()
    other.restore(Snapshot.load(tmp_path / "snapshot", other.base.lm))
    for action in ([Action.SLEEP, 0, 2], [Action.WAIT, 0, 0]):
        one, same = env.step(action), other.step(action)
        assert data_equivalence(one, same, exact=True)


def test_wrappers_take_actions_with_parameters() -> None:
    env = RLlibActionMask(FlattenLedger(RecordSleepStatistics(make())))
    observation, info = env.reset(seed=0)
    rng, over, slept = np.random.default_rng(0), False, 0
    while not over:
        assert observation in env.observation_space
        assert np.array_equal(observation["action_mask"], np.concatenate(info["action_mask"]))
        action = draw(rng, info["action_mask"])
        slept += action[0] == Action.SLEEP
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    assert info["sleep"]["actions"]["sleep"] == pytest.approx(slept / info["sleep"]["length"])


def test_maskable_ppo_learns_from_it() -> None:
    env = FlattenLedger(gym.make(MINI, parameters=PARAMETERS, **SHORT))
    model = MaskablePPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0).learn(8)
    observation, _ = env.reset(seed=0)
    action, _ = model.predict(observation, action_masks=get_action_masks(env))
    assert action in env.action_space
