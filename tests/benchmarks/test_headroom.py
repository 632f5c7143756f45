"""The headroom benchmark finds the rungs of its ladder and compares neighbours on the streams that both have played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.evaluation import EpisodeResult, run_episode
from sleepgym.schedulers import NightOwl
from sleepgym.sim.maker import FITS

PLANNER = "planner"


@pytest.fixture
def headroom(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("headroom")


def episodes(*scores: float) -> list[EpisodeResult]:
    one = EpisodeResult(
        seed=0, score=0.0, recall=1.0, edits_used=1, budget=2, sleeps=0, naps=0, ppl_ratio=1.0, seconds=0.1,
        episode_return=1.0, collapsed=False, actions=(0, 1),
    )  # fmt: skip
    return [replace(one, seed=1000 + i, score=score) for i, score in enumerate(scores)]


RESULTS = {
    "random": episodes(0.1, 0.2, 0.3),
    "never-sleep": episodes(0.4, 0.5, 0.6),
    "planner without REFRESH": episodes(0.9, 0.9, 0.9),
    "fixed-period:days=1.0": episodes(0.5, 0.6, 0.7),
    "fixed-period:days=2.0": episodes(0.5, 0.5, 0.6),
    "night-owl": episodes(0.7, 0.7, 0.7),
    "drowsiness": episodes(0.2, 0.2, 0.2),
    PLANNER: episodes(0.8, 0.9),
}


def test_rungs_are_the_best_of_their_kind(headroom: ModuleType) -> None:
    rungs = ["random", "never-sleep", "fixed-period:days=1.0", "night-owl", PLANNER]
    assert headroom.ladder(RESULTS) == rungs
    without = {name: of for name, of in RESULTS.items() if name != PLANNER}
    assert headroom.ladder(without) == rungs[:-1]


def test_neighbours_are_compared_on_the_streams_that_both_have_played(headroom: ModuleType) -> None:
    rungs = headroom.ladder(RESULTS)
    found = headroom.paired(RESULTS, list(zip(rungs[1:], rungs[:-1], strict=True)), seed=0)
    points = {name: comparison.difference.point for name, comparison in found.items()}
    assert points == {
        "never-sleep - random (3 streams)": pytest.approx(0.3),
        "fixed-period:days=1.0 - never-sleep (3 streams)": pytest.approx(0.1),
        "night-owl - fixed-period:days=1.0 (3 streams)": pytest.approx(0.1),
        f"{PLANNER} - night-owl (2 streams)": pytest.approx(0.15),
    }


def test_episodes_that_were_played_are_not_played_again(headroom: ModuleType) -> None:
    args = headroom.Args(streams=3, forbidden_streams=2, rules=("night-owl",))
    done = {name: {e.seed: e for e in of} for name, of in RESULTS.items() if name != "night-owl"}
    del done["random"][1001]
    left = {(job.name, job.seeds) for job in headroom.jobs(args, done) if not job.name.startswith("fixed-period")}
    without = {(f"{PLANNER} without {name}", (1000, 1001)) for name in ("INJECT", "NAP", "SLEEP", "PRUNE")}
    assert left == {
        ("random", (1001,)), ("night-owl", (1000, 1001)), ("night-owl", (1002,)), (PLANNER, (1002,)), *without,
    }  # fmt: skip


def test_actions_are_counted_per_episode(headroom: ModuleType) -> None:
    sheet = headroom.actions_sheet({"a": episodes(0.1, 0.2), "b": [replace(episodes(0.1)[0], actions=((4, 0, 1),))]})
    assert [list(row) for row in sheet.rows] == [["a", 1, 1, 0, 0, 0, 0], ["b", 0, 0, 0, 0, 1, 0]]


@pytest.mark.slow
def test_a_run_writes_what_the_next_one_reads(
    headroom: ModuleType, run_script: Callable[..., str], tmp_path: Path
) -> None:
    out, page = tmp_path / "headroom.json", tmp_path / "headroom.md"
    arguments = (
        "--env-id",
        "SleepLLM-Mini-v0",
        "--streams",
        "1",
        "--periods",
        "1.0",
        "--rules",
        "night-owl",
        "--forbidden-streams",
        "0",
        "--follows",
        "night-owl",
        "--draws",
        "1",
        "--ticks",
        "2",
        "--fit",
        str(FITS / "SleepLLM-v0.safetensors"),
        "--processes",
        "1",
    )
    shown = run_script("benchmarks/headroom.py", *arguments, "--out", str(out), "--page", str(page), cwd=tmp_path)
    assert "never-sleep" in shown and "| night-owl |" in page.read_text(encoding="utf-8")
    read = headroom.read(out, "SleepLLM-Mini-v0")
    assert set(read) == {"random", "never-sleep", "night-owl", "fixed-period:days=1.0", PLANNER}
    assert all(isinstance(e, EpisodeResult) and e.actions for of in read.values() for e in of.values())
    with pytest.raises(SystemExit, match=r"expected episodes of SleepLLM-v0 in .*, found those of SleepLLM-Mini-v0"):
        headroom.read(out, "SleepLLM-v0")


def test_recorded_episodes_are_performed_again(headroom: ModuleType, quick_card: Path) -> None:
    env = gym.make("SleepLLM-Mini-v0", card=str(quick_card), split="validation")
    recorded = run_episode(env, NightOwl(), seed=1000)

    def make(env_id: str, split: str) -> gym.Env[Any, Any]:
        return env

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headroom.gym, "make", make)
        assert headroom.replayed("SleepLLM-Mini-v0", recorded) == 0
        assert headroom.replayed("SleepLLM-Mini-v0", replace(recorded, score=recorded.score + 0.25)) == pytest.approx(
            0.25
        )
