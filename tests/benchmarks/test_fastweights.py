"""The benchmark of fast weights trains every control, measures it, and writes a page from the records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fastweights, fastweights_page, fastweights_play
from benchmarks.common import records
from benchmarks.fastweights import Measure, Train
from benchmarks.fastweights_places import CASES, by_place
from sleepgym.fastweights import FastWeightModel, Hops, ModelSpec
from sleepgym.fastweights.train import Args

SMALL = {"seeds": 2, "tasks": ("hops",), "steps": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two steps, and what was measured of them."""
    place = tmp_path_factory.mktemp("fastweights")
    fastweights.train_all(Train(runs=place / "runs", processes=1, **SMALL))  # type: ignore[arg-type]
    small = Measure(runs=place / "runs", sequences=8, repeats=2, out=place / "out", page=place / "page.md", **SMALL)  # type: ignore[arg-type]
    fastweights.measure_all(small)
    return place


@pytest.mark.slow
def test_all_controls_are_trained_for_all_seeds_and_are_not_trained_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {path.name for path in (folder / "runs").iterdir()}
    kinds = ("n1", "n2", "n4", "n0", "flops", "deep", "uncut")
    assert names == {f"hops-{kind}-{seed}" for kind in kinds for seed in (1, 2)}
    fastweights.train_all(Train(runs=folder / "runs", **SMALL))  # type: ignore[arg-type]
    assert "0 runs to train" in capsys.readouterr().out


@pytest.mark.slow
def test_the_control_has_the_training_flops_of_the_largest_n(folder: Path) -> None:
    runs = {run["kind"]: run for run in records.read(folder / "out" / "hops.json")["runs"]}
    most, control, one = runs["n4"]["flops"], runs["flops"]["flops"], runs["n1"]["flops"]
    # Whole steps: of two, one may be half a step off.
    assert abs(control - most) <= one / 4
    assert most > 1.5 * one


def test_a_pass_more_costs_as_many_flops_as_the_one_before() -> None:
    # From the second on: the first has no gradient to hand to an S before it.
    costs = [fastweights.flops(Args(task="hops", passes=passes, blocks=1, batch=2)) for passes in (2, 3, 4)]
    assert costs[1] - costs[0] == costs[2] - costs[1] > 0


@pytest.mark.slow
def test_a_frozen_state_scores_as_one_pass_does(folder: Path) -> None:
    record = records.read(folder / "out" / "hops.json")
    kinds = {(run["kind"], run["passes"]) for run in record["runs"]}
    expected = {("n1", 1), ("n2", 2), ("n4", 4), ("frozen", 2), ("frozen", 4), ("flops", 1), ("deep", 1), ("uncut", 1)}
    assert kinds == expected | {("all N", passes) for passes in (1, 2, 4)}
    # A model that reads in one pass is the first of the rows of all N.
    sizes = {row["passes"]: row["bytes of S"] for row in record["times"]}
    assert sizes == dict.fromkeys((1, 2, 4), 48 * 48 * 4)


@pytest.mark.slow
def test_the_page_says_what_the_records_say(folder: Path) -> None:
    page, record = (folder / "page.md").read_text(encoding="utf-8"), records.read(folder / "out" / "hops.json")
    for name in ("N = 1", "N = 4", "attention with the context kept", "the most frequent answer"):
        assert f"| {name} |" in page
    made = fastweights_page.contents(folder / "out")
    there = {*fastweights_page.names("hops"), "places"}
    assert {name for name, block in made.items() if block != "Not measured yet."} == there
    assert all(block in page for block in made.values())
    shares = fastweights_page.shares(record, "n4", 4, "joint")
    one, two = shares[1][1], shares[1][2]
    shown = fastweights_page.interval([one, two])
    assert shown in made["accuracy on hops"]


def test_questions_of_two_hops_are_told_apart_by_where_their_steps_stand() -> None:
    task = Hops(people=6, deepest=2, queries=4)
    found = by_place(FastWeightModel(ModelSpec(task.vocabulary, 12, width=8, blocks=1, heads=1)), task, 1, 500)
    asked = {case["windows"]: case["asked"] for case in found}
    # The second step is any of five others, of which two stand in the window of the first.
    assert sum(asked.values()) == 2000
    for first, second in CASES:
        share = (2 if first == second else 3) / 10
        assert asked[first, second] == pytest.approx(2000 * share, abs=120)
    assert all(0 <= case["right"] <= case["asked"] for case in found)


def test_the_ratio_of_medians_is_between_its_bounds_and_knows_pairs() -> None:
    rng = np.random.default_rng(0)
    noise = rng.lognormal(size=200)  # what a busy machine adds to both of a round
    found = fastweights.relative(list(1.1 * noise), list(noise))
    assert found == pytest.approx({"ratio": 1.1, "low": 1.1, "high": 1.1})
    apart = fastweights.relative(list(rng.lognormal(size=200)), list(noise))
    assert apart["low"] < apart["ratio"] < apart["high"]
    assert apart["low"] < 1 < apart["high"]


def test_intervals_are_those_of_student() -> None:
    # t of two degrees of freedom at 0.975 is 4.303; the standard error of 0, 1, 2 is 1 / sqrt 3.
    assert fastweights_page.interval([0.0, 1.0, 2.0]) == "1.00 ± 2.48"
    assert fastweights_page.interval([0.5]) == "0.50"


@pytest.mark.slow
def test_only_what_has_ended_is_measured(folder: Path) -> None:
    args = Measure(runs=folder / "runs", sequences=8, repeats=1, **(SMALL | {"steps": 3}))  # type: ignore[arg-type]
    assert fastweights.measured(args, "hops") == {}
    assert fastweights.measured(replace(args, runs=folder / "nowhere"), "hops") == {}


@pytest.mark.slow
def test_players_play_the_same_streams_and_the_page_compares_them_with_the_best_fixed_n(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fastweights_play, "LOSSES", (0.1,))
    monkeypatch.setattr(fastweights_play, "HOPELESS", (0.7,))
    monkeypatch.setattr(fastweights_play, "PATIENCE", (0.5,))
    monkeypatch.setattr(fastweights_play, "CHANGES", (0.5, 0.9))
    place = folder / "out" / "play.json"
    args = fastweights_play.Args(
        streams=2,
        tuning_streams=1,
        ppo_steps=256,
        ppo_envs=2,
        ppo_seeds=2,
        planner_streams=1,
        out=place,
        page=folder / "page.md",
    )
    fastweights_play.main(replace(args, planner_streams=0))
    first = records.read(place)
    monkeypatch.setattr(fastweights_play, "learned", None)  # who has played does not play again
    fastweights_play.main(args)
    record = records.read(place)
    assert record["players"][:-1] == first["players"]
    assert [player["kind"] for player in record["players"]] == ["fixed"] * 5 + ["rule"] * 5 + ["learned"] * 2 + [
        "planner"
    ]
    assert all(len(player["scores"]) == len(player["slept"]) == 2 for player in record["players"][:-1])
    windows = 2 * record["card"]["stream"]["documents"]
    assert [player["slept"] for player in record["players"][:5]] == [[n * windows] * 2 for n in range(5)]
    table = fastweights_page.played(record)
    best = max(record["players"][:5], key=lambda player: sum(player["scores"]))
    assert "mean of 2 runs of PPO" in table
    assert f"minus {best['name']}" in table and table in (folder / "page.md").read_text(encoding="utf-8")
