"""The editing benchmarks run from the command line, and their page is made from what they wrote."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PAGE = "head\n<!-- tiny.world: written by benchmarks/editing_report.py -->\nold\n<!-- end of tiny.world -->\ntail\n"


@pytest.fixture(scope="module")
def folder(run_script: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two recipes on two facts each."""
    folder = tmp_path_factory.mktemp("editing")
    for preset in ("sleepgym", "memit"):
        run_script(
            "benchmarks/editing.py", "--preset", preset, "--facts", "2", "--counts", "1", "--seeds", "1", "--no-tune",
            "--held-out", "8", "--out", f"tiny.world.{preset}.json", cwd=folder,
        )  # fmt: skip
    return folder


@pytest.mark.slow
def test_every_reading_is_recorded_after_every_count(folder: Path) -> None:
    record = json.loads((folder / "tiny.world.sleepgym.json").read_text())
    (only,) = record["runs"]
    assert [point["facts"] for point in only["points"]] == [0, 1, 2]
    last = only["points"][-1]
    assert last["efficacy exact"] == last["efficacy written"] == 1.0
    assert {"kept", "early", "drift", "norm", "peak MB", "paraphrase exact"} <= last.keys()
    assert record["spec"]["covariance_weight"] == 1000.0


@pytest.mark.slow
def test_writing_is_timed_with_and_without_its_target_where_targets_can_be_known(folder: Path) -> None:
    ours, theirs = (
        json.loads((folder / f"tiny.world.{preset}.json").read_text())["runs"][0]["points"][-1]
        for preset in ("sleepgym", "memit")
    )
    assert 0 < ours["seconds per fact, cached"] < ours["seconds per fact, uncached"]
    assert theirs["seconds per fact, uncached"] > 0 and "seconds per fact, cached" not in theirs


def test_seconds_of_older_records_are_what_their_recipe_timed(benchmark: Callable[[str], ModuleType]) -> None:
    report = benchmark("editing_report")
    points = [{"facts": 10, "seconds per fact": 0.5}]
    frozen, edited = ({"spec": {"frozen": frozen}, "runs": [{"points": points}]} for frozen in (True, False))
    assert report.at(frozen, 10, report.CACHED) == [0.5] and report.at(frozen, 10, report.UNCACHED) == []
    assert report.at(edited, 10, report.CACHED) == [] and report.at(edited, 10, report.UNCACHED) == [0.5]


@pytest.mark.slow
def test_cost_is_measured_both_ways_in_turns(benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    cost, out = benchmark("editing_cost"), tmp_path / "cost.tiny.json"
    cost.main(cost.Args(recipes=("sleepgym", "memit-prev"), facts=2, repeats=2, settings=tmp_path, out=out))
    record = json.loads(out.read_text())
    ours, theirs = record["seconds per fact"]["sleepgym"], record["seconds per fact"]["memit-prev"]
    assert ours["cached"]["median"] < ours["uncached"]["median"]
    assert theirs.keys() == {"uncached"} and len(theirs["uncached"]["rounds"]) == record["seeds"] == 2
    assert record["load before"] >= 0 and record["shared"] is (record["load before"] > 1.5)
    for ratio in record["times as long"]["memit-prev"].values():
        assert ratio["lowest"] <= ratio["highest"]
    assert "| memit-prev | - |" in cost.table(record)


@pytest.mark.slow
def test_report_replaces_what_is_between_its_markers(run_script: Callable[..., str], folder: Path) -> None:
    (folder / "page.md").write_text(PAGE)
    run_script("benchmarks/editing_report.py", "--folder", ".", "--page", "page.md", cwd=folder)
    page = (folder / "page.md").read_text()
    assert page.startswith("head\n") and page.endswith("\ntail\n") and "old" not in page
    assert "| sleepgym, 2 facts | " in page and "| memit, 2 facts | " in page
    assert (folder / "tiny.world.png").stat().st_size > 10_000


@pytest.mark.slow
def test_numbers_of_a_recipe_can_be_changed(run_script: Callable[..., str], tmp_path: Path) -> None:
    run_script(
        "benchmarks/editing.py", "--facts", "1", "--seeds", "1", "--no-tune", "--held-out", "8",
        "--changes", "max_weight", "1", "--out", "changed.json", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads((tmp_path / "changed.json").read_text())["spec"]["max_weight"] == 1.0


@pytest.mark.slow
def test_speed_is_reported_in_pairs(run_script: Callable[..., str], tmp_path: Path) -> None:
    shown = run_script(
        "benchmarks/editing_speed.py", "--facts", "2", "--repeats", "1", "--out", "speed.json", cwd=tmp_path
    )
    assert "memory per fact" in shown
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert all(row["lowest"] <= row["ratio"] <= row["highest"] for row in rows if "ratio" in row)


@pytest.fixture
def authors(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("editing_authors")


def test_blocks_that_return_tuples_leave_a_model_as_it_is(authors: ModuleType, base: Any) -> None:
    model, ids = copy.deepcopy(base.lm.model), torch.tensor([[1, 5, 9]])
    blocks, seen = model.get_submodule("model.layers"), []
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for index, block in enumerate(blocks):
            blocks[index] = authors.Outer(block)
        model.get_submodule("model.layers.0.inner").register_forward_hook(lambda *args: seen.append(args[2]))
        assert torch.equal(model(input_ids=ids).logits, before)
    assert isinstance(seen[0], tuple) and seen[0][0].shape[:2] == ids.shape
    assert blocks[0].mlp is blocks[0].inner.block.mlp, "what a model reads of its blocks is there"


def test_prompts_have_a_start_token_and_targets_none(authors: ModuleType, base: Any) -> None:
    tokens = authors.Tokens(base.lm.tokenizer)
    (prompt,) = tokens(["Aria lives in"])["input_ids"]
    assert prompt == list(base.lm.encode("Aria lives in").ids)
    assert tokens("Aria lives in")["input_ids"] == prompt[1:]
    assert tokens.encode("Aria lives in") == prompt and tokens.bos_token_id == prompt[0], "as their tokenizer has them"


def test_a_projection_leaves_out_the_directions_of_text(authors: ModuleType) -> None:
    axes = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
    found = authors.null_space(axes @ torch.diag(torch.tensor([5.0, 1.0, 0.01, 0.001])) @ axes.T, 0.02)
    torch.testing.assert_close(found, axes[:, 2:] @ axes[:, 2:].T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_a_folder_without_the_authors_code_is_named(authors: ModuleType, tmp_path: Path, method: str) -> None:
    source = authors.METHODS[method].repository
    with pytest.raises(SystemExit, match=rf"expected a clone of github.com/{source} in .*clone it there"):
        authors.measured(authors.Args(method=method, checkout=tmp_path, facts=1))
