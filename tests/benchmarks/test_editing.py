"""The editing benchmarks run from the command line, and their page is made from what they wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = "head\n<!-- figures: written by benchmarks/editing_report.py -->\nold\n<!-- end of figures -->\ntail\n"


@pytest.fixture(scope="module")
def folder(run_script: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two recipes on two facts each."""
    folder = tmp_path_factory.mktemp("editing")
    for preset in ("sleepgym", "memit"):
        run_script(
            "benchmarks/editing.py", "--preset", preset, "--facts", "2", "--counts", "1", "--seeds", "1", "--no-tune",
            "--held-out", "8", "--out", f"tiny.world.{preset}.json", cwd=folder,
        )  # fmt: skip
    return folder


def test_every_reading_is_recorded_after_every_count(folder: Path) -> None:
    record = json.loads((folder / "tiny.world.sleepgym.json").read_text())
    (only,) = record["runs"]
    assert [point["facts"] for point in only["points"]] == [1, 2]
    last = only["points"][-1]
    assert last["efficacy exact"] == last["efficacy written"] == 1.0
    assert {"kept", "early", "drift", "norm", "seconds per fact", "peak MB", "paraphrase exact"} <= last.keys()
    assert record["spec"]["covariance_weight"] == 1000.0


def test_report_replaces_what_is_between_its_markers(run_script: Callable[..., str], folder: Path) -> None:
    (folder / "page.md").write_text(PAGE)
    run_script("benchmarks/editing_report.py", "--folder", ".", "--page", "page.md", cwd=folder)
    page = (folder / "page.md").read_text()
    assert page.startswith("head\n") and page.endswith("\ntail\n") and "old" not in page
    assert "### tiny, world" in page and "| sleepgym, 2 facts | " in page and "| memit, 2 facts | " in page
    assert (folder / "tiny.world.png").stat().st_size > 10_000


def test_numbers_of_a_recipe_can_be_changed(run_script: Callable[..., str], tmp_path: Path) -> None:
    run_script(
        "benchmarks/editing.py", "--facts", "1", "--seeds", "1", "--no-tune", "--held-out", "8",
        "--changes", "max_weight", "1", "--out", "changed.json", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads((tmp_path / "changed.json").read_text())["spec"]["max_weight"] == 1.0


def test_speed_is_reported_in_pairs(run_script: Callable[..., str], tmp_path: Path) -> None:
    shown = run_script(
        "benchmarks/editing_speed.py", "--facts", "2", "--repeats", "1", "--out", "speed.json", cwd=tmp_path
    )
    assert "memory per fact" in shown
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert all(row["lowest"] <= row["ratio"] <= row["highest"] for row in rows if "ratio" in row)
