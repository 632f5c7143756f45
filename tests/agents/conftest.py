"""Scripts within the test's own process: most of a short run would otherwise be importing torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tyro
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sleepgym.episode.actions import Action
from sleepgym.training.dashboard import EPISODE_TAGS


@pytest.fixture
def script(load_script: Callable[[str], ModuleType]) -> Callable[[str], ModuleType]:
    """A script of the folder as a module, as ``script("ppo")``."""
    return lambda name: load_script(f"agents/{name}.py")


@pytest.fixture
def call(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """What a script prints when called in an empty folder, as ``call("ppo", "--seed", "1")``."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        module = script(name)
        capsys.readouterr()
        module.main(tyro.cli(module.Args, args=arguments))
        return capsys.readouterr().out

    return run


@pytest.fixture
def dashboard_of() -> Callable[[Path], EventAccumulator]:
    """Reads a run's tensorboard logs, and checks what all runs have in common, whoever acted in them."""
    names = [*EPISODE_TAGS, *(f"action_frac/{action.name}" for action in Action)]
    scalars = {f"sleepgym/{name}" for name in names} | {f"eval/mean_{name}" for name in [*names, "reward", "ep_length"]}
    texts = {f"{name}/text_summary" for name in ("card", "policy", "arguments")}

    def read(folder: Path) -> EventAccumulator:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        tags = events.Tags()
        assert scalars | {"eval/seconds"} <= set(tags["scalars"])
        assert texts | {"custom_scalars__config__"} <= set(tags["tensors"])
        assert [tag.rpartition("/")[2] for tag in tags["images"]] == ["hypnogram"]
        assert events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        shares = [events.Scalars(f"sleepgym/action_frac/{action.name}") for action in Action]
        assert all(sum(event.value for event in at) == pytest.approx(1) for at in zip(*shares, strict=True))
        return events

    return read
