"""Every sleep experiment runs on a few facts, says what it found beside what was published, and gets onto the page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PAGE = """head
<!-- tiny.capacity: written by benchmarks/sleep_report.py -->
old
<!-- end of tiny.capacity -->
words of a person
<!-- tiny.sweep: written by benchmarks/sleep_report.py -->
<!-- end of tiny.sweep -->
tail
"""
SHORT = ("--quick", "--seeds", "1", "--spec.steps", "3", "--spec.rehearsal-rows", "2", "--spec.validation-rows", "4")
EXPERIMENTS = {
    "capacity": {"sleeping-llm", "sleepgym, unprotected", "sleepgym"},
    "convergence": {"sleepgym, unprotected", "sleeping-llm's edits"},
    "second-wave": {"sleepgym, unprotected", "sleeping-llm's edits"},
    "sweep": {"2 facts", "3 facts"},
    "lifetime": {"continued", "fresh", "pruned"},
    "life": {"settled", "not held"},
    "over-capacity": {"sleepgym, unprotected", "sleeping-llm's edits"},
    "alignment-tax": {
        f"{model}: {arm}"
        for model in ("plain", "hedging")
        for arm in ("prior", "direct LoRA", "direct LoRA, no rehearsal", "sleep")
    },
    "ablations": {
        f"{change}, 2 facts"
        for change in ("default", "REM", "gate by night", "dissolve 1, 0", "dissolve 1, 0.5, 0", "no rehearsal")
    }
    | {"fresh adapter, 2 facts"},
}
QUICK = ("capacity", "sweep")
"""Those that take seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results go."""
    return tmp_path_factory.mktemp("sleep")


@pytest.fixture(scope="module")
def read(benchmark: Callable[[str], ModuleType], folder: Path) -> Callable[[str], dict]:
    """Gives the record of an experiment, which is run when it is first asked for."""

    def record(experiment: str) -> dict:
        path = folder / f"tiny.{experiment}.json"
        if not path.exists():
            sleep = benchmark("sleep")
            sleep.main(sleep.parsed([experiment, *SHORT, "--out", str(path)]))
        return json.loads(path.read_text())

    return record


@pytest.mark.parametrize(
    "experiment", [e if e in QUICK else pytest.param(e, marks=pytest.mark.slow) for e in EXPERIMENTS]
)
def test_everything_measured_is_recorded(read: Callable[[str], dict], experiment: str) -> None:
    record = read(experiment)
    assert record["spec"]["steps"] == 3 and record["quick"] and record["perplexity"] > 1 and record["fingerprint"]
    assert {run["variant"] for run in record["runs"]} == EXPERIMENTS[experiment]
    for run in record["runs"]:
        assert "error" not in run and run["points"] and run["seconds"] > 0
        assert all(math.isfinite(value) for point in run["points"] for value in point.values())


def test_known_facts_and_unseen_phrasings_are_asked_after_every_night(read: Callable[[str], dict]) -> None:
    (points,) = [run["points"] for run in read("sweep")["runs"] if run["variant"] == "3 facts"]
    assert [point["cycle"] for point in points] == [0, 1, 2]
    measured = {"raw", "chat", "questions", "unseen", "kept", "drift", "started", "settled", "edits"}
    assert all(measured <= point.keys() for point in points)
    assert {"seconds", "steps", "refreshed", "recall before", "rank"} <= points[1].keys()
    assert points[0]["raw"] == 1 and points[0]["edits"] == 3


@pytest.mark.slow
def test_a_life_counts_every_fact_ever_taught(read: Callable[[str], dict]) -> None:
    for run in read("lifetime")["runs"]:
        assert [(point["day"], point["facts"]) for point in run["points"]] == [(1, 2), (2, 4)]


@pytest.mark.slow
def test_a_life_through_a_small_ledger_never_overfills_it(read: Callable[[str], dict]) -> None:
    for run in read("life")["runs"]:
        assert [point["day"] for point in run["points"]] == [1, 2]
        assert all(point["ledger"] <= 3 and point["facts"] <= 4 for point in run["points"])


@pytest.mark.slow
def test_rem_is_measured_before_and_after(read: Callable[[str], dict]) -> None:
    runs = {run["variant"]: run["points"][1] for run in read("ablations")["runs"]}
    assert {"perplexity before rem", "perplexity after rem", "bare"} <= runs["REM, 2 facts"].keys()
    assert "perplexity before rem" not in runs["default, 2 facts"]


@pytest.mark.slow
def test_a_watched_night_is_an_ordinary_night(benchmark: Callable[[str], ModuleType]) -> None:
    experiments, bench = benchmark("sleep_experiments"), benchmark("sleep_bench")
    spec = benchmark("sleep").SleepSpec(steps=3, rehearsal_rows=2, validation_rows=4)
    made = bench.bench_of("tiny", "float32", spec, bench.QUICK)
    facts, points = made.draw(0, 2), []
    for night in (made.night, lambda *args: experiments._watched_night(made, *args)):
        learner = made.learner(0)
        learner.inject(facts)
        points.append(night(learner, facts))
    plain, watched = points
    assert {k: v for k, v in watched.items() if k in plain and k != "seconds"} == {
        k: v for k, v in plain.items() if k != "seconds"
    }


def test_report_has_a_picture_and_a_table_of_every_experiment(
    run_script: Callable[..., str], read: Callable[[str], dict], tmp_path: Path
) -> None:
    for experiment in QUICK:
        (tmp_path / f"tiny.{experiment}.json").write_text(json.dumps(read(experiment)))
    (tmp_path / "page.md").write_text(PAGE)
    run_script("benchmarks/sleep_report.py", "--folder", ".", "--page", "page.md", cwd=tmp_path)
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("head\n") and page.endswith("\ntail\n") and "\nold\n" not in page
    assert "\nwords of a person\n" in page
    for experiment in QUICK:
        assert f"(tiny.{experiment}.png)" in page
        assert (tmp_path / f"tiny.{experiment}.png").stat().st_size > 10_000
    assert "Llama 3.1 8B unless noted" in page
    widths = [line.count("|") for line in page.splitlines() if line.startswith("|")]
    assert min(widths) > 3


@pytest.mark.slow
def test_command_line_runs_only_the_variants_asked_for(run_script: Callable[..., str], tmp_path: Path) -> None:
    shown = run_script(
        "benchmarks/sleep.py", "sweep", *SHORT, "--counts", "1", "2", "--variants", "1 facts",
        "--changes", "nights", "1", "--out", "only.json", cwd=tmp_path,
    )  # fmt: skip
    (run,) = json.loads((tmp_path / "only.json").read_text())["runs"]
    assert run["variant"] == "1 facts" and len(run["points"]) == 2
    assert "Consolidation" in shown


def test_cycles_needed_starts_over_after_a_relapse(benchmark: Callable[[str], ModuleType]) -> None:
    needed = benchmark("sleep_tables").cycles_needed
    nights = [{"cycle": n, "recall after": recall} for n, recall in enumerate((1.0, 0.9, 1.0, 1.0), start=1)]
    assert needed([{"raw": 0.4}, *nights]) == 3
    assert needed([{"raw": 0.4}, *nights[:2]]) is None
    assert needed([{"raw": 1.0}, *nights[2:]]) == 0
