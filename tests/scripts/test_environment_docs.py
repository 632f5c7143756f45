"""The environments' pages say what the code and the cards say, and the docstring they are made of is true."""

from __future__ import annotations

import doctest
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from sleepgym.env.fastweights.env import FastWeightsEnv
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.episode.card import Card, load_card
from sleepgym.episode.card_sections import Section
from sleepgym.files import card_paths
from sleepgym.schedulers import NeverSleep, known_schedulers

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = DOCS / "environments"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """What scripts/environment_docs.py defines."""
    return runpy.run_path(str(ROOT / "scripts" / "environment_docs.py"))


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A copy of the docs' pages."""
    return Path(shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("*.png", "*.json")))


def test_the_pages_say_what_the_code_says(script: dict[str, Any]) -> None:
    script["main"](script["Args"](check=True))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("environments/README.md", "| tiny |"),
        ("environments/sleepllm.md", "`layers`"),
        ("environments/fastweights.md", "`window_ticks`"),
        ("schedulers.md", "`NightOwl`"),
    ],
)
def test_a_page_that_says_something_else_is_named_and_written_anew(
    name: str, word: str, script: dict[str, Any], pages: Path
) -> None:
    before = (pages / name).read_text(encoding="utf-8")
    (pages / name).write_text(before.replace(word, "something else"), encoding="utf-8")
    with pytest.raises(SystemExit, match=f"found something else in {Path(name).name}; run `make docs`"):
        script["main"](script["Args"](folder=pages, check=True))
    assert (pages / name).read_text(encoding="utf-8") != before
    script["main"](script["Args"](folder=pages))
    assert (pages / name).read_text(encoding="utf-8") == before


def test_what_people_wrote_around_a_table_stays(script: dict[str, Any], pages: Path) -> None:
    index = pages / "environments" / "README.md"
    begin, end = script["BEGIN"], script["END"]
    index.write_text(f"before\n{begin}\n{end}\nafter\n", encoding="utf-8")
    script["main"](script["Args"](folder=pages))
    assert re.fullmatch(rf"before\n{begin}\n\| Id .*\|\n{end}\nafter\n", index.read_text(encoding="utf-8"), re.DOTALL)
    index.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected .* in .*README\.md, found no such pair"):
        script["main"](script["Args"](folder=pages))


def test_every_feature_and_every_card_is_listed() -> None:
    page, index = ((PAGES / name).read_text(encoding="utf-8") for name in ("sleepllm.md", "README.md"))
    rows = re.findall(r"^\| (\d+) \| `([a-z_]+)` \| (-?\d+) to (\d+) \| (.+) \|$", page, flags=re.MULTILINE)
    features = [(name, each) for of in (LEDGER_FEATURES, STATS_FEATURES) for name, each in of.items()]
    assert [(name, float(low), float(high), meaning) for _, name, low, high, meaning in rows] == [
        (name, each.low, each.high, each.meaning) for name, each in features
    ]
    # Once with its figures, and once with what it is for.
    listed = re.findall(r"^\| `((?:SleepLLM|FastWeights)-\S+)` \|", index, flags=re.MULTILINE)
    assert sorted(listed) == sorted(2 * [*card_paths(), *card_paths("fastweights")])


def test_every_key_is_listed_with_its_value(script: dict[str, Any]) -> None:
    card = load_card("SleepLLM-v0", stream={"night_ticks": [5, 9]})
    tables = script["card_tables"](card)
    assert "| `night_ticks` | `[5, 9]` | Length of the night. |" in tables
    # Made fit for a table.
    assert r"Weight of KL(p0 \|\| p)" in tables
    assert "``" not in tables


