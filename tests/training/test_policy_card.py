"""A policy is found again with what is needed to play it."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest
from stable_baselines3 import DQN

from sleepgym.training import PolicyCard, PolicyError, load_policy

CARD = PolicyCard(algorithm="DQN", env_id="SleepLLM-Mini-v0", flat=True, seed=4, steps=7, validation_score=0.5)


def test_policy_and_card_come_back_as_they_were(tmp_path: Path) -> None:
    model = DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10, seed=0)
    CARD.save(model, tmp_path / "new" / "best.zip")
    loaded, card = load_policy(tmp_path / "new" / "best.zip")
    assert card == CARD and type(loaded) is DQN
    state, other = model.policy.state_dict(), loaded.policy.state_dict()
    assert state.keys() == other.keys() and all((state[name] == other[name]).all() for name in state)
    assert card.spec.flat and card.spec.env_id == "SleepLLM-Mini-v0"


def test_a_policy_without_a_card_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "best.zip").write_bytes(b"")
    with pytest.raises(PolicyError, match=r"expected the policy card .*best\.json beside .*best\.zip, found"):
        load_policy(tmp_path / "best.zip")


def test_a_card_without_a_policy_is_reported(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_text(CARD.model_dump_json())
    with pytest.raises(PolicyError, match=r"expected a policy, found no file .*best\.zip"):
        load_policy(tmp_path / "best.zip")


@pytest.mark.parametrize(
    ("change", "where"),
    [({"algorithm": "os.system"}, "algorithm"), ({"steps": "many"}, "steps"), ({"extra": 1}, "extra")],
)
def test_mistakes_in_a_card_are_named(tmp_path: Path, change: dict[str, object], where: str) -> None:
    (tmp_path / "best.json").write_text(CARD.model_copy(update=change).model_dump_json(warnings=False))
    if "extra" in change:
        (tmp_path / "best.json").write_text('{"extra": 1, ' + CARD.model_dump_json()[1:])
    with pytest.raises(PolicyError, match=f"found a mistake in {where}"):
        load_policy(tmp_path / "best.zip")
