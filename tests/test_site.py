"""The site of the documentation: every page is in it, what it names exists, and it builds with no dead link."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import sleepgym
from scripts.site_links import rewritten

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAVIGATION = re.findall(r"^ +- (?:\w+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
IDENTIFIERS = [
    name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
]


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(NAVIGATION) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_what_the_pages_of_the_api_name_exists_and_has_a_docstring(name: str) -> None:
    parent, _, last = name.rpartition(".")
    try:
        found = import_module(name)
    except ModuleNotFoundError:
        found = getattr(import_module(parent), last)
    assert found.__doc__


@pytest.mark.parametrize(
    "room", ["env", "facts", "leaderboard", "notes", "record", "schedulers", "sim", "training", "evaluation", "editing"]
)
def test_every_public_class_and_function_is_on_a_page_of_the_api(room: str) -> None:
    package = import_module(f"sleepgym.{room}")
    missing = []
    for name in package.__all__:
        found = getattr(package, name)
        where = getattr(found, "__module__", "")
        # Data, errors and what one is given are named by what returns them.
        if not where.startswith("sleepgym") or (isinstance(found, type) and issubclass(found, Exception)):
            continue
        if not {where, f"{where}.{name}"} & set(IDENTIFIERS):
            missing.append(name)
    assert missing == []


def test_links_out_of_the_documentation_lead_to_the_repository(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "ppo.py").touch()
    (tmp_path / "docs" / "one.md").touch()
    text = (
        "[a](../../agents/ppo.py) [b](../../agents) [c](../one.md#part) [d](https://x.org/y) [e](#f) [g](../../gone.py)"
    )
    with caplog.at_level(logging.WARNING):
        shown = rewritten(text, tmp_path / "docs" / "deep" / "page.md", tmp_path / "docs", "https://h.org/r")
    assert shown == (
        "[a](https://h.org/r/blob/main/agents/ppo.py) [b](https://h.org/r/tree/main/agents) [c](../one.md#part) "
        "[d](https://x.org/y) [e](#f) [g](../../gone.py)"
    )
    assert [record.message for record in caplog.records if "gone.py" in record.message] and len(caplog.records) == 1


def test_the_index_of_decisions_has_all_of_them_with_their_titles() -> None:
    index = (DOCS / "decisions" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| \[(.+)\]\((\S+)\) \|$", index, re.MULTILINE)
    pages = sorted((DOCS / "decisions").glob("0*.md"))
    assert rows == [(str(int(p.name[:4])), p.read_text("utf-8").splitlines()[0].lstrip("# "), p.name) for p in pages]


def test_what_is_cited_is_this_release() -> None:
    assert f"version = {{{sleepgym.__version__}}}" in (DOCS / "citing.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("material") is None or find_spec("mkdocstrings") is None, reason="needs the extra docs")
def test_it_builds_without_a_network_and_with_no_dead_link(tmp_path: Path) -> None:
    # A proxy that is not there: whoever reaches for the network fails.
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "https_proxy": "http://127.0.0.1:9",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site" / "api" / "environments" / "index.html").read_text("utf-8")
    assert "sleepgym.env.sleep_env.SleepEnv.step" in api
    home = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"https?://(?!github)[^\"]+\.(?:js|css)", home) == []
