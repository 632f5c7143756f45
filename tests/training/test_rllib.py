"""RLlib's parts keep to the masks and leave the rest of RLlib as it is."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

pytest.importorskip("ray", reason="needs the extra rllib; `make test-rllib` has it")

from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import RecordSleepStatistics
from sleepgym.episode.actions import Action
from sleepgym.evaluation import evaluate, simulate
from sleepgym.schedulers import Predictor
from sleepgym.sim.env import SimEnv
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import PolicyError
from sleepgym.training.dashboard import figures_of_info
from sleepgym.training.envs import EndAtHorizon, ScaleReward
from sleepgym.training.rllib import (
    MaskedPPOModule,
    MeasuredPPOLearner,
    RLlibPolicy,
    RLlibVectorEnv,
    flat_and_masked,
    load_rllib_policy,
    make_sim_vector,
    make_vector,
)

MINI, CARD = "SleepLLM-Mini-v0", "SleepLLM-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 3},
    "sleep": {"steps": 1, "validation_rows": 2, "rehearsal_rows": 1},
    "episode": {"days": 1, "perplexity_rows": 2},
}
ROWS, WIDTH = 32, 5
SPACES = [spaces.Discrete(6), spaces.MultiDiscrete([6, 4, 3])]


def build(action_space: Any) -> Any:
    flat = spaces.flatdim(action_space)
    observation_space = spaces.Dict(
        {"observations": spaces.Box(-1.0, 1.0, (WIDTH,)), "action_mask": spaces.Box(0.0, 1.0, (flat,))}
    )
    torch.manual_seed(0)
    return module_for(observation_space, action_space)


def module_for(observation_space: Any, action_space: Any) -> Any:
    """A small module, with weights of torch's own random state."""
    return RLModuleSpec(
        module_class=MaskedPPOModule,
        observation_space=observation_space,
        action_space=action_space,
        model_config=DefaultModelConfig(fcnet_hiddens=[16]),
    ).build()


def parts(action_space: Any) -> list[int]:
    return [action_space.n] if isinstance(action_space, spaces.Discrete) else action_space.nvec.tolist()


def batch_for(action_space: Any) -> dict[str, Any]:
    """Random observations; masks that each allow something of every part."""
    rng, masks = np.random.default_rng(0), []
    for n in parts(action_space):
        mask = rng.random((ROWS, n)) < 0.5
        mask[np.arange(ROWS), rng.integers(n, size=ROWS)] = True
        masks.append(mask)
    mask = torch.tensor(np.concatenate(masks, axis=1), dtype=torch.float32)
    return {Columns.OBS: {"observations": torch.rand(ROWS, WIDTH) * 2 - 1, "action_mask": mask}}


def allow_all(batch: dict[str, Any]) -> dict[str, Any]:
    obs = batch[Columns.OBS]
    return {Columns.OBS: {**obs, "action_mask": torch.ones_like(obs["action_mask"])}}


@pytest.mark.parametrize("action_space", SPACES, ids=["discrete", "parameters"])
@pytest.mark.parametrize("forward", ["forward_exploration", "forward_inference", "forward_train"])
def test_the_policy_is_the_unmasked_one_given_that_the_action_is_allowed(action_space: Any, forward: str) -> None:
    module, batch = build(action_space), batch_for(action_space)
    masked = getattr(module, forward)(batch)[Columns.ACTION_DIST_INPUTS].split(parts(action_space), dim=1)
    plain = getattr(module, forward)(allow_all(batch))[Columns.ACTION_DIST_INPUTS].split(parts(action_space), dim=1)
    masks = batch[Columns.OBS]["action_mask"].split(parts(action_space), dim=1)
    for logits, free, mask in zip(masked, plain, masks, strict=True):
        expected = free.softmax(1) * mask
        found = logits.softmax(1)
        assert torch.equal(found[mask == 0], torch.zeros(int((mask == 0).sum())))
        torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize("action_space", SPACES, ids=["discrete", "parameters"])
