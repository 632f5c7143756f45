"""An earlier version plays the same episodes as the present one, and goals are met or not by what was measured."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
QUICK = {
    "edit": {"steps": 2},
    "sleep": {"steps": 2, "rehearsal_rows": 1, "validation_rows": 2},
    "episode": {"perplexity_rows": 2},
}


@pytest.fixture
def before(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("before")


@pytest.fixture
def rounds(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("throughput_before")


@pytest.fixture
def page(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("throughput_page")


# -------------------------------------------------------------------- the other version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a tag ``old`` and a later commit."""
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *author, *arguments], check=True, capture_output=True)

    git("init")
    for number, text in enumerate(("old", "new")):
        (tmp_path / "file").write_text(text, encoding="utf-8")
        git("add", "file")
        git("commit", "-m", text)
        if not number:
            git("tag", "old")
    return tmp_path


def test_a_worktree_has_the_files_of_its_commit_and_leaves_nothing_behind(before: ModuleType, repository: Path) -> None:
    with before.worktree("old", repository) as path:
        assert (path / "file").read_text(encoding="utf-8") == "old"
    assert not path.exists()
    known = subprocess.run(["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True)
    assert len(known.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", ["before-engine", "--all"])
def test_a_commit_that_is_not_there_is_named_with_what_to_do(before: ModuleType, repository: Path, name: str) -> None:
    with pytest.raises(SystemExit, match=rf"found none that is called '{name}'; fetch it .*--before COMMIT"):
        before.commit_of(name, repository)


def test_targets_of_a_side_are_its_own_and_all_else_is_shared(before: ModuleType) -> None:
    with before.own_targets() as cache:
        kept = {path.name: path.resolve() for path in cache.iterdir()}
        assert set(kept) == set(before.KEPT)
    assert not cache.exists() and all(path.is_dir() for path in kept.values())


@pytest.mark.slow
def test_both_sides_play_in_processes_of_their_own(rounds: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def here(commit: str) -> Iterator[Path]:
        yield ROOT

    monkeypatch.setattr(rounds, "worktree", here)
    monkeypatch.setattr(rounds, "commit_of", str.upper)
    timetable = (*["WAIT"] * 5, "INJECT")  # seed 1 has its first facts at tick 4
    found = rounds.compared("here", "SleepLLM-Mini-v0", timetable, 1, 1, processes=1, overrides=QUICK)
    assert (found["before"], found["commit"], found["steps of an episode"]) == ("here", "HERE", 6)
    [only] = found["rounds"]
    assert only["new"].keys() == only["before"].keys() == {rounds.FRESH, rounds.CACHED}
    for figures in (*only["new"].values(), *only["before"].values()):
        assert {"steps/s", "WAIT (ms)", "INJECT (ms)", "reset (ms)"} <= figures.keys()
        assert all(value > 0 for value in figures.values())


def test_a_player_that_imports_another_package_is_refused(before: ModuleType, tmp_path: Path) -> None:
    for folder in ("sleepgym", "envs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    with pytest.raises(RuntimeError, match=r"expected the package in .*, found the one in"):
        before.Player(tmp_path, tmp_path / "cache", "CartPole-v1")  # no model to load: what plays is the package's


# -------------------------------------------------------------------- rounds


class Clockwork:
    """A player without a model: steps take a given number of milliseconds, and half of that the second time."""

    def __init__(self, ms: float) -> None:
        self.ms, self.told = ms, []

    def begin(self, seeds: Sequence[int], timetable: Sequence[str]) -> None:
        self.told.append([*seeds])

    def answer(self) -> dict[str, Any]:
        ms = self.ms / min(2, len(self.told))
        return {"reset": [1.0, 3.0], "steps": {"WAIT": [ms, ms], "INJECT": [4 * ms], "PRUNE": []}}

    def play(self, seeds: Sequence[int], timetable: Sequence[str]) -> dict[str, Any]:
        self.begin(seeds, timetable)
        return self.answer()


def test_a_round_has_new_facts_the_same_again_and_all_players_at_a_time(rounds: ModuleType) -> None:
    players = [Clockwork(20), Clockwork(40)]
    found = rounds.Side(players).round([3, 4], ["WAIT", "INJECT", "WAIT"])
    assert [len(player.told) for player in players] == [3, 2], "the second one has seen the facts as well"
    assert found[rounds.FRESH] == {"steps/s": 25, "WAIT (ms)": 20, "INJECT (ms)": 80, "reset (ms)": 2}
    assert found[rounds.CACHED]["steps/s"] == 50
    # Six steps until the slower one is done, 120 ms.
    assert found[rounds.TOGETHER] == pytest.approx({"steps/s": 50, "times one process": 1})
    assert rounds.TOGETHER not in rounds.Side(players[:1]).round([5], ["WAIT"])


Sides = tuple[dict[str, float], dict[str, float]]


def compared(rounds: ModuleType, *played: Sides) -> dict[str, Any]:
    """A record of rounds, each with figures of the new side and of the one before."""
    found = [{"new": {rounds.CACHED: new}, "before": {rounds.CACHED: old}} for new, old in played]
    return {"card": "A", "processes": 2, "rows": rounds.rows(found)}


def test_ratios_are_those_of_a_round_and_above_one_if_the_new_side_is_faster(rounds: ModuleType) -> None:
    found = compared(
        rounds,
        ({"steps/s": 60, "WAIT (ms)": 1}, {"steps/s": 10, "WAIT (ms)": 3}),
        ({"steps/s": 90, "WAIT (ms)": 4, "PRUNE (ms)": 1}, {"steps/s": 10, "WAIT (ms)": 4, "PRUNE (ms)": 1}),
        ({"steps/s": 10, "WAIT (ms)": 1}, {"steps/s": 5, "WAIT (ms)": 2}),
    )
    rate = rounds.row(found, rounds.CACHED, "steps/s")
    assert rate["times as fast"] == {"median": 6, "lowest": 2, "highest": 9}
    assert rate["before"]["median"] == 10 and rate["new"]["highest"] == 90
    assert rounds.row(found, rounds.CACHED, "WAIT (ms)")["times as fast"]["median"] == 2
    assert rounds.row(found, rounds.CACHED, "PRUNE (ms)") is None, "it was not possible in every round"


def test_goals_are_met_by_medians_and_open_where_nothing_was_measured(rounds: ModuleType, page: ModuleType) -> None:
    new = {"steps/s": 60, "SLEEP (ms)": 251, "WAIT (ms)": 0.4}
    found = {"before": compared(rounds, (new, {"steps/s": 10, "SLEEP (ms)": 502, "WAIT (ms)": 4}))}
    rows = page.goals(found)[1]
    assert [met for *_, measured, met in rows if measured != "not measured"] == ["yes", "no", "yes"]
    assert len(rows) == len(page.GOALS)
    assert rows[0][1:] == ["at least 6", "6.00 (6.00 to 6.00)", "yes"]
    assert rows[-1][1:] == ["at least 2", "not measured", ""]
    [(card, (_, [first, *_]))] = page.before(found).items()
    assert (card, first[:2], first[-1]) == ("A", [rounds.CACHED, "steps/s"], "6.00 (6.00 to 6.00)")
