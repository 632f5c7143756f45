"""What the results page says follows from the scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sleepgym.env.render.picture import to_array
from sleepgym.evaluation import ScoreError, ScoreMatrix, run_episode
from sleepgym.leaderboard.players import player_named
from sleepgym.leaderboard.playing import FIRST_SEED, make_test_env
from sleepgym.training import PolicyCard


@pytest.fixture
def results(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("results")


@pytest.fixture
def data(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("results_data")


def save(folder: Path, name: str, *scores: float, first: int = 0, learned_by: str = "maskable") -> None:
    """Writes an entry; that of a policy has its card."""
    streams, entry = tuple(range(first, first + len(scores))), folder / name.replace(":", "-")
    ScoreMatrix(name, streams, np.array([scores])).save(entry / "scores.json")
    if name.endswith(".zip"):
        card = PolicyCard(
            algorithm="MaskablePPO", env_id="SleepSim-v0", seed=0, steps=1, arguments={"algorithm": learned_by}
        )
        (entry / "policy.json").write_text(card.model_dump_json())


def test_policies_are_runs_of_how_they_learned(results: ModuleType, data: ModuleType, tmp_path: Path) -> None:
    save(tmp_path, "night-owl", 0.1, 0.2)
    save(tmp_path, "maskable-ppo:b.zip", 0.5, 0.6)
    save(tmp_path, "maskable-ppo:a.zip", 0.3, 0.4)
    save(tmp_path, "maskable-ppo:cloned.zip", 0.8, 0.9, learned_by="bc")
    found = results.matrices(tmp_path)
    assert found.keys() == {"night-owl", "PPO", data.OFFLINE["bc"]}
    assert found["PPO"].scores.tolist() == [[0.3, 0.4], [0.5, 0.6]]
    assert data.best_rule(found) == "night-owl", "a policy is no rule"
    save(tmp_path, "maskable-ppo:c.zip", 0.5, 0.6, first=7)
    with pytest.raises(ScoreError, match="expected policies on the same streams"):
        results.matrices(tmp_path)


def test_what_was_not_played_is_asked_for(results: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="found none; play them first"):
        results.played(tmp_path)


@pytest.fixture
def args(results: ModuleType, tmp_path: Path) -> Any:
    """A rule and a policy are recorded, each on one stream, and another policy has played since."""
    env_id = "SleepLLM-Mini-v0"
    made = results.Args(played=tmp_path / "played", planner=tmp_path / "planner", out=tmp_path / "out", env_id=env_id)
    env = make_test_env(env_id)
    played = run_episode(env, player_named("never-sleep", env).scheduler, FIRST_SEED)
    for name, score in {"never-sleep": played.score, "PPO": 0.5}.items():
        ScoreMatrix(name, (FIRST_SEED,), np.array([[score]])).save(made.out / env_id / f"{name}.json")
    save(made.played / env_id, "ppo:a.zip", 0.7, first=FIRST_SEED)
    (made.played / env_id / "leaderboard.md").write_text("| scheduler | score |\n| --- | ---: |\n| a.zip | 0.7 |\n")
    return made


def test_scores_join_those_of_the_same_machine(results: ModuleType, args: Any) -> None:
    shown = args.out / "leaderboard.md"
    shown.write_text("# Env\n\n| scheduler | score |\n| --- | ---: |\n| never-sleep | 0.6 |\n")
    before = results.recorded(args.out / args.env_id)["never-sleep"].scores[0, 0]
    results.record_scores(args, args.env_id)
    assert {name: float(one.scores[0, 0]) for name, one in results.recorded(args.out / args.env_id).items()} == {
        "never-sleep": before,
        "PPO": 0.7,
    }
    assert [line.split("|")[1].strip() for line in shown.read_text().splitlines()[4:]] == ["a.zip", "never-sleep"]


def test_scores_of_another_machine_are_refused(results: ModuleType, args: Any) -> None:
    path = args.out / args.env_id / "never-sleep.json"
    one = ScoreMatrix.load(path)
    ScoreMatrix(one.name, one.streams, one.scores + 0.01).save(path)
    with pytest.raises(SystemExit, match=r"expected scores of one machine .*play never-sleep anew"):
        results.record_scores(args, args.env_id)
    assert results.recorded(args.out / args.env_id)["PPO"].scores == 0.5, "nothing was written"


def test_only_the_planner_is_recorded_as_such(results: ModuleType, args: Any) -> None:
    save(args.planner, "night-owl", 0.5)
    with pytest.raises(SystemExit, match=r"expected entries of benchmarks.planner:planner .*, found night-owl"):
        results.record_planner(args)


def test_nothing_of_an_earlier_planner_stays(results: ModuleType, args: Any) -> None:
    save(args.planner, "benchmarks.planner:planner", 0.8)
    for name in ("benchmarks.planner:planner", "night-owl"):
        ScoreMatrix(name, (0,), np.array([[0.5]])).save(args.out / "planner" / f"{name.replace(':', '-')}.json")
    results.record_planner(args)
    found = results.recorded(args.out / "planner")
    assert {name: float(one.scores[0, 0]) for name, one in found.items()} == {"benchmarks.planner:planner": 0.8}


def test_the_gap_is_that_between_means(data: ModuleType) -> None:
    policies, rule, planner = np.array([[0.5, 0.7], [0.6, 0.8]]), np.array([[0.4, 0.6]]), np.array([[0.7, 0.9]])
    assert data.gap_closed(policies, rule, planner) == pytest.approx(0.5)


def test_noise_is_that_of_paired_differences(data: ModuleType) -> None:
    rng = np.random.default_rng(0)
    streams = rng.normal(0.6, 0.1, 4000)  # how hard a stream is cancels out
    rule, policies = streams[None], streams + 0.01 + rng.normal(0, 0.03, (3, 4000))
    found = data.noise(policies, rule)
    assert found["beyond"] == pytest.approx(0.03, rel=0.05)
    assert found["between"] == pytest.approx(0.03 * 2**0.5, rel=0.05)
    better = (policies + found["needed"] - 0.01 > rule).mean()
    assert better == pytest.approx(data.GOAL, abs=0.02), "a gain of that much is better so often"


@pytest.fixture
def looking(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("results_habits")


def test_habits_are_mean_probabilities_by_time_and_load(looking: ModuleType) -> None:
    moments = [
        looking.Moment(0, 0.3, 0.1, (0.1, 0, 0, 0, 0.9, 0)),
        looking.Moment(3, 0.3, 0.0, (0.6, 0, 0, 0, 0.4, 0)),
        looking.Moment(9, 0.5, 0.0, (0.0, 1, 0, 0, 0.0, 0)),
    ]
    assert [looking.Moment.of_row(moment.row()) for moment in moments] == moments
    _, _, *rows = looking.habits(moments, night=4).splitlines()
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["at night, 0.2 to 0.4", "0.35", "0.00", "0.00", "0.00", "0.65", "0.00", "2"],
        ["by day, 0.4 and more", "0.00", "1.00", "0.00", "0.00", "0.00", "0.00", "1"],
    ]
    figure = looking.habit_figure(moments, day=16, night=4)
    [sleep] = [axes for axes in figure.axes if axes.get_title() == "SLEEP"]
    drawn = sleep.images[0].get_array()
    assert (drawn[3, 0], drawn[3, 3]) == pytest.approx((0.9, 0.4)), "rows are loads, columns ticks since nightfall"
    assert np.ma.getmaskarray(drawn).sum() == drawn.size - 3, "what was never met stays empty"


def test_one_stream_is_lived_through_by_each(looking: ModuleType) -> None:
    record = json.loads(json.dumps(looking.side_by_side(["never-sleep", "night-owl"], "SleepLLM-Mini-v0", 10_000_000)))
    assert to_array(looking.episode_figure(record)).shape == (480, 1280, 3)
    table = looking.episode_table(record)
    assert "| falls asleep, of which at night | 0, 0 |" in table and "no night" in table


def test_who_has_not_played_anew_keeps_the_row_of_the_table(results: ModuleType) -> None:
    table = "**Env**\n\n| scheduler | score | edits |\n| --- | ---: | ---: |\n"
    before = table + "| rule | 0.700 [0.6, 0.8] | 1 |\n| a.zip | 0.600 [0.5, 0.7] | 2 |\n"
    played = table + "| a.zip | 0.750 [0.7, 0.8] | 3 |\n| b.zip | 0.650 [0.6, 0.7] | 4 |\n"
    assert results.ranked(played) == played
    *_, first, second, third = results.ranked(played, f"# Env\n\n{before}").splitlines()
    assert [first, second, third] == [*played.splitlines()[4:5], *before.splitlines()[4:5], *played.splitlines()[5:6]]


def test_ways_of_training_are_told_with_what_they_took(results: ModuleType, data: ModuleType, args: Any) -> None:
    args.ways = args.played / "ways"
    for seed, (score, steps) in enumerate([(0.6, 100), (0.4, 300)]):
        entry = args.ways / "real_only" / f"ppo-{seed}.zip"
        ScoreMatrix(f"ppo-{seed}.zip", (FIRST_SEED,), np.array([[score]])).save(entry / "scores.json")
        card = PolicyCard(algorithm="PPO", env_id=args.env_id, seed=seed, steps=steps, hours=0.5 + seed)
        (entry / "policy.json").write_text(card.model_dump_json())
    results.record_ways(args)
    cards = [PolicyCard(algorithm="PPO", env_id="SleepSim-v0", seed=0, steps=7, hours=1.0)]
    found = data.ways_of(args.out, results.recorded(args.out / args.env_id), cards)
    assert list(found) == ["sim only", "real only"], "names of folders, with blanks"
    assert found["real only"].scores.scores.tolist() == [[0.6], [0.4]]
    assert (found["real only"].steps, found["real only"].minutes) == ([100, 300], [30.0, 90.0])
    assert (found["sim only"].scores.scores.tolist(), found["sim only"].minutes) == ([[0.5]], [60.0])
    (args.ways / "nothing").mkdir()
    with pytest.raises(SystemExit, match="found none; play them first"):
        results.record_ways(args)
