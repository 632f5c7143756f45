"""The scripts run from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image


def test_baselines_prints_every_scheduler(run_script: Callable[..., str], tmp_path: Path) -> None:
    shown = run_script("agents/baselines.py", "--env-id", "SleepLLM-Mini-v0", "--episodes", "1", cwd=tmp_path)
    for name in ("random", "never sleep", "fixed period", "pressure rule"):
        assert name in shown


def test_demo_leaves_a_picture_and_logs(run_script: Callable[..., str], tmp_path: Path) -> None:
    shown = run_script("agents/demo.py", "--env-id", "SleepLLM-Mini-v0", cwd=tmp_path)
    assert "edits spent" in shown
    with Image.open(tmp_path / "runs" / "demo" / "hypnogram.png") as picture:
        assert picture.size == (640, 480)
    assert list((tmp_path / "runs" / "demo").glob("events.out.tfevents.*"))
