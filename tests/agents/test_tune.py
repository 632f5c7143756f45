"""The sweep tries every combination and says which was best."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sleepgym.evaluation import EpisodeResult
from sleepgym.schedulers import scheduler_named
from sleepgym.sim.maker import FITS


@pytest.mark.slow
def test_the_best_of_all_combinations_is_named(
    call: Callable[..., str], quick_card: Path, tmp_path: Path, script: Callable[[str], ModuleType]
) -> None:
    where = ("--env-id", "SleepLLM-Mini-v0", "--card", str(quick_card), "--out", "tuned.json")
    rounds = ("--episodes", "2", "--finalists", "1", "--final-episodes", "1")
    shown = call("tune", *where, *rounds, "--schedulers", "never-sleep", "fixed-period")
    found = json.loads((tmp_path / "tuned.json").read_text())
    page = (tmp_path / "tuned.md").read_text()
    combinations = sum(len(script("tune").combinations(name)) for name in ("never-sleep", "fixed-period"))
    assert (found["split"], found["episodes"], len(found["rows"])) == ("train", 2, combinations)
    for name in ("never-sleep", "fixed-period"):
        rows = [row for row in found["rows"] if row["scheduler"].startswith(name)]
        [final] = [row for row in rows if len(row["scores"]) == 3]
        assert all(len(row["scores"]) == 2 for row in rows if row is not final)
        assert sum(final["scores"][:2]) == max(sum(row["scores"][:2]) for row in rows)
        assert f"best {name}: {sum(final['scores']) / 3:.3f} with {final['scheduler']}" in shown
        assert f"**{name}: 1 combinations on 3 streams**" in page
    assert "Written by `sleepgym tune --env-id SleepLLM-Mini-v0 --card" in page
    assert (
        "--schedulers never-sleep fixed-period --episodes 2 --finalists 1 --final-episodes 1 --out tuned.json`" in page
    )


def test_who_was_best_of_few_streams_goes_on_and_who_is_best_of_all_wins(
    script: Callable[[str], ModuleType], episode: Callable[..., EpisodeResult]
) -> None:
    def episodes(*scores: float) -> list[EpisodeResult]:
        return [episode(seed=seed, score=score) for seed, score in enumerate(scores)]

    tune = script("tune")
    assert tune.ranked({"b": episodes(0.5), "a": episodes(0.6), "c": episodes(0.4)}) == ["a", "b", "c"]
    # Two that played alike are one.
    assert tune.finalists({"b": episodes(0.5), "a": episodes(0.6), "c": episodes(0.5)}) == ["a", "b"]
    # More streams count more than a lucky few.
    assert tune.ranked({"b": episodes(0.5, 0.5), "a": episodes(0.6), "c": episodes(0.4, 0.8)}) == ["c", "b", "a"]


def test_who_scores_alike_in_the_sim_plays_there_alike_and_goes_on_once(script: Callable[[str], ModuleType]) -> None:
    assert script("tune").distinct({"a": 0.5, "b": 0.7, "c": 0.7, "d": 0.6}) == ["b", "d", "a"]


def test_processes_get_as_many_streams_at_a_time_as_there_are_slots(script: Callable[[str], ModuleType]) -> None:
    tune = script("tune")
    found = [(job.scheduler, list(job.seeds)) for job in tune.jobs(tune.Args(slots=2), ["a", "b"], range(4, 7))]
    assert found == [("a", [4, 5]), ("a", [6]), ("b", [4, 5]), ("b", [6])]


def test_every_combination_of_every_grid_is_a_scheduler(script: Callable[[str], ModuleType]) -> None:
    tune = script("tune")
    for name in tune.GRIDS:
        texts = tune.combinations(name)
        made = {scheduler_named(text) for text in texts}
        assert len(made) == len(texts) > 1


def test_an_unknown_scheduler_is_reported(call: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match=r"expected schedulers out of night-owl, .* found owl"):
        call("tune", "--schedulers", "owl")


def test_the_first_round_is_simulated_with_a_fit(
    call: Callable[..., str], quick_card: Path, tmp_path: Path, script: Callable[[str], ModuleType]
) -> None:
    fit = sorted(FITS.glob("*.safetensors"))[0]
    where = ("--env-id", "SleepLLM-Mini-v0", "--card", str(quick_card), "--out", "tuned.json", "--fit", str(fit))
    rounds = ("--sim-streams", "4", "--finalists", "1", "--final-episodes", "1")
    shown = call("tune", *where, *rounds, "--schedulers", "fixed-period", "caretaker")
    found = json.loads((tmp_path / "tuned.json").read_text())
    assert [len(of) for of in found["sim_scores"].values()] == [len(script("tune").combinations("fixed-period")), 1]
    assert [len(row["scores"]) for row in found["rows"]] == [1, 1]
    best = max(found["sim_scores"]["fixed-period"], key=found["sim_scores"]["fixed-period"].get)
    assert found["rows"][0]["scheduler"] == best and f"with {best}" in shown
    [text] = found["sim_scores"]["caretaker"]
    assert scheduler_named(text).name == "Caretaker"


def test_only_a_fit_finds_a_caretaker(call: Callable[..., str]) -> None:
    with pytest.raises(SystemExit, match=r"expected schedulers out of .*, found caretaker"):
        call("tune", "--schedulers", "caretaker")
