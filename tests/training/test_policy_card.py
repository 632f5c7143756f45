"""A policy is found again with what is needed to play it."""

from __future__ import annotations

import hashlib
import time
import zipfile
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
    assert card == CARD.model_copy(update={"sha256": card.sha256}) and type(loaded) is DQN
    assert card.sha256 == hashlib.sha256((tmp_path / "new" / "best.zip").read_bytes()).hexdigest()
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


def test_a_policy_that_is_not_the_one_of_its_card_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "best.zip"
    model = DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10)
    CARD.save(model, path)
    other = path.read_bytes()
    CARD.model_copy(update={"seed": 5}).save(model, path)
    path.write_bytes(other)
    with pytest.raises(
        PolicyError, match=r"expected a policy in .*best\.zip with the SHA-256 \w{12}\.\.\. of its card"
    ):
        load_policy(path)
    path.with_suffix(".json").write_text(CARD.model_dump_json())  # of a version that kept no sum
    assert load_policy(path)[1] == CARD


def test_a_run_that_is_stopped_between_policy_and_card_leaves_the_card_within_the_policy(tmp_path: Path) -> None:
    path, model = tmp_path / "last.zip", DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10)
    CARD.save(model, path)
    before = path.with_suffix(".json").read_bytes()
    later = CARD.model_copy(update={"steps": 9, "validation_score": 0.6, "arguments": {"resume": "last.zip"}})
    later.save(model, path)
    path.with_suffix(".json").write_bytes(before)
    card = load_policy(path)[1]
    assert card == later.model_copy(update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    assert PolicyCard.read(path) == card


@pytest.mark.parametrize("within", [b"", b"{}", b"[" * 100_000, b'{"steps": 1e999}', None])
def test_a_card_within_that_says_nothing_is_none(tmp_path: Path, within: bytes | None) -> None:
    path, model = tmp_path / "last.zip", DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10)
    CARD.save(model, path)
    if within is None:
        path.write_bytes(b"no archive")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("card.json", within)
    with pytest.raises(PolicyError, match="with the SHA-256"):
        load_policy(path)


def test_hours_go_on_where_a_run_is_resumed(tmp_path: Path) -> None:
    model = DQN("MlpPolicy", gym.make("CartPole-v1"), buffer_size=10, learning_starts=100)
    model.learn(4)
    model.start_time = time.time_ns() - int(1.5 * 3.6e12)
    card = CARD.model_copy(update={"arguments": {"total_steps": 4, "gamma": 0.97}}).after(model)
    assert card.steps == 4 and card.hours == pytest.approx(1.5, abs=0.01)
    card.save(model, tmp_path / "last.zip")
    resumed = CARD.resuming(tmp_path / "last.zip", ())
    assert resumed.hours == card.hours and resumed.after(model).hours == pytest.approx(3.0, abs=0.01)
    # Its own settings, whatever the command line says of them, and the new length.
    about = {"seed": 9, "arguments": {"total_steps": 20, "gamma": 0.5}}
    resumed = CARD.model_copy(update=about).resuming(tmp_path / "last.zip", ())
    assert (resumed.seed, resumed.arguments) == (CARD.seed, {**CARD.arguments, "total_steps": 20, "gamma": 0.97})
    with pytest.raises(PolicyError, match="expected env_id 'SleepLLM-Mini-v0'"):
        CARD.model_copy(update={"env_id": "SleepLLM-v0"}).resuming(tmp_path / "last.zip", ())
