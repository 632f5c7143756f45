"""The scripts run from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(ROOT / "agents" / script), *arguments]
    # The checkout's package, installed or not.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_baselines_prints_every_scheduler(tmp_path: Path) -> None:
    shown = run("baselines.py", "--env-id", "SleepLLM-Mini-v0", "--episodes", "1", cwd=tmp_path)
    for name in ("random", "never sleep", "fixed period", "pressure rule"):
        assert name in shown


def test_demo_leaves_a_picture_and_logs(tmp_path: Path) -> None:
    shown = run("demo.py", "--env-id", "SleepLLM-Mini-v0", cwd=tmp_path)
    assert "edits spent" in shown
    with Image.open(tmp_path / "runs" / "demo" / "hypnogram.png") as picture:
        assert picture.size == (640, 480)
    assert list((tmp_path / "runs" / "demo").glob("events.out.tfevents.*"))
