"""The benchmark of look-ups runs, and finds what it looks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_the_benchmark_prints_a_row_per_kind_of_look_up(run_script: Callable[..., str], tmp_path: Path) -> None:
    arguments = ("--facts", "20", "--notes", "300", "--queries", "10")
    shown = run_script("benchmarks/notes_retrieval.py", *arguments, cwd=tmp_path)
    assert shown.count("rare words count more") == shown.count("all words count alike") == 3
    assert shown.count(" 1.000 [") >= 3 and "The index of 300 notes was built in" in shown
