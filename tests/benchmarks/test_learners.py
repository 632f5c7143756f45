"""Learners are found by their folders, play the sim as they were left, and are compared with PPO run by run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from torch.utils.tensorboard import SummaryWriter


@pytest.fixture
def learners(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("learners")


def run_of(learner: str, seed: int, scores: list[float], steps: int = 1000) -> dict[str, object]:
    return {"learner": learner, "seed": seed, "steps": steps, "minutes": 2.0, "invalid": 0.0, "scores": scores}


def test_runs_are_folders_that_are_called_by_learner_and_seed(learners: ModuleType, tmp_path: Path) -> None:
    for name in ("recurrent_ppo-2", "dqn-1", "notes", "ppo-x"):
        (tmp_path / name).mkdir()
    (tmp_path / "ppo-3").write_text("a file")
    found = [(run.learner, run.seed) for run in learners.found([tmp_path, tmp_path / "missing"], range(2))]
    assert found == [("dqn", 1), ("recurrent_ppo", 2)]


def test_a_rule_plays_and_costs_nothing(learners: ModuleType) -> None:
    (one, other) = (learners.played(learners.Run("pressure-rule", 0, None, range(3))) for _ in range(2))
    assert one == other and len(one["scores"]) == 3 and one["steps"] == one["minutes"] == one["invalid"] == 0


def test_minutes_are_those_until_the_policy_was_saved(learners: ModuleType, tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step, second in ((0, 0.0), (500, 60.0), (1000, 300.0)):
            writer.add_scalar("time/fps", 1.0, step, walltime=1e9 + second)
    run = learners.Run("dqn", 1, tmp_path, range(2))
    assert [learners.minutes(run, steps) for steps in (500, 1000)] == [1, 5]


def test_gains_are_over_all_runs_of_ppo(learners: ModuleType) -> None:
    runs = [run_of("ppo", 1, [0.8, 0.6]), run_of("ppo", 2, [0.7, 0.5]), run_of("dqn", 1, [0.6, 0.4], 500)]
    runs.append(run_of("pressure-rule", 0, [0.7, 0.5], 0))
    table = learners.contents({"seed": 0, "streams": 2, "runs": runs})["learners"].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [row[0] for row in rows] == [learners.NAMES[name] for name in ("ppo", "pressure-rule", "dqn")]
    assert rows[0][1:] == ["2", "1,000", "2", "0.0", "0.650 (0.600 to 0.700)", ""]
    assert rows[2][1:6] == ["1", "500", "2", "0.0", "0.500 (0.500 to 0.500)"]
    assert rows[2][6].startswith("-0.150 [")
    assert rows[1][1:4] == ["", "", ""] and rows[1][6].startswith("-0.050 [")


def test_without_ppo_there_is_nothing_to_compare_with(learners: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="expected runs of ppo"):
        learners.main(learners.Args(runs=(tmp_path,)))


def test_runs_are_added_to_a_record_whose_runs_are_gone(
    learners: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "learners.json"
    old = [run_of("ppo", 1, [0.8, 0.6]), run_of("dqn", 1, [0.2, 0.1]), run_of("pressure-rule", 0, [0.7, 0.5], 0)]
    before = {"command": "the first", "env_id": learners.ENV, "seed": 7, "streams": 2, "runs": old}
    learners.records.write(out, before)
    (tmp_path / "runs" / "dqn-1").mkdir(parents=True)
    again = run_of("dqn", 1, [0.6, 0.4])
    monkeypatch.setattr(learners, "played", lambda run: again)
    args = learners.Args(runs=(tmp_path / "runs",), streams=2, seed=7, out=out, add=True)
    learners.main(args)
    record = learners.records.read(out)
    assert record["runs"] == [old[0], old[2], again], "the rule is recorded, and not played again"
    assert record["command"] == "the first" and [added["runs"] for added in record["added"]] == [["dqn-1"]]
    learners.main(args)
    assert len(learners.records.read(out)["added"]) == 2
    with pytest.raises(SystemExit, match="expected runs on the recorded streams, seed 7, found 8"):
        learners.main(learners.Args(runs=(tmp_path / "runs",), streams=2, seed=8, out=out, add=True))
    with pytest.raises(SystemExit, match="expected --out"):
        learners.main(learners.Args(runs=(tmp_path / "runs",), add=True))


@pytest.mark.skipif(find_spec("ray") is not None, reason="RLlib is there")
def test_runs_of_rllib_ask_for_its_environment(learners: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected RLlib to play .*rllib_ppo-1, found .*\.venv-rllib/bin/python"):
        learners.policy_of(learners.Run("rllib_ppo", 1, tmp_path / "rllib_ppo-1", range(2)))
