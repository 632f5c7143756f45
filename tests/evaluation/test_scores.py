"""Score matrices: their files come back exactly, normalisation is as computed by hand, and mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleepgym.evaluation import EpisodeResult, ScoreError, ScoreMatrix


def result(seed: int, score: float) -> EpisodeResult:
    return EpisodeResult(
        seed=seed,
        score=score,
        recall=1.0,
        edits_used=1,
        budget=2,
        sleeps=0,
        naps=0,
        ppl_ratio=1.0,
        seconds=0.1,
        episode_return=1.0,
        collapsed=False,
        actions=(0,),
    )


# ------------------------------------------------------------------------ shape


def test_some_streams_keep_their_scores_in_the_order_asked_for() -> None:
    matrix = ScoreMatrix("rule", (5, 6, 7), np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    some = matrix.on((7, 5))
    assert (some.name, some.streams, some.scores.tolist()) == ("rule", (7, 5), [[0.3, 0.1], [0.6, 0.4]])
    with pytest.raises(ScoreError, match=r"'rule' on streams \[8, 9\].*play them first"):
        matrix.on((9, 5, 8))
    with pytest.raises(ScoreError, match="at least one of each"):
        matrix.on(())


def test_scores_are_kept_apart_from_the_array_they_came_from() -> None:
    array = np.array([[0.1, 0.2]])
    matrix = ScoreMatrix("rule", (1, 2), array)
    array[0, 0] = 9
    assert matrix.scores[0, 0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        matrix.scores[0, 0] = 1


@pytest.mark.parametrize(
    ("streams", "scores", "said"),
    [
        ((1, 2), [[0.1]], "2 streams.*found shape"),
        ((1,), [0.1], "found shape"),
        ((), [[]], "at least one of each"),
        ((1, 1), [[0.1, 0.2]], "each stream of 'rule' once"),
        ((1, 2), [[0.1, np.nan]], "finite scores of 'rule', found nan"),
        ((1, 2), [[np.inf, 0.2]], "finite scores of 'rule', found inf"),
    ],
)
def test_what_is_no_score_matrix_is_refused(streams: tuple[int, ...], scores: Any, said: str) -> None:
    with pytest.raises(ScoreError, match=said):
        ScoreMatrix("rule", streams, np.array(scores))


def test_results_become_rows_of_runs() -> None:
    runs = [[result(3, 0.1), result(1, 0.2)], [result(3, 0.3), result(1, 0.4)]]
    matrix = ScoreMatrix.from_results("rule", runs)
    assert matrix.streams == (3, 1)
    np.testing.assert_array_equal(matrix.scores, [[0.1, 0.2], [0.3, 0.4]])


@pytest.mark.parametrize("runs", [[], [[]], [[result(1, 0.1)], [result(2, 0.1)]], [[result(1, 0.1)], []]])
def test_runs_on_other_seeds_and_no_runs_are_refused(runs: list[list[EpisodeResult]]) -> None:
    with pytest.raises(ScoreError, match="'rule'"):
        ScoreMatrix.from_results("rule", runs)


# ---------------------------------------------------------------- normalisation


def test_normalised_by_hand() -> None:
    low = ScoreMatrix("never", (1, 2), np.array([[0.2, 0.6]]))
    high = ScoreMatrix("planner", (1, 2), np.array([[0.6, 0.8]]))
    mine = ScoreMatrix("rule", (1, 2), np.array([[0.5, 0.5], [0.2, 0.6]]))
    # The unit is the mean gain of the planner: (0.4 + 0.2) / 2.
    np.testing.assert_allclose(mine.normalised(low, high).scores, [[0.3 / 0.3, -0.1 / 0.3], [0, 0]], atol=1e-12)


def test_the_references_themselves_are_0_everywhere_and_1_on_average() -> None:
    rng = np.random.default_rng(0)
    low = ScoreMatrix("never", tuple(range(9)), rng.random((1, 9)) / 2)
    high = ScoreMatrix("planner", tuple(range(9)), low.scores + rng.random((2, 9)))
    np.testing.assert_array_equal(low.normalised(low, high).scores, np.zeros((1, 9)))
    assert high.normalised(low, high).scores.mean() == pytest.approx(1)


def test_how_hard_a_stream_is_cancels_out() -> None:
    rng = np.random.default_rng(0)
    low, gain = rng.random(9), rng.random(9)
    streams = tuple(range(9))

    def scores(hardness: Any) -> Any:
        base = ScoreMatrix("never", streams, (low + hardness)[None])
        high = ScoreMatrix("planner", streams, (low + gain + hardness)[None])
        return ScoreMatrix("rule", streams, (low + gain / 2 + hardness)[None]).normalised(base, high).scores

    np.testing.assert_allclose(scores(rng.normal(0, 5, 9)), scores(0.0), atol=1e-9)


def test_references_without_a_gain_or_of_other_streams_are_refused() -> None:
    low, high = ScoreMatrix("never", (1,), np.array([[0.5]])), ScoreMatrix("planner", (1,), np.array([[0.5]]))
    with pytest.raises(ScoreError, match="'planner' to score above 'never', found means of 0"):
        low.normalised(low, high)
    with pytest.raises(ScoreError, match="evaluate both on the same seeds"):
        low.normalised(low, ScoreMatrix("planner", (2,), np.array([[0.9]])))


# ------------------------------------------------------------------------ files


def test_what_is_saved_comes_back_exactly(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((3, 4)) / 3
    # Seeds as np.arange gives them are no integers to JSON.
    matrix = ScoreMatrix("rülë | [red]", tuple(np.arange(7, 11)), scores)
    matrix.save(tmp_path / "new" / "scores.json")
    back = ScoreMatrix.load(tmp_path / "new" / "scores.json")
    assert (back.name, back.streams) == (matrix.name, (7, 8, 9, 10))
    np.testing.assert_array_equal(back.scores, scores)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.json"]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    ScoreMatrix("long", tuple(range(50)), np.zeros((2, 50))).save(path)
    ScoreMatrix("short", (1,), np.ones((1, 1))).save(path)
    assert ScoreMatrix.load(path).name == "short"


GOOD: dict[str, Any] = {"format": 1, "name": "rule", "streams": [1, 2], "scores": [[0.1, 0.2]]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no JSON", "found a mistake"),
        (b"\xff\xfe", "found a mistake"),
        (GOOD | {"format": 2}, "mistake in format"),
        (GOOD | {"more": 1}, "mistake in more"),
        ({"name": "rule"}, "mistake in streams"),
        (GOOD | {"scores": [[0.1, "0.2"]]}, r"mistake in scores\.0\.1"),
        (GOOD | {"streams": [1, 2.5]}, r"mistake in streams\.1"),
        (GOOD | {"scores": [[0.1, 0.2], [0.3]]}, r"rows of equal length in .*\[2, 1\]"),
        (GOOD | {"scores": []}, "found shape"),
        (GOOD | {"streams": [1]}, "found shape"),
        (GOOD | {"streams": [1, 1]}, "each stream of 'rule' once"),
        (json.dumps(GOOD).replace("0.2", "NaN"), "finite"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_where(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "scores.json"
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScoreError, match=said):
        ScoreMatrix.load(path)


def test_a_missing_file_and_a_folder_that_is_none_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="check the name"):
        ScoreMatrix.load(tmp_path / "nowhere.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ScoreError, match="check the folder"):
        ScoreMatrix("rule", (1,), np.ones((1, 1))).save(tmp_path / "file" / "scores.json")
