"""What several episodes do together is what each would have done alone, and is taken back if it was not asked for."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.vector import SleepVectorEnv
from sleepgym.episode import held_out
from sleepgym.episode.actions import Action
from sleepgym.episode.together import act_together
from sleepgym.evaluation import evaluate
from sleepgym.schedulers import NightOwl
from sleepgym.training.sb3 import SB3VecEnv

MINI = "SleepLLM-Mini-v0"
QUICK: dict[str, Any] = {
    "edit": {"steps": 4},
    "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2},
    "episode": {"days": 1, "perplexity_rows": 2},
}


class OnlyWait(gym.ActionWrapper[Any, Any, Any]):
    """Turns everything into WAIT."""

    def action(self, action: Any) -> int:
        return Action.WAIT


class Stutter(gym.Wrapper[Any, Any, Any, Any]):
    """Naps in every second step, whatever it is told."""

    turn = False

    def step(self, action: Any) -> Any:
        self.turn = not self.turn
        return self.env.step(int(Action.NAP) if self.turn else action)


def begun(env: SleepEnv, seed: int) -> SleepEnv:
    """The environment at the first tick at which a fact waits."""
    env.reset(seed=seed)
    while not env.action_masks()[Action.INJECT]:
        env.step(Action.WAIT)
    return env


def choices(env: SleepEnv, action: Action) -> Any:
    return env.episode, env.choices.of(action)


@pytest.mark.parametrize("wrapper", [OnlyWait, Stutter])
def test_a_wrapper_that_changes_actions_has_its_way_in_a_vector(wrapper: type[gym.Wrapper[Any, Any, Any, Any]]) -> None:
    envs = SleepVectorEnv(2, card=MINI, wrappers=[wrapper], **QUICK)
    alone = [wrapper(SleepEnv(MINI, **QUICK)) for _ in range(2)]
    envs.reset(seed=3)
    for i, env in enumerate(alone):
        env.reset(seed=3 + i)
    for action in (Action.INJECT, Action.INJECT, Action.SLEEP, Action.WAIT):
        _, rewards, _, _, infos = envs.step(np.full(2, action))
        for i, env in enumerate(alone):
            _, reward, _, _, info = env.step(int(action))
            assert rewards[i] == pytest.approx(reward, abs=1e-4)
            for key in ("edits_used", "sleeps", "naps", "recall", "degraded", "invalid_action", "pending"):
                assert infos[key][i] == info[key], key
    assert wrapper is Stutter or not infos["edits_used"].any()


def test_a_wrapper_that_changes_actions_has_its_way_with_stable_baselines() -> None:
    envs = make_vec_env(MINI, 2, seed=3, env_kwargs=QUICK, vec_env_cls=SB3VecEnv, wrapper_class=OnlyWait)
    envs.reset()
    *_, infos = envs.step(np.full(2, Action.INJECT))
    assert [info["edits_used"] for info in infos] == [0, 0]


def test_what_is_taken_back_leaves_no_trace() -> None:
    envs, alone = [SleepEnv(MINI, **QUICK) for _ in range(2)], SleepEnv(MINI, **QUICK)
    for env in (*envs, alone):
        begun(env, 1)
    act_together([choices(env, Action.INJECT) for env in envs])
    assert envs[0].episode.learner.state.ledger
    for env in envs:
        env.step(Action.WAIT)
        env.step(Action.INJECT)
    alone.step(Action.WAIT)
    alone.step(Action.INJECT)
    assert envs[0].episode.standings() == alone.episode.standings()
    assert envs[0].episode.inbox.written.keys() == alone.episode.inbox.written.keys()
    assert envs[0].episode.learner.state.memory.version == alone.episode.learner.state.memory.version


def test_nights_in_one_loop_are_those_of_each_alone() -> None:
    """The path that accelerators take."""
    envs, alone = [SleepEnv(MINI, **QUICK) for _ in range(2)], [SleepEnv(MINI, **QUICK) for _ in range(2)]
    for i in range(2):
        for env in (envs[i], alone[i]):
            begun(env, i).step(Action.INJECT)
    act_together([choices(env, Action.SLEEP) for env in envs], share_nights=True)
    for one, other in zip(envs, alone, strict=True):
        (_, reward, *_, info), (_, expected, *_, about) = one.step(Action.SLEEP), other.step(Action.SLEEP)
        assert info["sleeps"] == 1
        assert reward == pytest.approx(expected, abs=1e-4)
        assert {k: info[k] for k in ("recall", "edits_used", "degraded")} == {
            k: about[k] for k in ("recall", "edits_used", "degraded")
        }
        mine, theirs = one.episode.learner.state.memory, other.episode.learner.state.memory
        assert list(mine.terms) == list(theirs.terms)
        for owner, term in mine.terms.items():
            for name, (a, b) in term.factors.items():
                torch.testing.assert_close(a, theirs.terms[owner].factors[name][0], atol=1e-4, rtol=1e-3)
                torch.testing.assert_close(b, theirs.terms[owner].factors[name][1], atol=1e-4, rtol=1e-3)


def test_a_vector_can_be_told_to_share_nights(monkeypatch: pytest.MonkeyPatch) -> None:
    together: list[int] = []
    from sleepgym.episode import together as module

    shared = module.sleep_together
    monkeypatch.setattr(
        module, "sleep_together", lambda learners, **kw: (together.append(len(learners)), shared(learners, **kw))[1]
    )
    for share, expected in ((None, []), (False, []), (True, [2])):
        envs = SleepVectorEnv(2, card=MINI, share_nights=share, **QUICK)
        envs.reset(seed=0)
        while not envs.action_masks()[:, Action.SLEEP].all():
            envs.step(np.full(2, Action.INJECT))
        envs.step(np.full(2, Action.SLEEP))
        assert together == expected


def test_episodes_on_several_bases_are_refused() -> None:
    envs = [SleepEnv(MINI, **QUICK), SleepEnv(MINI, **QUICK | {"edit": {"steps": 3}})]
    for env in envs:
        env.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected environments on one model .* the same \[model\] and \[edit\]"):
        act_together([choices(env, Action.WAIT) for env in envs])
    makers = iter([lambda: SleepEnv(MINI, **QUICK), lambda: SleepEnv(MINI, **QUICK | {"edit": {"steps": 3}})])
    with pytest.raises(ValueError, match="expected environments on one model"):
        evaluate(lambda: next(makers)(), NightOwl(), [0, 1], slots=2)


def test_environments_of_several_recipes_leave_no_hooks_behind() -> None:
    for steps in (2, 3, 4):
        env = SleepEnv(MINI, **QUICK | {"edit": {"steps": steps}})
        begun(env, 0).step(Action.INJECT)
        env.close()
    lm = env.base.lm
    assert not any(lm.linear(name)._forward_hooks for block in lm.blocks for name in block.linears)


@pytest.mark.parametrize("found", [math.inf, math.nan])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_collapsed_model_earns_finite_rewards(monkeypatch: pytest.MonkeyPatch, weight: float, found: float) -> None:
    env = SleepEnv(MINI, **QUICK | {"reward": {"drift": weight}})
    begun(env, 0)
    monkeypatch.setattr(held_out, "perplexity", lambda *args, **kwargs: found)
    observation, reward, terminated, _, info = env.step(Action.INJECT)
    assert env.observation_space.contains(observation)
    assert terminated and not np.isfinite(info["ppl_ratio"])
    assert np.isfinite(reward) and all(np.isfinite(info[f"reward_{name}"]) for name in ("served", "drift", "invalid"))
