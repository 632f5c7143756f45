"""RLlib trains on SleepEnvs with several env runners, on one machine and on a cluster of two nodes."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

import sleepgym
from sleepgym.episode.actions import Action
from sleepgym.episode.card import load_card
from sleepgym.evaluation import EpisodeResult, evaluate, simulate
from sleepgym.leaderboard.submission import Submission
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import EnvSpec
from sleepgym.training.dashboard import EPISODE_TAGS, LAYOUT

pytest.importorskip("ray", reason="needs the extra rllib; `make test-rllib` has it")

from sleepgym.training.rllib import flat_and_masked, load_rllib_policy

pytestmark = pytest.mark.timeout(900)

SCRIPT = "agents/rllib_ppo.py"
SMALL = {
    "--num-envs-per-env-runner": "2",
    "--num-steps": "32",
    "--minibatch-size": "64",
    "--object-store-mb": "100",
    "--eval-every": "100",
    "--eval-episodes": "2",
}
SEEDS = [1000, 1001]
"""Of the validation streams."""


@pytest.fixture(scope="module")
def run(
    quick_card: Path, run_process: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("rllib")

    def train(out: Path, *arguments: str, script: str = SCRIPT) -> str:
        numbers = [word for pair in SMALL.items() for word in pair]
        where = ("--card", str(quick_card), "--out", str(out))
        with pytest.MonkeyPatch.context() as patch:
            # Ray would otherwise leave a token in the user's home.
            patch.setenv("RAY_AUTH_MODE", "token")
            patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
            return run_process(script, *where, *numbers, *arguments, cwd=folder)

    return train


@pytest.fixture(scope="module")
def trained(run: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two env runners have trained for three updates of 128 steps, with a validation after each."""
    out = tmp_path_factory.mktemp("trained") / "run"
    run(out, "--total-steps", "384", "--num-env-runners", "2", "--checkpoint-every", "100")
    return out


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to go on with."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


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


def best_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "best.json").read_text(encoding="utf-8"))


def events_of(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def values_of(events: EventAccumulator, tag: str) -> list[float]:
    return [event.value for event in events.Scalars(tag)]


def text_of(events: EventAccumulator, tag: str) -> Any:
    """What the last text says, which is JSON."""
    return json.loads(events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0])


def played(policy: Any, card: Path) -> list[EpisodeResult]:
    spec = EnvSpec("SleepLLM-v0", str(card))
    return evaluate(lambda: flat_and_masked(spec.make("validation")), policy, SEEDS)


def test_training_logs_how_episodes_went(trained: Path) -> None:
    events = events_of(trained)
    for tag in EPISODE_TAGS:
        assert np.isfinite(values_of(events, f"sleepgym/{tag}")).all()
    assert set(values_of(events, "sleepgym/invalid")) == {0}
    shares = [values_of(events, f"sleepgym/action_frac/{action.name}")[0] for action in Action]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    # The step in which an episode makes way for the next does not count, so that an update may have a few more.
    steps = [event.step for event in events.Scalars("train/policy_gradient_loss")]
    assert all(128 * i <= step <= 132 * i for i, step in enumerate(steps, start=1)) and len(steps) == 3
    assert checkpoints(trained)[-1] == steps[-1]


