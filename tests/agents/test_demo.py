"""The demo shows an episode and leaves it where tensorboard finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sleepgym.leaderboard.players import Player
from sleepgym.schedulers import NightOwl


def test_policies_of_one_file_name_are_told_apart(load_script: Callable[[str], ModuleType]) -> None:
    demo = load_script("agents/demo.py")
    rule = Player("night-owl", NightOwl())
    first, second = (Player(f"runs/ppo-{i}/best.zip", NightOwl(), policy="0") for i in (1, 2))
    assert list(demo.named([rule, first])) == ["night-owl", "best"]
    assert list(demo.named([first, second, rule])) == ["ppo-1-best", "ppo-2-best", "night-owl"]
    with pytest.raises(SystemExit, match="expected players of different names, found night-owl, night-owl"):
        demo.named([rule, rule])


def test_demo_leaves_a_film_and_logs(
    run_process: Callable[..., str], dashboard_of: Callable[[Path], EventAccumulator], tmp_path: Path
) -> None:
    names = ("night-owl", "never-sleep")
    shown = run_process("agents/demo.py", *names, "--env-id", "SleepLLM-Mini-v0", "--every", "8", cwd=tmp_path)
    assert "edits spent" in shown and all(name in shown for name in names)
    out = tmp_path / "runs" / "demo"
    with Image.open(out / "hypnogram.png") as picture, Image.open(out / "film.gif") as film:
        assert picture.size == film.size == (1280, 504)
        assert film.n_frames > 2
    for name in names:
        events = dashboard_of(out / name)
        assert {"episode/recall", "reward/served", "time/seconds"} <= set(events.Tags()["scalars"])
        assert events.Scalars("sleepgym/score")[0].value == events.Scalars("episode/score")[-1].value
