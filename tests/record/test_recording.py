"""Recordings: what was done and what came of it, written down without a trace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

import sleepgym
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.evaluation import run_episode
from sleepgym.record.recording import Recorder, Recording, RecordingError
from sleepgym.record.replay import replay
from sleepgym.schedulers import NeverSleep

MINI = "SleepLLM-Mini-v0"


@pytest.fixture(scope="module")
def recording() -> Recording:
    """An episode with a night, of an environment with an override."""
    env = Recorder(gym.make(MINI, split="validation", episode={"days": 1}))
    _, info = env.reset(seed=7)
    over, slept = False, False
    while not over:
        mask = info["action_mask"]
        # A forbidden action as well, once.
        action = Action.INJECT if mask[Action.INJECT] or info["tick"] == 0 else Action.WAIT
        if info["tick"] > 5 and not slept:
            action, slept = Action.SLEEP, True
        _, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    return env.recording


def test_it_says_everything_that_decided_the_episode(recording: Recording) -> None:
    assert (recording.card_id, recording.overrides) == (MINI, {"episode": {"days": 1}})
    assert recording.card == SleepEnv(MINI, episode={"days": 1}).card
    assert (recording.split, recording.seed, recording.rng) == ("validation", 7, None)
    assert recording.sleepgym == sleepgym.__version__
    assert recording.fingerprint == SleepEnv(MINI).base.lm.fingerprint
    assert Action.SLEEP in recording.actions
    assert recording.ended


def test_the_same_comes_of_it_again(recording: Recording) -> None:
    played = replay(recording)
    assert played.agrees
    assert played.largest_error == 0
    assert (played.steps, played.score) == (len(recording.actions), recording.score)
    assert played.note == ""


def test_it_is_read_as_it_was_written(recording: Recording, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rewards = (*rng.normal(size=len(recording.rewards) - 1), -math.inf)
    odd = recording.model_copy(
        update={"rewards": tuple(map(float, rewards)), "seed": None, "rng": rng.bit_generator.state}
    )
    for one in (recording, odd):
        one.save(tmp_path / "folder" / "one.json")
        assert Recording.load(tmp_path / "folder" / "one.json") == one
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["one.json"]


def test_recording_changes_nothing() -> None:
    plain, recorded = SleepEnv(MINI), Recorder(SleepEnv(MINI))
    for seed in (3, None):
        assert data_equivalence(plain.reset(seed=seed), recorded.reset(seed=seed), exact=True)
        for action in (Action.WAIT, Action.INJECT, Action.WAIT):
            assert data_equivalence(plain.step(action), recorded.step(action), exact=True)


def test_an_episode_without_a_seed_of_its_own_is_played_again_too() -> None:
    env = Recorder(SleepEnv(MINI))
    env.reset()
    env.reset(options={"split": "test"})
    for _ in range(4):
        env.step(Action.INJECT)
    recording = env.recording
    assert recording.seed is None
    assert (recording.split, recording.ended) == ("test", False)
    assert replay(Recording.model_validate_json(recording.model_dump_json(), strict=True)).largest_error == 0


def test_every_episode_that_ends_is_saved(tmp_path: Path) -> None:
    env = Recorder(SleepEnv(MINI, episode={"days": 1}), tmp_path / "runs")
    scores = [run_episode(env, NeverSleep(), seed).score for seed in (0, 1)]
    env.reset(seed=2)
    env.step(Action.WAIT)
    files = sorted((tmp_path / "runs").iterdir())
    assert [path.name for path in files] == ["episode-00000.json", "episode-00001.json"]
    assert [Recording.load(path).score for path in files] == scores


def test_an_episode_that_did_not_begin_here_is_no_recording() -> None:
    env = Recorder(SleepEnv(MINI))
    with pytest.raises(RecordingError, match="reset"):
        _ = env.recording
    env.reset(seed=0)
    snapshot = env.unwrapped.snapshot()  # type: ignore[attr-defined]
    env.step(Action.WAIT)
    env.unwrapped.restore(snapshot)  # type: ignore[attr-defined]
    env.step(Action.WAIT)
    with pytest.raises(RecordingError, match="reset"):
        _ = env.recording
    env.reset(seed=0)
    assert env.recording.actions == ()


def test_other_environments_are_not_recorded() -> None:
    with pytest.raises(RecordingError, match="expected a SleepEnv"):
        Recorder(gym.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"actions": [6]}, r"expected an action in Discrete\(6\), found 6"),
        ({"actions": [[0, 0, 0]]}, r"found \(0, 0, 0\)"),
        ({"actions": ["0"]}, "actions"),
        ({"actions": [0]}, "reward per action"),
        ({"rewards": "all"}, "rewards"),
        ({"seed": "7"}, "seed"),
        ({"seed": None}, "random state"),
        ({"split": "tset"}, "split"),
        ({"format": 2}, "format"),
        ({"card": {}}, "card"),
        ({"surprise": 1}, "surprise"),
        ({"score": None}, "score"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(
    recording: Recording, tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(json.loads(recording.model_dump_json()) | change))
    with pytest.raises(RecordingError, match=where) as refused:
        Recording.load(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff\xfe", b"{", b"[" * 100_000])
def test_garbage_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "one.json").write_bytes(data)
    with pytest.raises(RecordingError, match="expected a recording"):
        Recording.load(tmp_path / "one.json")


def test_a_file_that_cannot_be_written_is_said_so(recording: Recording, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match="expected to write"):
        recording.save(tmp_path / "file" / "one.json")
    with pytest.raises(RecordingError, match="expected a recording"):
        Recording.load(tmp_path / "nowhere.json")