def test_the_dashboard_is_that_of_the_other_scripts(trained: Path, quick_card: Path) -> None:
    assert len(list(trained.glob("events.out.tfevents.*"))) == 1, "tensorboard follows one file of a folder"
    events = events_of(trained)
    charts = {tag for category in LAYOUT.values() for _, tags in category.values() for tag in tags}
    expected = {*charts, "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "eval/best_score", "eval/seconds"}
    assert expected <= set(events.Tags()["scalars"])
    # Rewards are the environment's, not those that were scaled for learning.
    assert values_of(events, "rollout/ep_rew_mean")[-1] > 0.25
    scores, best = values_of(events, "eval/mean_score"), values_of(events, "eval/best_score")
    assert len(scores) == 3 and best == np.maximum.accumulate(scores).tolist()
    assert events.Tags()["images"] == ["eval/hypnogram"]
    assert text_of(events, "card") == load_card(quick_card).model_dump(mode="json", exclude_none=True)
    assert text_of(events, "policy") == {name: value for name, value in best_of(trained).items() if value is not None}
    assert text_of(events, "arguments")["num_steps"] == 32

    def hparams(name: str) -> Any:
        content = events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content
        return getattr(plugin_data_pb2.HParamsPluginData.FromString(content), name)

    assert hparams("session_start_info").hparams["num_steps"].number_value == 32
    metrics = {info.name.tag for info in hparams("experiment").metric_infos}
    assert metrics == {"eval/mean_score", "sleepgym/score", "rollout/ep_rew_mean"}
    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert [category.title for category in layout_pb2.Layout.FromString(content).category] == list(LAYOUT)


def test_the_best_checkpoint_plays_as_well_as_it_did(trained: Path, quick_card: Path) -> None:
    best, events = best_of(trained), events_of(trained)
    scores = {event.step: event.value for event in events.Scalars("eval/mean_score")}
    assert best["validation_score"] == pytest.approx(max(scores.values())) == scores[best["steps"]]
    assert best["steps"] in checkpoints(trained)
    policy = load_rllib_policy(trained / best["checkpoint"])
    again = np.mean([result.score for result in played(policy, quick_card)])
    assert again == pytest.approx(best["validation_score"])


def test_the_example_of_the_page_plays_a_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(sleepgym.__file__).parents[1] / "docs" / "rllib.md"
    [example] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    fewer = {
        "runs/rllib_ppo/checkpoints/15360": str(trained / best_of(trained)["checkpoint"]),
        "SleepLLM-v0": "SleepLLM-Mini-v0",
        "range(1000, 1008)": "[1000]",
        "frozen_seeds(100)": "frozen_seeds(1)",
    }
    for usual, few in fewer.items():
        assert usual in example
        example = example.replace(usual, few)
    monkeypatch.chdir(tmp_path)
    Path("example.py").write_text(example, encoding="utf-8")
    runpy.run_path("example.py")
    assert 0 <= float(capsys.readouterr().out.splitlines()[-1]) <= 1
    assert not list(Submission.load(tmp_path / "my-entries" / "rllib-ppo").mistakes())


def test_a_run_is_not_mixed_with_an_earlier_one(trained: Path, script: ModuleType, quick_card: Path) -> None:
    with pytest.raises(FileExistsError, match="--resume"):
        script.last_checkpoint(script.Args(card=str(quick_card), out=trained))
    with pytest.raises(ValueError, match="expected --units 64"):
        script.last_checkpoint(script.Args(card=str(quick_card), units=32, out=trained, resume=True))
    with pytest.raises(ValueError, match=r"expected --reward-scale 0\.05"):
        script.last_checkpoint(script.Args(card=str(quick_card), reward_scale=1.0, out=trained, resume=True))
    with pytest.raises(FileExistsError, match="leave out --resume"):
        script.last_checkpoint(script.Args(out=trained / "elsewhere", resume=True))


def test_on_a_cluster_runners_sit_on_both_nodes_obey_masks_and_go_on_from_a_checkpoint(
    copied: Path, run: Callable[..., str]
) -> None:
    before = checkpoints(copied)
    found = json.loads(run(copied, script="tests/agents/two_nodes.py").splitlines()[-1])
    assert found["nodes"] == found["processes"] == 2
    # An update moves weights by hundredths at most; fresh ones are elsewhere.
    assert found["finite"] and 0 < found["from_checkpoint"] < 0.05 < found["from_fresh"]
    assert found["from_runners"] == 0
    assert found["steps_sampled"] >= 128
    assert found["invalid"] == 0
    assert found["invalid_at_random"] > 0, "masks had something to forbid"
    assert checkpoints(copied)[-1] >= before[-1] + 128
    assert len(values_of(events_of(copied), "eval/mean_score")) == 4


def test_a_resumed_run_goes_on_until_patience_ends_and_keeps_a_better_policy_of_before(
    copied: Path, run: Callable[..., str]
) -> None:
    before = checkpoints(copied)
    perfect = best_of(copied) | {"validation_score": 1.0}
    (copied / "best.json").write_text(json.dumps(perfect), encoding="utf-8")
    shown = run(copied, "--total-steps", "10000", "--resume", "--patience", "2")
    assert "goes on from" in shown
    events = events_of(copied)
    steps = [event.step for event in events.Scalars("train/policy_gradient_loss")]
    assert len(steps) == 5 and steps[3] >= before[-1] + 128
    assert [event.step for event in events.Scalars("eval/mean_score")] == steps
    assert values_of(events, "eval/best_score")[3:] == [1.0, 1.0]
    assert best_of(copied) == perfect
    assert checkpoints(copied) == [*before, steps[-1]]


def test_in_the_sim_it_trains_without_a_model_and_keeps_the_best_simulated_score(
    run_process: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    numbers = {
        "--num-env-runners": "1",
        "--num-envs-per-env-runner": "16",
        "--num-steps": "16",
        "--minibatch-size": "64",
    }
    numbers |= {"--total-steps": "2048", "--eval-every": "1000", "--eval-episodes": "8", "--object-store-mb": "100"}
    words = [word for pair in numbers.items() for word in pair]
    out = tmp_path / "run"
    run_process(SCRIPT, "--env-id", "SleepSim-v0", "--out", str(out), *words, cwd=tmp_path)
    events, best = events_of(out), best_of(out)
    scores = {event.step: event.value for event in events.Scalars("eval/simulated_score")}
    assert len(scores) == 2 and best["env_id"] == "SleepSim-v0" and best["validation_score"] is None
    assert best["simulated_score"] == pytest.approx(max(scores.values())) == scores[best["steps"]]
    assert values_of(events, "eval/best_simulated_score")[-1] == pytest.approx(best["simulated_score"])
    assert set(values_of(events, "sleepgym/invalid")) == {0}
    # Rewards are the environment's, not those that were scaled for learning.
    assert values_of(events, "rollout/ep_rew_mean")[-1] > 1
    setting, response = setting_and_response("SleepLLM-v0", None, {})
    results = simulate(setting, response, load_rllib_policy(out / best["checkpoint"]), range(1000, 1008))
    assert np.mean([result.score for result in results]) == pytest.approx(best["simulated_score"])