def test_what_the_loss_needs_of_a_masked_distribution_is_finite(action_space: Any) -> None:
    module, batch = build(action_space), batch_for(action_space)
    logits = module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    policy = module.get_train_action_dist_cls().from_logits(logits)
    actions = policy.sample()
    offsets = np.cumsum([0, *parts(action_space)[:-1]])
    columns = actions.reshape(ROWS, -1) + torch.tensor(offsets)
    assert batch[Columns.OBS]["action_mask"].gather(1, columns).all()
    (policy.logp(actions).sum() + policy.entropy().sum()).backward()
    gradients = [parameter.grad for parameter in module.pi.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_values_do_not_depend_on_the_mask_and_batches_are_left_as_they_are() -> None:
    module, batch = build(SPACES[0]), batch_for(SPACES[0])
    before = {name: value.clone() for name, value in batch[Columns.OBS].items()}
    values = module.compute_values(batch)
    assert values.shape == (ROWS,)
    torch.testing.assert_close(module.compute_values(allow_all(batch)), values)
    module.forward_train(batch)
    assert batch[Columns.OBS].keys() == before.keys()
    assert all(torch.equal(batch[Columns.OBS][name], value) for name, value in before.items())


def test_a_module_can_be_made_again_from_what_it_says_about_itself() -> None:
    module, batch = build(SPACES[0]), batch_for(SPACES[0])
    again = RLModuleSpec.from_module(module).build()
    again.set_state(module.get_state())
    logits = [one.forward_inference(batch)[Columns.ACTION_DIST_INPUTS] for one in (module, again)]
    assert torch.equal(*logits)


def test_observations_without_a_mask_are_refused() -> None:
    with pytest.raises(TypeError, match="RLlibActionMask"):
        MaskedPPOModule(observation_space=spaces.Box(-1.0, 1.0, (WIDTH,)), action_space=SPACES[0])


def test_an_env_runner_gets_masked_vectors_of_the_episodes_that_it_asks_for() -> None:
    envs = make_vector({"num_envs": 2, "card": MINI, "split": "validation", "reward_scale": 0.5, **QUICK})
    observations, infos = envs.reset(seed=0)
    terminated = np.zeros(2, dtype=bool)
    while not terminated.any():
        assert envs.observation_space.contains(observations)
        assert np.array_equal(observations["action_mask"], infos["action_mask"])
        observations, rewards, terminated, truncated, infos = envs.step(np.full(2, Action.WAIT))
        np.testing.assert_allclose(rewards, 0.5 * (infos["reward_served"] + infos["reward_drift"]))
    # The horizon ends an episode for good; nothing after it is worth anything.
    assert terminated.all() and not truncated.any()
    assert infos["sleep"]["actions"]["wait"].tolist() == [1, 1]
    assert all(env.unwrapped.split == "validation" for env in envs.envs)


def test_env_runners_with_neighbouring_seeds_do_not_play_each_others_episodes() -> None:
    envs = RLlibVectorEnv(3, card=MINI, **QUICK)
    streams = []
    for seed in (7, 8, 7):
        envs.reset(seed=seed)
        streams.append([env.unwrapped.episode.stream for env in envs.envs])
    first, neighbour, again = streams
    assert first == again
    assert all(stream not in neighbour for stream in first)
    assert first[0] != first[1] != first[2]


def of_last_step(infos: dict[str, Any], row: int) -> dict[str, float]:
    """Figures of an episode that ended, but for the measured time."""
    summary = {name: part[row] for name, part in infos["sleep"].items() if name != "actions"}
    shares = {name: part[row] for name, part in infos["sleep"]["actions"].items()}
    info = {name: part[row] for name, part in infos.items() if isinstance(part, np.ndarray)}
    return figures_of_info(info | {"sleep": summary | {"actions": shares, "seconds": 0.0}})


def test_simulated_vectors_are_those_of_environments_one_by_one() -> None:
    short: dict[str, Any] = {"card": CARD, "episode": {"days": 1}}

    def make() -> gym.Env[Any, Any]:
        return flat_and_masked(ScaleReward(EndAtHorizon(RecordSleepStatistics(SimEnv(**short))), 0.5))

    together, apart = make_sim_vector({"num_envs": 3, "reward_scale": 0.5, **short}), SyncVectorEnv([make] * 3)
    assert together.single_observation_space == apart.single_observation_space
    assert together.metadata["autoreset_mode"] == apart.metadata["autoreset_mode"]
    seeds: Any = [5, 6, 7]
    (found, _), (expected, _) = together.reset(seed=seeds), apart.reset(seed=seeds)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        np.testing.assert_equal(found, expected)
        # Now and then something that is forbidden.
        actions = np.array([rng.choice(6) if rng.random() < 0.1 else rng.choice(np.flatnonzero(mask))
                            for mask in found["action_mask"]])  # fmt: skip
        found, rewards, terminated, truncated, infos = together.step(actions)
        expected, others, over, _, told = apart.step(actions)
        np.testing.assert_array_equal(terminated, over)
        np.testing.assert_allclose(rewards, others, rtol=1e-6)
        assert not truncated.any() and bool(infos) == terminated.any()
        for row in np.flatnonzero(terminated).tolist():
            ends += 1
            assert of_last_step(infos, row) == of_last_step(told, row)
    assert ends >= 9


def test_simulated_env_runners_with_neighbouring_seeds_play_other_episodes() -> None:
    envs = make_sim_vector({"num_envs": 3, "card": CARD})
    first, neighbour, again = (envs.reset(seed=seed)[0]["observations"] for seed in (7, 8, 7))
    assert np.array_equal(first, again)
    assert len({row.tobytes() for row in (*first, *neighbour)}) == 6


def test_a_policy_plays_the_sim_and_is_given_the_masks_there() -> None:
    env = flat_and_masked(SimEnv(CARD))
    torch.manual_seed(0)
    module = module_for(env.observation_space, env.action_space)
    policy = RLlibPolicy(module)
    results = simulate(*setting_and_response(CARD, None, {}), policy, range(4))
    assert [result.invalid for result in results] == [0] * 4
    # The first actions are those that it chooses in the environment itself.
    observations, infos = SyncVectorEnv([lambda: flat_and_masked(SimEnv(CARD))] * 4).reset(seed=0)
    assert policy.predict(observations)[0].tolist() == [result.actions[0] for result in results]
    flat = observations["observations"]
    masked = policy.predict(flat, action_masks=infos["action_mask"])[0]
    assert np.array_equal(masked, policy.predict(observations)[0])
    with pytest.raises(ValueError, match="expected a mask for each row"):
        policy.predict(flat)


def observed(batch: dict[str, Any]) -> dict[str, Any]:
    """Observations as environments give them."""
    return {name: value.numpy() for name, value in batch[Columns.OBS].items()}


def chances(module: Any, batch: dict[str, Any], action_space: Any) -> list[torch.Tensor]:
    """Probabilities of each part of an action, ``[rows, choices]``."""
    logits = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
    return [part.softmax(1) for part in logits.split(parts(action_space), dim=1)]


@pytest.mark.parametrize("action_space", SPACES, ids=["discrete", "parameters"])
def test_a_policy_does_the_likeliest_of_what_is_allowed(action_space: Any) -> None:
    module, batch = build(action_space), batch_for(action_space)
    policy = RLlibPolicy(module)
    assert isinstance(policy, Predictor)
    actions, state = policy.predict(observed(batch), "mine")
    assert state == "mine" and all(action_space.contains(action) for action in actions)
    likeliest = torch.stack([part.argmax(1) for part in chances(module, batch, action_space)], dim=1)
    assert np.array_equal(actions.reshape(ROWS, -1), likeliest)


@pytest.mark.parametrize("action_space", SPACES, ids=["discrete", "parameters"])
def test_a_policy_that_draws_keeps_to_the_mask_that_it_is_given(action_space: Any) -> None:
    policy, batch = RLlibPolicy(build(action_space)), batch_for(action_space)
    masks = observed(batch)["action_mask"]
    everything = observed(allow_all(batch))
    drawn = [policy.predict(everything, deterministic=False, action_masks=masks)[0] for _ in range(5)]
    offsets = np.cumsum([0, *parts(action_space)[:-1]])
    assert all(np.take_along_axis(masks, actions.reshape(ROWS, -1) + offsets, axis=1).all() for actions in drawn)
    assert not all(np.array_equal(actions, drawn[0]) for actions in drawn)


def test_a_policy_plays_together_as_it_plays_alone() -> None:
    def make() -> Any:
        return flat_and_masked(SleepEnv(MINI, "validation", **QUICK))

    env = make()
    module = module_for(env.observation_space, env.action_space)
    together, alone = (evaluate(make, RLlibPolicy(module), [1, 2], slots) for slots in (2, 1))
    assert [result.actions for result in together] == [result.actions for result in alone]


def test_a_kept_policy_is_the_one_that_was_saved(tmp_path: Path) -> None:
    module, batch = build(SPACES[0]), batch_for(SPACES[0])
    module.save_to_path(tmp_path / "learner_group" / "learner" / "rl_module" / "default_policy")
    loaded = load_rllib_policy(tmp_path)
    assert len(loaded.sha256) == 64
    for one, other in zip(chances(loaded.module, batch, SPACES[0]), chances(module, batch, SPACES[0]), strict=True):
        assert torch.equal(one, other)


def test_a_folder_without_a_policy_is_reported(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"expected a checkpoint of RLlib in .*found no file learner_group/learner"):
        load_rllib_policy(tmp_path)


def test_a_learner_reports_how_far_the_policy_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = build(SPACES[0]), batch_for(SPACES[0])
    outputs, reported = module.forward_train(batch), {}
    policy = module.get_train_action_dist_cls().from_logits(outputs[Columns.ACTION_DIST_INPUTS])
    actions = policy.sample()
    # A quarter of the steps were once twice as likely, a quarter are no steps, and the others are as likely as before.
    before, counted = policy.logp(actions).detach().clone(), torch.ones(ROWS, dtype=torch.bool)
    before[: ROWS // 4] += math.log(2)
    before[-ROWS // 4 :] += 9
    counted[-ROWS // 4 :] = False
    batch |= {Columns.ACTIONS: actions, Columns.ACTION_LOGP: before, Columns.LOSS_MASK: counted}
    monkeypatch.setattr(PPOTorchLearner, "compute_loss_for_module", lambda self, **kwargs: "RLlib's")
    learner = object.__new__(MeasuredPPOLearner)
    learner._module = {"default_policy": module}
    learner.metrics = SimpleNamespace(log_dict=lambda figures, key, reduce: reported.update(figures))
    loss = learner.compute_loss_for_module(
        module_id="default_policy", config=SimpleNamespace(clip_param=0.2), batch=batch, fwd_out=outputs
    )
    assert loss == "RLlib's"
    assert float(reported["clip_fraction"]) == pytest.approx(1 / 3)
    assert float(reported["approx_kl"]) == pytest.approx((math.log(2) - 0.5) / 3, rel=1e-4)
