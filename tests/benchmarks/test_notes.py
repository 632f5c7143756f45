"""The benchmark of notes prices what was played, and finds where each tier wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action, NoteAction
from sleepgym.evaluation import ScoreMatrix

QUICK: dict[str, Any] = {
    "edit": {"steps": 2},
    "sleep": {"steps": 1, "rehearsal_rows": 1, "validation_rows": 2},
    "stream": {"arrival_rate": [1.0, 1.0], "known_facts": 2},
    "episode": {"days": 1, "perplexity_rows": 2},
}
PRICES = {"look_up_price": 0.1, "token_price": 0.02}


@pytest.fixture(scope="module")
def notes(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("notes")


def make(**prices: float) -> SleepEnv:
    notes = {"capacity": 9, "ticks": 1, "sure_nats": 1.0, "while_offline": True, **PRICES, **prices}
    return SleepEnv("SleepLLM-Mini-v0", split="validation", notes=notes, **QUICK)


def rule(observation: Any, mask: Any) -> Any:
    """Notes and teaches in turn, and looks up when unsure."""
    wanted = (NoteAction.LOOK_UP_UNSURE, NoteAction.NOTE, Action.INJECT, Action.SLEEP)
    return next((action for action in wanted if mask[action]), Action.WAIT)


def test_an_episode_is_priced_as_the_environment_prices_it(notes: ModuleType) -> None:
    """The same actions in environments with other prices, and the sweep without playing them again."""
    env = make()
    found = notes.episode(env, env, rule, 1000)
    assert found["read"] and found["weights"] > 0
    for prices in (PRICES, {"look_up_price": 0.0, "token_price": 0.0}, {"look_up_price": 0.5, "token_price": 0.09}):
        other = make(**prices)
        played = notes.episode(other, other, rule, 1000)
        assert notes.score_at(found, **prices) == pytest.approx(played["score"], abs=1e-9)
    assert notes.score_at(found, 1.0, 0.0) == pytest.approx(found["weights"] / found["asked"])


def record(**scores: tuple[float, float]) -> dict[str, Any]:
    """Two streams of each player: what the weights answered, and what was read from notes of ten tokens."""
    episodes = {
        name.replace("_", "-"): [
            {"seed": seed, "asked": 1.0, "weights": weights + seed / 1e3, "read": [[10, read]]}
            | dict.fromkeys(("look_ups", "tokens", "edits", "nights", "naps", "drift"), 0.0)
            for seed in (0, 1)
        ]
        for name, (weights, read) in scores.items()
    }
    return {"token_price": 0.03, "look_up_price": 0.0, "machine": "m", "command": "c", "episodes": episodes}


def test_tiers_win_where_they_should(notes: ModuleType) -> None:
    """By a price p: 1 - 10 p, 0.5, and 0.4 + 0.5 (1 - 10 p) = 0.9 - 5 p, so that they cross at 0.02 and 0.08."""
    found = record(notes_only=(0.0, 1.0), caretaker=(0.5, 0.0), never_sleep=(0.4, 0.0), note_first=(0.4, 0.5))
    played = notes.Played.from_record(found)
    assert played.best(notes.WEIGHTS) == "caretaker"
    assert [notes.winner(played, price) for price in (0.0, 0.019, 0.021, 0.079, 0.081, 0.12)] == [
        notes.NOTES, notes.NOTES, notes.HYBRID, notes.HYBRID, notes.WEIGHTS, notes.WEIGHTS,
    ]  # fmt: skip
    blocks = notes.contents(found)
    assert "both: 0.021 to 0.079" in blocks["price"] or "both: 0.02 to 0.08" in blocks["price"]
    assert "| `note-first` - `notes-only` | 2 | +0.050 [+0.050, +0.050] | 1.00 [1.00, 1.00] |" in blocks["tiers"]
    assert blocks["schedulers"].splitlines()[2].startswith("| `note-first` | both | 2 | 0.750 [0.750, 0.751] |")
    assert notes.picture(found).axes[0].get_legend() is not None


def test_a_player_outside_the_tiers_is_compared_with_the_best_rule_of_both(notes: ModuleType) -> None:
    found = record(notes_only=(0.0, 1.0), caretaker=(0.5, 0.0), note_first=(0.4, 0.5))
    found["episodes"]["ppo.zip"] = [e | {"weights": e["weights"] + 0.1} for e in found["episodes"]["note-first"][:1]]
    assert (
        "| `ppo.zip` - `note-first` | 1 | +0.100 [+0.100, +0.100] | 1.00 [1.00, 1.00] |"
        in notes.contents(found)["tiers"]
    )


def test_spans_are_ranges(notes: ModuleType) -> None:
    assert notes.spans([0.0, 0.001, 0.002, 0.005]) == "0 to 0.002, 0.005 to 0.005"
    assert notes.spans([]) == "nowhere"


@pytest.mark.slow
def test_it_plays_what_is_missing_and_refuses_episodes_of_another_card(
    notes: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, played = tmp_path / "notes.json", []

    def play(job: Any) -> tuple[str, list[Any]]:
        played.extend((job.name, seed) for seed in job.seeds)
        base = record(notes_only=(0.0, 1.0))["episodes"]["notes-only"][0]
        return job.name, [
            base | {"seed": seed, "weights": float(np.random.default_rng(seed).random())} for seed in job.seeds
        ]

    monkeypatch.setattr(notes, "play", play)
    rules = ("notes-only", "caretaker", "note-first")
    args = notes.Args(streams=2, rules=rules, planner="", out=out)
    notes.main(args)
    assert sorted(played) == sorted((name, seed) for name in rules for seed in (1000, 1001))
    played.clear()
    page = tmp_path / "notes.md"
    notes.main(
        notes.Args(streams=3, rules=rules, planner="look-ahead:rule=note-first", planner_streams=1, out=out, page=page)
    )
    assert sorted(played) == sorted([*((name, 1002) for name in rules), ("look-ahead:rule=note-first", 1000)])
    assert page.with_suffix(".png").exists() and "look-ahead" in page.read_text(encoding="utf-8")
    found = json.loads(out.read_text(encoding="utf-8"))
    out.write_text(json.dumps(found | {"token_price": 0.5}), encoding="utf-8")
    with pytest.raises(SystemExit, match="found another token_price"):
        notes.main(args)


def test_test_streams_are_compared_with_the_hybrid_rule(notes: ModuleType, tmp_path: Path) -> None:
    for name, scores in (("note-first", [0.5, 0.7]), ("ppo.zip", [0.6, 0.8])):
        (tmp_path / name).mkdir()
        ScoreMatrix(name, (1, 2), np.array([scores])).save(tmp_path / name / "scores.json")
    table = notes.test_table(notes.tested(tmp_path), "note-first")
    first, second = table.splitlines()[2:]
    assert first.startswith("| `ppo.zip` | 2 | 0.700 [") and "+0.100 [+0.100, +0.100]" in first
    assert second.startswith("| `note-first` | 2 | 0.600 [")
    assert notes.test_table({}, "note-first") == "Not measured yet."
