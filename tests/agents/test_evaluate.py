"""Schedulers and policies are compared on the same episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sleepgym.evaluation import ScoreMatrix, evaluate
from sleepgym.schedulers import NightOwl
from sleepgym.schedulers.named import RULES, spelled_out
from sleepgym.training import EnvSpec, PolicyCard

MINI = "SleepLLM-Mini-v0"


@pytest.fixture
def compare(call: Callable[..., str], quick_card: Path) -> Callable[..., str]:
    def run(*contestants: str, episodes: int = 2) -> str:
        where = ("--env-id", MINI, "--card", str(quick_card), "--episodes", str(episodes), "--out", "scores")
        return call("evaluate", *contestants, *where, "--logdir", "logs")

    return run


def test_every_usual_scheduler_is_shown(compare: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # on 80, names are broken
    shown = compare(episodes=1)
    for name in ("random", *RULES):
        assert name in shown


def test_scores_are_those_of_the_scheduler(
    compare: Callable[..., str], dashboard_of: Callable[[Path], EventAccumulator], tmp_path: Path, quick_card: Path
) -> None:
    compare("night-owl:load_at=0.2", episodes=3)
    matrix = ScoreMatrix.load(tmp_path / "scores" / "night-owl-load_at=0.2.json")
    spec = EnvSpec(MINI, str(quick_card))
    results = evaluate(lambda: spec.make("validation"), NightOwl(load_at=0.2), [1000, 1001, 1002])
    assert (matrix.name, matrix.streams) == ("night-owl:load_at=0.2", (1000, 1001, 1002))
    np.testing.assert_allclose(matrix.scores, [[result.score for result in results]], atol=1e-6)

    events = dashboard_of(tmp_path / "logs" / "night-owl-load_at=0.2")
    assert [event.value for event in events.Scalars("sleepgym/score")] == pytest.approx(matrix.scores[0].tolist())
    assert events.Scalars("eval/mean_score")[0].value == pytest.approx(matrix.scores.mean())
    who = events.Tensors("policy/text_summary")[0].tensor_proto.string_val[0].decode()
    assert who.strip() == spelled_out("night-owl:load_at=0.2")


def test_policies_of_several_runs_share_a_matrix(
    compare: Callable[..., str], call: Callable[..., str], quick_card: Path, tmp_path: Path
) -> None:
    few = ("--env-id", MINI, "--card", str(quick_card), "--n-envs", "2", "--total-steps", "16", "--eval-episodes", "0")
    call("ppo", *few, "--n-steps", "8", "--batch-size", "16", "--out", "runs/a", "--warm-start")
    call("dqn", *few, "--learning-starts", "99", "--out", "runs/b")
    shown = compare("mine=runs/a/last.zip,runs/b/last.zip", "runs/b/last.zip")
    assert all(name in shown for name in ("mine 1", "mine 2", "b-last"))
    both = ScoreMatrix.load(tmp_path / "scores" / "mine.json")
    alone = ScoreMatrix.load(tmp_path / "scores" / "b-last.json")
    assert both.scores.shape == (2, 2) and np.array_equal(both.scores[1], alone.scores[0])
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["b-last", "mine-1", "mine-2"]
    assert PolicyCard.read(tmp_path / "runs" / "b" / "last.zip").flat


def test_what_would_be_called_alike_is_refused(
    compare: Callable[..., str], script: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="expected each name once, found night-owl twice"):
        compare("night-owl", "night-owl")
    evaluate = script("evaluate")
    assert evaluate.policies_in("mine=a/best.zip,b/best.zip") == ("mine", [Path("a/best.zip"), Path("b/best.zip")])
    assert evaluate.policies_in("a/lr=0.1/best.zip") == ("lr=0.1-best", [Path("a/lr=0.1/best.zip")])


def test_a_policy_plays_where_the_ledger_is_smaller(call: Callable[..., str], quick_card: Path, tmp_path: Path) -> None:
    larger = MaskablePPO("MultiInputPolicy", gym.make("SleepLLM-v0"), n_steps=8, device="cpu")
    card = PolicyCard(algorithm="MaskablePPO", env_id="SleepLLM-v0", seed=0, steps=0)
    card.save(larger, tmp_path / "larger" / "best.zip")
    shown = call("evaluate", "larger/best.zip", "--env-id", MINI, "--card", str(quick_card), "--episodes", "1")
    assert "larger-best" in shown


def test_an_unknown_contestant_is_reported_before_anybody_plays(compare: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"expected a scheduler, or the path of a policy that ends in .zip, found 'owl'"
    ):
        compare("night-owl", "owl")
    with pytest.raises(SystemExit, match=r"expected the policy card .*missing\.json beside"):
        compare("night-owl", "missing.zip")
    assert not (tmp_path / "logs").exists()


def test_it_runs_from_the_command_line(run_script: Callable[..., str], quick_card: Path, tmp_path: Path) -> None:
    arguments = ("never-sleep", "--env-id", MINI, "--card", str(quick_card), "--episodes", "1")
    assert "never-sleep" in run_script("agents/evaluate.py", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is written unless asked for"
