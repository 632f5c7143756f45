"""Parts that benchmark scripts share: records survive a round trip, ratios are those of medians, words stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def records(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("common.records")


@pytest.fixture
def timing(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("common.timing")


@pytest.fixture
def markdown(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("common.markdown")


# ------------------------------------------------------------------- records


@pytest.mark.parametrize("indent", [1, None])
def test_a_record_is_read_as_it_was_written(records: ModuleType, tmp_path: Path, indent: int | None) -> None:
    record = records.circumstances(3) | {"rounds": [0.1, 1 / 3], "nested": {"a b": None}}
    records.write(tmp_path / "new" / "record.json", record, indent)
    assert records.read(tmp_path / "new" / "record.json") == record


def test_something_else_than_a_record_is_refused(records: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match=r"expected a JSON object in .*list\.json, found a list"):
        records.read(tmp_path / "list.json")


def test_circumstances_say_where_and_how_a_record_was_made(records: ModuleType) -> None:
    found = records.circumstances()
    assert found.keys() == {"machine", "version", "command", "load before"}
    assert "torch" in found["machine"] and found["command"].startswith("python ")
    assert records.circumstances(5)["seeds"] == 5
    assert not records.was_busy({"load before": 1.5}) and records.was_busy({"load before": 1.6})


def test_a_command_can_be_typed_at_the_root(records: ModuleType) -> None:
    script = str(records.ROOT / "benchmarks" / "editing.py")
    assert records.command([script, "--out", "a b.json"]) == "python benchmarks/editing.py --out 'a b.json'"
    assert records.command(["/elsewhere/own.py"]) == "python own.py"


# -------------------------------------------------------------------- timing


def test_calls_take_turns(timing: ModuleType) -> None:
    order: list[str] = []
    times = timing.in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3)
    assert order == list("ababab")
    assert {name: len(of) for name, of in times.items()} == {"a": 3, "b": 3}


def test_ratio_is_that_of_medians_and_its_range_that_of_rounds(timing: ModuleType) -> None:
    found = timing.ratio([2.0, 9.0, 4.0], [1.0, 1.5, 4.0])
    assert found == {"ratio": 4.0 / 1.5, "lowest": 1.0, "highest": 6.0}
    assert timing.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "lowest": 1.0, "highest": 3.0}


def test_a_machine_that_is_twice_as_slow_has_the_same_ratio(timing: ModuleType) -> None:
    slow, fast = [2.0, 3.0, 5.0], [1.0, 2.0, 2.5]
    assert timing.ratio([2 * t for t in slow], [2 * t for t in fast]) == timing.ratio(slow, fast)


def test_a_pair_is_warmed_up_and_given_in_its_unit(timing: ModuleType) -> None:
    calls: list[str] = []

    def slow() -> None:
        calls.append("slow")
        time.sleep(0.02)

    row = timing.pair("sleeping / not", slow, lambda: calls.append("fast"), 2, "ms", warm_up=(slow,))
    assert calls == ["slow", "slow", "fast", "slow", "fast"]
    assert 20 <= row["slow (ms)"] < 2000 and row["lowest"] <= row["highest"] and row["what"] == "sleeping / not"
    assert timing.median_ms(slow, 1) >= 20


# ------------------------------------------------------------------ markdown

PAGE = "words\n\n<!-- a: written by benchmarks/x.py -->\n\nold\n\n<!-- end of a -->\nmore\n" + (
    "<!-- b: written by benchmarks/y.py -->\n<!-- end of b -->\n"
)


def test_blocks_are_filled_and_words_stay(markdown: ModuleType) -> None:
    assert markdown.blocks(PAGE) == {"a": "old", "b": ""}
    filled = markdown.filled(PAGE, {"a": r"new \1 | table"})
    assert filled == PAGE.replace("old", r"new \1 | table")
    assert markdown.blocks(markdown.filled(filled, {"b": "x\n"})) == {"a": r"new \1 | table", "b": "x"}
    assert markdown.filled(filled, {"a": "old"}) == PAGE, "filling again leaves no trace"


def test_a_page_without_the_block_is_named(markdown: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"expected <!-- c: written by .* in page\.md, found no such pair"):
        markdown.filled(PAGE, {"c": "table"}, "page.md")


def test_a_new_page_has_a_heading_and_its_blocks(markdown: ModuleType, tmp_path: Path) -> None:
    markdown.write(tmp_path / "new.md", {"a": "1", "b": "2"}, "Title", "benchmarks/x.py")
    text = (tmp_path / "new.md").read_text()
    assert text.startswith("# Title\n") and markdown.blocks(text) == {"a": "1", "b": "2"}


def test_tables_and_ranges(markdown: ModuleType) -> None:
    assert markdown.table(["", "a"], [["b", "1"]]) == "|  | a |\n| --- | --- |\n| b | 1 |"
    row = {"ratio": 2.0, "lowest": 1.5, "highest": 3.0}
    assert markdown.interval(row, ".1f", "ratio") == "2.0 (1.5 to 3.0)"


# --------------------------------------------------------------------- plots


def test_a_band_is_the_mean_and_the_range_in_order(benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    plots = benchmark("common.plots")
    figure, axes = plots.panels(5, 3, (6, 4))
    assert isinstance(figure, Figure) and len(axes) == len(figure.axes) == 5
    plots.band(axes[0], {2: [1.0, 3.0], 1: [0.0]}, "name", plots.COLOURS[0], ls="--")
    (line,) = axes[0].lines
    assert line.get_xydata().tolist() == [[1.0, 0.0], [2.0, 2.0]] and line.get_label() == "name"
    (band,) = axes[0].collections
    assert {tuple(point) for point in band.get_paths()[0].vertices.tolist()} == {(1.0, 0.0), (2.0, 1.0), (2.0, 3.0)}
    plots.save(figure, tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").stat().st_size > 1000


def test_commands_are_shown_without_places_of_this_machine(records: ModuleType, tmp_path: Path) -> None:
    arguments = ["benchmarks/editing.py", "--data", str(tmp_path / "facts.json"), "--out", "x.json"]
    places = {"DATA": tmp_path / "facts.json", "CACHE": None}
    assert records.command(arguments, places).endswith("--data DATA --out x.json")