def test_a_card_with_a_section_of_its_own_is_listed_too(script: dict[str, Any]) -> None:
    class Naps(Section):
        """How long naps are.

        Attributes:
            minutes: Of a nap,
                at most.
        """

        minutes: int

    class Wider(Card):
        naps: Naps | None = None

    usual = load_card("SleepLLM-v0").model_dump()
    without, having = Wider(**usual), Wider(**usual, naps=Naps(minutes=20))
    assert "### `[naps]`\n\nHow long naps are." in script["card_tables"](without)
    assert "| `minutes` | `20` | Of a nap, at most. |" in script["card_tables"](having)
    cards = {"SleepLLM-v0": without, "SleepLLM-Nap-v0": having}
    assert "| `naps.minutes` | | `20` |" in script["variant_table"](cards)


def test_sections_with_defaults_show_them_beside_the_cards_values(script: dict[str, Any]) -> None:
    tables = script["card_tables"](load_card("SleepLLM-v0"))
    assert '| `stop_nll` | `0.5` | `0.1` | Threshold of `stop = "nll"`' in tables
    assert "departs from the recipe on purpose" in tables
    assert "| Key | Value | Meaning |" in tables, "other sections have no defaults"


def test_every_scheduler_is_listed_with_its_source_and_its_numbers(script: dict[str, Any]) -> None:
    page = (DOCS / "schedulers.md").read_text(encoding="utf-8")
    for name, scheduler in script["SCHEDULERS"].items():
        (row,) = re.findall(rf"^\| `{name}` \| `{scheduler.__name__}` \| (.+) \| (.+) \|$", page, flags=re.MULTILINE)
        assert all(row)
    listed = re.findall(r"^\| `([a-z-]+)` \| `([a-z_]+)` \| (?:needed|`\S+`) \| .+ \|$", page, flags=re.MULTILINE)
    assert {("night-owl", "load_at"), ("never-sleep", "nap_days"), ("look-ahead", "rule")} <= set(listed)
    known = known_schedulers()
    assert all(f"{name} (" in known and field in known for name, field in listed if name != "random")
    assert ("look-ahead", "env") not in listed


def test_a_scheduler_without_a_source_is_named(script: dict[str, Any]) -> None:
    class Whim(NeverSleep):
        """Says nothing of where it comes from."""

    with pytest.raises(ValueError, match=r"expected 'Source: \.\.\.' in the docstring of Whim"):
        script["scheduler_tables"]({"whim": Whim})


def test_the_table_of_actions_is_checked(script: dict[str, Any]) -> None:
    card = load_card("SleepLLM-v0")
    with pytest.raises(ValueError, match=r"expected .* a table of .*WAIT.*, found \[\(0, 'WAIT'\)\]"):
        script["with_ticks"]("| Num | Action | Effect |\n|---|---|---|\n| 0 | `WAIT` | none |\n", card)


def test_every_info_is_explained_and_nothing_else() -> None:
    table = re.search(r"## Info\n(.*?)##", SleepEnv.__doc__ or "", flags=re.DOTALL)
    assert table is not None
    explained = {
        key
        for row in re.findall(r"^ *\| (`.*?) \|", table[1], flags=re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    env = SleepEnv("SleepLLM-Mini-v0", episode={"days": 1})
    _, info = env.reset(seed=1)
    found = set(info)
    wanted = [Action.SLEEP, Action.INJECT]
    while not env.over:
        # One night, as soon as there is something to sleep on.
        action = next((action for action in wanted if info["action_mask"][action]), Action.WAIT)
        wanted = [Action.INJECT] if action == Action.SLEEP else wanted
        *_, info = env.step(action)
        found |= set(info)
    assert explained == found


def test_every_info_of_fast_weights_is_explained_and_nothing_else() -> None:
    table = re.search(r"## Info\n(.*?)##", FastWeightsEnv.__doc__ or "", flags=re.DOTALL)
    assert table is not None
    rows = re.findall(r"^ *\| (`.*?) \|", table[1], flags=re.MULTILINE)
    _, info = gym.make("FastWeights-v0").reset(seed=0)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == info.keys()


def test_the_examples_of_the_docstring_are_true() -> None:
    runner = doctest.DocTestRunner()
    (test,) = doctest.DocTestFinder(recurse=False).find(SleepEnv, "SleepEnv")
    assert runner.run(test).failed == 0
    assert runner.tries >= 5
