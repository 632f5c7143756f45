"""The demo shows an episode and leaves it where tensorboard finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_demo_leaves_a_picture_and_logs(run_script: Callable[..., str], tmp_path: Path) -> None:
    shown = run_script("agents/demo.py", "--env-id", "SleepLLM-Mini-v0", cwd=tmp_path)
    assert "edits spent" in shown
    with Image.open(tmp_path / "runs" / "demo" / "hypnogram.png") as picture:
        assert picture.size == (640, 480)
    events = EventAccumulator(str(tmp_path / "runs" / "demo")).Reload()
    tags = events.Tags()
    assert {"sleepgym/score", "sleepgym/action_frac/SLEEP", "episode/recall", "reward/served"} <= set(tags["scalars"])
    assert tags["images"] == ["hypnogram"] and "card/text_summary" in tags["tensors"]
    assert events.Scalars("sleepgym/score")[0].value == events.Scalars("episode/score")[-1].value
