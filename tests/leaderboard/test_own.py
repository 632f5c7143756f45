"""Schedulers of one's own play on the leaderboard by module or file, and say what they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sleepgym.cli.main import main
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.evaluation import run_episode
from sleepgym.leaderboard import PlayerNameError, Submission, player_named
from sleepgym.leaderboard.playing import leaderboard_sheet
from sleepgym.leaderboard.submission import _Episodes

MINI = "SleepLLM-Mini-v0"
SOURCE = """
from dataclasses import dataclass

from sleepgym.episode.actions import Action
from sleepgym.schedulers import NightOwl, Scheduler, keep_up


@dataclass(frozen=True)
class Siesta(Scheduler):
    nap_at: int = 3

    def act(self, observation, mask):
        return keep_up(observation, mask)


class Plain(Scheduler):
    def act(self, observation, mask):
        return Action.WAIT


class Needy(Scheduler):
    def __init__(self, nights):
        self.nights = nights

    def act(self, observation, mask):
        return Action.WAIT


LONG = Siesta(nap_at=5)
NUMBER = 3


def choose(observation, mask):
    return Action.WAIT


def make(env, seed):
    return NightOwl()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The present folder, with a module of a name that no other test imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"own_{abs(hash(request.node.nodeid))}.py").write_text(SOURCE, encoding="utf-8")
    yield tmp_path


@pytest.fixture
def module(folder: Path) -> str:
    return next(folder.glob("own_*.py")).stem


@pytest.fixture(scope="module")
def env() -> SleepEnv:
    return SleepEnv(MINI, episode={"days": 1})


@pytest.mark.parametrize(
    ("name", "fields"),
    [("Siesta", "(nap_at=3)"), ("Plain", ""), ("LONG", " = Siesta(nap_at=5)"), ("choose", ""), ("make", "")],
)
@pytest.mark.parametrize("form", ["module", "file", "path"])
def test_it_is_named_by_module_or_file_and_its_rule_says_which(
    folder: Path, module: str, env: SleepEnv, name: str, fields: str, form: str
) -> None:
    where = {"module": module, "file": f"{module}.py", "path": str(folder / f"{module}.py")}[form]
    player = player_named(f"{where}:{name}", env)
    before, _, digest = player.rule.partition(", source ")
    assert before == f"{where}:{name}{fields}"
    assert len(digest) == 12
    assert (player.name, player.policy, player.about) == (f"{where}:{name}", "", player.rule)
    assert run_episode(env, player.scheduler, 1).actions


def test_another_source_is_another_rule(folder: Path, env: SleepEnv) -> None:
    rules = []
    for number in (1, 2):
        (folder / f"own{number}.py").write_text(SOURCE.replace("NUMBER = 3", f"NUMBER = {number}"))
        rules.append(player_named(f"own{number}.py:Plain", env).rule.partition("source ")[2])
    assert rules[0] != rules[1]


def test_a_module_of_a_package_is_found(folder: Path, module: str, env: SleepEnv) -> None:
    package = folder / f"pack_{module}"
    package.mkdir()
    (package / "__init__.py").touch()
    (folder / f"{module}.py").rename(package / "rules.py")
    assert player_named(f"pack_{module}.rules:Plain", env).rule.startswith(f"pack_{module}.rules:Plain, source ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{module}:Siestas", r"expected a scheduler called 'Siestas' in own_\d+, found none; it has Siesta, Plain, "),
        ("{module}.py:nothing", "expected a scheduler called 'nothing'"),
        ("no_such_module_here:Siesta", "expected a module 'no_such_module_here', found none in .*; name its file"),
        ("no.such.module:Siesta", "expected a module"),
        ("missing.py:Siesta", r"expected a file missing\.py, found none"),
        ("{module}:NUMBER", "expected an instance of a Scheduler, .*found 3"),
        ("{module}:Needy", "found the class Needy, which needs nights"),
        ("broken.py:Siesta", "expected to import broken.py, found SyntaxError"),
        ("failing:Siesta", "expected to import failing, found ZeroDivisionError: division by zero"),
        ("wanting:Siesta", "expected to import wanting, found ModuleNotFoundError: No module named 'nobody_has_this'"),
        ("{module}", "expected a scheduler, or the path of a policy .* of your own is named after its module or file"),
        ("{module}:", "expected a scheduler, or the path of a policy"),
        ("{module}:Siesta()", "expected a scheduler, or the path of a policy"),
    ],
)
def test_mistakes_are_told_in_words(folder: Path, module: str, env: SleepEnv, text: str, message: str) -> None:
    (folder / "broken.py").write_text("class Siesta(:\n")
    (folder / "failing.py").write_text("1 / 0\n")
    (folder / "wanting.py").write_text("import nobody_has_this\n")
    with pytest.raises(PlayerNameError, match=message):
        player_named(text.format(module=module), env)


def leaderboard(*arguments: str) -> tuple[int, str, str]:
    table, said = StringIO(), StringIO()
    with redirect_stdout(table), redirect_stderr(said):
        status = main(["leaderboard", *arguments])
    return status, table.getvalue(), said.getvalue()


def test_it_plays_is_kept_and_a_changed_source_plays_again(folder: Path, module: str) -> None:
    mini = ("--env-id", MINI, "--streams", "1", "--validate", "1", "--out", "entries")
    status, table, said = leaderboard(f"{module}.py:Siesta", f"{module}:choose", *mini)
    assert status == 0, said
    assert all(
        re.search(rf"\| {re.escape(name)} \| [01]\.\d", table) for name in (f"{module}.py:Siesta", f"{module}:choose")
    )
    entry = next(folder.glob("entries/*Siesta"))
    assert list(Submission.load(entry).mistakes()) == []
    assert json.loads((entry / "episodes.json").read_text())["rule"].startswith(
        f"{module}.py:Siesta(nap_at=3), source "
    )
    before = (entry / "episodes.json").stat().st_mtime_ns
    assert leaderboard(f"{module}.py:Siesta", *mini)[0] == 0
    assert (entry / "episodes.json").stat().st_mtime_ns == before


def test_a_mistake_ends_the_command_with_a_line(folder: Path) -> None:
    status, table, said = leaderboard("no_such_module_here:Siesta", "--env-id", MINI, "--streams", "1")
    assert (status, table) == (2, "")
    assert "expected a module 'no_such_module_here'" in said and "Traceback" not in said


def test_episodes_that_were_kept_before_forbidden_steps_were_counted_have_none(episode: Any) -> None:
    found = _Episodes(policy="", seconds=1.0, episodes=(episode(invalid=2),)).model_dump_json()
    document = json.loads(found)
    assert document["episodes"][0].pop("invalid") == 2
    again = _Episodes.model_validate_json(json.dumps(document), strict=True)
    assert again.episodes[0].invalid == 0
    assert [column.key for column in leaderboard_sheet([], None).columns].count("invalid") == 1  # type: ignore[arg-type]
