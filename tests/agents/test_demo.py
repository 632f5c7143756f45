"""The demo shows an episode and leaves it where tensorboard finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


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
