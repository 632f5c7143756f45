"""The demo shows an episode and leaves it where tensorboard finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_demo_leaves_a_picture_and_logs(
    run_script: Callable[..., str], dashboard_of: Callable[[Path], EventAccumulator], tmp_path: Path
) -> None:
    shown = run_script("agents/demo.py", "--env-id", "SleepLLM-Mini-v0", cwd=tmp_path)
    assert "edits spent" in shown
    with Image.open(tmp_path / "runs" / "demo" / "hypnogram.png") as picture:
        assert picture.size == (640, 480)
    events = dashboard_of(tmp_path / "runs" / "demo")
    assert {"episode/recall", "reward/served", "time/seconds"} <= set(events.Tags()["scalars"])
    assert events.Scalars("sleepgym/score")[0].value == events.Scalars("episode/score")[-1].value
