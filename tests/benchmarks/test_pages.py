"""Tables of committed pages are those of committed records, and people's words around them stay."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("agents/**/*.md")]
}
MARKED = sorted(page for page, text in TEXTS.items() if ": written by benchmarks/" in text)
"""Pages with a generated table."""


@pytest.fixture(scope="module")
def pages(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("pages")


@pytest.fixture(scope="module")
def blocks(pages: ModuleType) -> dict[str, dict[str, str]]:
    """Generated blocks of every page, from the records."""
    return {page: build(ROOT) for page, build in pages.PAGES.items()}


def test_every_page_with_a_marked_table_is_known(pages: ModuleType) -> None:
    assert {*MARKED} == pages.PAGES.keys()


@pytest.mark.parametrize("page", MARKED)
def test_tables_of_a_page_are_those_of_its_record(
    page: str, blocks: dict[str, dict[str, str]], benchmark: Callable[[str], ModuleType]
) -> None:
    markdown = benchmark("common.markdown")
    assert markdown.blocks(TEXTS[page]).keys() == blocks[page].keys()
    assert markdown.filled(TEXTS[page], blocks[page]) == TEXTS[page], "run `make pages`"


def test_what_a_person_wrote_stays_and_a_stale_table_is_named(pages: ModuleType, tmp_path: Path) -> None:
    page = "docs/environments/throughput.md"
    shutil.copytree(ROOT / "docs/environments", tmp_path / "docs/environments")
    changed = TEXTS[page].replace("| 16 slots | ", "| 17 slots | ").replace("# Throughput", "# Speed")
    (tmp_path / page).write_text(changed, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"found something else in throughput\.md; run `make pages`"):
        pages.main(pages.Args(tmp_path, only=(page,), check=True))
    assert (tmp_path / page).read_text(encoding="utf-8") == changed
    pages.main(pages.Args(tmp_path, only=(page,)))
    assert (tmp_path / page).read_text(encoding="utf-8") == TEXTS[page].replace("# Throughput", "# Speed")
    with pytest.raises(SystemExit, match=r"expected --only among .*, found docs/none\.md"):
        pages.main(pages.Args(tmp_path, only=("docs/none.md",)))


def test_pictures_are_drawn_from_records_too(pages: ModuleType) -> None:
    drawn = {path for build in map(pages.PICTURES.get, ("docs/editing.md", "docs/models/tiny.md", "docs/sleep.md"))
             for path in build(ROOT)}  # fmt: skip
    folders = (ROOT / "docs/editing", ROOT / "docs/models", ROOT / "docs/sleep")
    assert drawn == {path for folder in folders for path in folder.glob("*.png")}


def test_generated_parts_hold_data_and_leave_conclusions_to_people(blocks: dict[str, dict[str, str]]) -> None:
    words = r"\b(so|why|because|therefore|shows?|means that|follows|should|better to)\b"
    for page, contents in blocks.items():
        for name, content in contents.items():
            lines = [line for line in content.splitlines() if not line.startswith(("|", "!["))]
            assert not [line for line in lines if re.search(words, line, flags=re.I)], (page, name)
