"""A response draws what its models say, as often as they say it."""

from __future__ import annotations

import numpy as np
import pytest

from sleepgym.episode.actions import Action
from sleepgym.sim.features import expanded
from sleepgym.sim.fitted import CHANCES, DAMAGE, EPISODE, FACT, MARGINS, SURE, FittedResponse, Read
from sleepgym.sim.models import Linear, Logistic
from sleepgym.sim.vector import SimVectorEnv
from tests.sim.conftest import NOTES

CHANCE = {"night.undone": 0.1, "night.passes": 0.7, "night.further": 0.5, "night.off": 0.3}
CHANGE = {"inject.written": (2.0, 1.0), "inject.others": (0.0, -0.25), "night.passed": (0.0, 3.0)}


@pytest.fixture(scope="module")
def response() -> FittedResponse:
    """Constant models."""
    noise = np.diag([0.5, 0.1]).astype(np.float32)
    linear = {
        name: Linear("constant", np.array([CHANGE.get(name, (0.0, 0.0))], np.float32), noise * (name in MARGINS) + 1e-6)
        for name in (*MARGINS, *DAMAGE)
    }
    logits = {name: np.log(chance / (1 - chance)) for name, chance in CHANCE.items()}
    return FittedResponse(
        linear, {name: Logistic("constant", np.array([logits[name]], np.float32)) for name in CHANCES}
    )


def test_what_is_drawn_is_what_the_models_say(response: FittedResponse) -> None:
    envs = SimVectorEnv(4000, "SleepLLM-Mini-v0", response)
    envs.reset(seed=0)
    for action in (Action.WAIT, Action.WAIT, Action.INJECT):
        envs.step(np.full(4000, action))
    state, ledger = envs.episodes.state, envs.episodes.state.ledger
    row, entry = np.nonzero(ledger.present)
    assert len(row) > 1000
    margins = np.stack((state.mind.raw[row, ledger.fact[row, entry]], state.mind.chat[row, ledger.fact[row, entry]]), 1)
    np.testing.assert_allclose(margins.mean(0), CHANGE["inject.written"], atol=0.05)
    np.testing.assert_allclose(margins.std(0), [0.5, 0.1], atol=0.05)
    had = ledger.present.copy()
    *_, info = envs.step(np.full(4000, Action.SLEEP))
    slept = had.any(1)
    assert info["rolled_back"][slept].mean() == pytest.approx(0.1, abs=0.02)
    there = had & ~info["rolled_back"][:, None]
    stage, scale = ledger.stage[there], ledger.scale[there]
    shares = np.bincount(stage, minlength=4) / len(stage)
    np.testing.assert_allclose(shares, [0.3, 0.35, 0.175, 0.175], atol=0.03)
    assert (scale[stage == 0] == 0).mean() == pytest.approx(0.3, abs=0.05)
    assert set(scale[stage == 1].tolist()) == {0.5}


def test_right_answers_are_sure_beyond_the_threshold_and_wrong_ones_by_chance(response: FittedResponse) -> None:
    linear = response.linear | {
        "inject.written": Linear("constant", np.zeros((1, 2), np.float32), np.diag([2.0, 2.0]).astype(np.float32))
    }
    logit = np.array([np.log(0.3 / 0.7)], np.float32)
    read = Read(np.array([True, True, False, True]), np.array([5, 6, 7, 8], np.int32))
    fit = FittedResponse(linear, response.logistic | {SURE: Logistic("constant", logit)}, read)
    envs = SimVectorEnv(4000, "SleepLLM-Mini-v0", fit, notes=NOTES)
    envs.reset(seed=0)
    streams = envs.episodes.streams
    assert streams.note_right.mean() == pytest.approx(0.75, abs=0.01)
    assert set(np.unique(streams.note_tokens[~streams.note_right])) == {7}
    for action in (Action.WAIT, Action.WAIT, Action.INJECT):
        envs.step(np.full(4000, action))
    state = envs.episodes.state
    there = state.facts.entry >= 0
    chat, sure = state.mind.chat[there], state.mind.sure[there]
    assert (sure[chat >= 1]).all() and not sure[np.abs(chat) < 1].any()
    assert sure[chat <= -1].mean() == pytest.approx(0.3, abs=0.03)
    assert not state.mind.sure[~there].any()


@pytest.fixture(scope="module")
def rich() -> FittedResponse:
    """Models with interactions and weights of every size."""
    rng = np.random.default_rng(0)

    def weights(names: tuple[str, ...], *targets: int) -> np.ndarray:
        inputs = expanded(np.zeros((1, len(names)), np.float32), names, "interactions").shape[1]
        return (0.1 * rng.standard_normal((inputs, *targets))).astype(np.float32)

    noise = np.array([[0.5, 0.0], [0.2, 0.1]], np.float32)
    linear = {name: Linear("interactions", weights(FACT, 2), noise) for name in MARGINS}
    linear |= {name: Linear("interactions", 0.1 * weights(EPISODE, 2), 0.1 * noise) for name in DAMAGE}
    return FittedResponse(linear, {name: Logistic("interactions", weights(names)) for name, names in CHANCES.items()})


def test_what_is_drawn_for_an_environment_does_not_depend_on_its_company(rich: FittedResponse) -> None:
    """The order of sums in BLAS depends on how many samples there are."""
    actions = np.random.default_rng(1).integers(len(Action), size=(40, 37))

    def play(rows: slice, seed: int) -> np.ndarray:
        envs = SimVectorEnv(len(range(37)[rows]), "SleepLLM-Mini-v0", rich)
        envs.reset(seed=seed)
        seen = []
        for each in actions[:, rows]:
            envs.step(each)
            seen.append(envs.episodes.state.mind.chat.copy())
        return np.array(seen)

    together = play(slice(0, 37), 0)
    for row in (0, 17, 36):
        assert np.array_equal(together[:, [row]], play(slice(row, row + 1), row)), row
