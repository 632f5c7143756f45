"""RLlib trains on SleepEnvs with several env runners, on one machine and on a cluster of two nodes."""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import sleepgym
from sleepgym.dashboard import EPISODE_TAGS
from sleepgym.env.actions import Action

pytest.importorskip("ray", reason="needs the extra rllib; `make test-rllib` has it")

pytestmark = pytest.mark.timeout(900)

SCRIPT = "agents/rllib_ppo.py"
SMALL = ["--num-envs-per-env-runner", "2", "--num-steps", "16", "--minibatch-size", "32", "--object-store-mb", "100"]


@pytest.fixture(scope="module")
def run(
    quick_card: Path, run_script: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("rllib")

    def train(*arguments: str, script: str = SCRIPT) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            # Ray would otherwise leave a token in the user's home.
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
            return run_script(
                script, "--card", str(quick_card), *SMALL, *arguments, "--out", str(folder / "run"), cwd=folder
            )

    train.out = folder / "run"  # type: ignore[attr-defined]
    return train


@pytest.fixture(scope="module")
def trained(run: Any) -> Path:
    """Where two env runners have trained for 128 steps."""
    run("--total-steps", "128", "--num-env-runners", "2", "--checkpoint-every", "100")
    return run.out


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    path = Path(sleepgym.__file__).parents[1] / SCRIPT
    spec = importlib.util.spec_from_file_location("rllib_ppo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def logged(folder: Path) -> dict[str, list[Any]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def test_training_logs_how_episodes_went_and_leaves_a_checkpoint(trained: Path) -> None:
    scalars = logged(trained)
    for tag in EPISODE_TAGS:
        assert np.isfinite([event.value for event in scalars[f"sleepgym/{tag}"]]).all()
    assert {event.value for event in scalars["sleepgym/invalid"]} == {0}
    shares = [scalars[f"sleepgym/action_frac/{action.name}"][0].value for action in Action]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    # The step in which an episode makes way for the next does not count, so that an update may have a few more.
    first, last = (event.step for event in scalars["train/policy_gradient_loss"])
    assert 64 <= first < 64 + 4 and 128 <= last < 128 + 8
    assert checkpoints(trained) == [last]


def test_a_run_is_not_mixed_with_an_earlier_one(trained: Path, script: ModuleType, quick_card: Path) -> None:
    with pytest.raises(FileExistsError, match="--resume"):
        script.last_checkpoint(script.Args(card=str(quick_card), out=trained))
    with pytest.raises(ValueError, match="expected --units 64"):
        script.last_checkpoint(script.Args(card=str(quick_card), units=32, out=trained, resume=True))
    with pytest.raises(FileExistsError, match="leave out --resume"):
        script.last_checkpoint(script.Args(out=trained / "elsewhere", resume=True))


def test_on_a_cluster_runners_sit_on_both_nodes_obey_masks_and_go_on_from_a_checkpoint(trained: Path, run: Any) -> None:
    before = checkpoints(trained)
    found = json.loads(run(script="tests/agents/two_nodes.py").splitlines()[-1])
    assert found["nodes"] == found["processes"] == 2
    assert found["restored"] and found["broadcast"]
    assert found["steps_sampled"] >= 64
    assert found["invalid"] == 0
    assert found["invalid_at_random"] > 0, "masks had something to forbid"
    assert found["steps"] >= before[-1] + 64
    assert found["learned"]


def test_a_resumed_run_goes_on_where_the_last_one_stopped(trained: Path, run: Any) -> None:
    shown = run("--total-steps", "192", "--resume")
    assert "goes on from" in shown
    steps = [event.step for event in logged(trained)["train/policy_gradient_loss"]]
    assert len(steps) == 3 and steps[2] >= 192
    assert checkpoints(trained) == steps[1:]
