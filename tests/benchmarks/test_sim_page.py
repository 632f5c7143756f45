"""Benchmarks of the sim: what is predicted was left out, goals are beside what was measured, and parts stay apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sb3_contrib import MaskablePPO

from sleepgym.env.observation import Observer
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.env.wrappers import FlattenLedger
from sleepgym.episode.card import load_card
from sleepgym.evaluation import evaluate
from sleepgym.leaderboard.players import player_named
from sleepgym.schedulers import NightOwl, RandomScheduler
from sleepgym.sim.fit_files import card_of, save_fit
from sleepgym.sim.fitted import CHANCES, DAMAGE, MARGINS, FittedResponse
from sleepgym.sim.models import Linear, Logistic

SCORES = {"owl": (0.7, 0.72), "never": (0.5, 0.51), "always": (0.2, 0.26)}
"""Real and simulated scores."""


@pytest.fixture
def page(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("sim_page")


@pytest.fixture
def fidelity(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("sim_fidelity")


@pytest.fixture
def speed(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("sim_speed")


def record_of(quantities: tuple[str, ...], scores: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """A record of four streams, with the same numbers on all of them."""
    rows = [
        {"policy": name, **{side: {q: [value] * 4 for q in quantities} for side, value in zip(("real", "sim"), of)}}  # noqa: B905
        for name, of in scores.items()
    ]
    about = {"card": "SleepLLM-v0", "model": "tiny", "fingerprint": "0123456789abcdef", "train streams": 3, "draws": 2}
    return {**about, "seeds": [0, 1, 2, 3], "rows": rows}


def test_goals_stand_beside_what_was_measured(page: ModuleType) -> None:
    blocks = page.fidelity(record_of(page.QUANTITIES, SCORES))
    assert tuple(blocks) == page.FIDELITY
    lines = blocks["agreement"].splitlines()[2:]
    assert "| at least 0.8 | 1.000 [1.000, 1.000] | yes |" in lines[0]
    assert "| at most 0.02 | 0.030 [0.030, 0.030] | no |" in lines[2], "(0.02 + 0.01 + 0.06) / 3"
    assert "| at most 0.01 | 0.000 [0.000, 0.000] | yes |" in lines[3]
    turned = record_of(page.QUANTITIES, SCORES | {"owl": (0.7, 0.4)})
    last = page.fidelity(turned)["agreement"].splitlines()[-1]
    assert "0.133" in last and "| no |" in last, "0.2 for each of the two that changed places, over three"


def test_schedulers_are_in_the_order_of_real_scores_and_simulated_ones_are_called_so(page: ModuleType) -> None:
    table = page.fidelity(record_of(page.QUANTITIES, SCORES))["schedulers"].splitlines()
    heads = [cell.strip() for cell in table[0].split("|")[1:-1]]
    assert heads[1:4] == ["score", "sim score", "sim score - score"]
    assert [line.split("|")[1].strip() for line in table[2:]] == ["owl", "never", "always"]
    assert "0.720 [0.720, 0.720] | +0.020 [+0.020, +0.020]" in table[2]


def test_intervals_are_over_streams(page: ModuleType) -> None:
    found = record_of(page.QUANTITIES, SCORES)
    found["rows"][0]["real"]["score"] = [0.6, 0.65, 0.75, 0.8]
    real, sim = page.matrices(found, "score")
    estimate = page.estimate(lambda one, other: float((one - other).max()), page.only(real, 0), page.only(sim, 0))
    assert estimate.point == pytest.approx(0.7 - 0.72)
    assert estimate.low < estimate.point < estimate.high


def test_a_part_is_kept_beside_others_and_one_that_was_not_measured_has_no_table(
    page: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "sim.json"
    page.keep(None, "speed", {})
    page.keep(path, "fidelity", record_of(page.QUANTITIES, SCORES))
    blocks = page.contents(json.loads(path.read_text()))
    assert set(blocks) == {*page.FIDELITY, *page.of_part("notes"), "planner", *page.SPEED}
    assert all(blocks[name] for name in page.FIDELITY) and not any(blocks[name] for name in page.SPEED)
    page.keep(path, "speed", {"rows": []})
    assert set(json.loads(path.read_text())) == {"fidelity", "speed"}


# ------------------------------------------------------------------ fidelity


@pytest.mark.slow
def test_each_is_predicted_by_a_fit_to_all_others(
    fidelity: ModuleType, quick_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = {"random": RandomScheduler(), "night-owl:load_at=0.2": NightOwl(load_at=0.2), "planner": NightOwl()}
    episodes = {
        name: [asdict(e) for e in evaluate(lambda: SleepEnv(quick_card, split="validation"), scheduler, (7, 8))]
        for name, scheduler in played.items()
    }
    (tmp_path / "real.json").write_text(json.dumps({"episodes": episodes}))
    args = fidelity.Args(
        str(quick_card), tmp_path / "records", ("mix:1,3,1,1,1,1", "night-owl~0.5", "mix:3,4,2,1,0.5,1"),
        tmp_path / "real.json", train_streams=2, draws=3, processes=1, out=tmp_path / "sim.json",
        page=tmp_path / "sim.md",
    )  # fmt: skip
    fitted: list[int] = []

    def fit_samples(samples: list[Any], **more: Any) -> Any:
        fitted.append(len(samples))
        return fidelity_fit(samples, **more)

    fidelity_fit = fidelity.fit_samples
    monkeypatch.setattr(fidelity, "fit_samples", fit_samples)
    fidelity.main(args)
    assert fitted == [2, 4], "two training episodes of each of the others: random play is left out with its kind"
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").rglob("*.safetensors")}
    assert len(files) == 6
    found = json.loads(args.out.read_text())["fidelity"]
    assert [row["policy"] for row in found["rows"]] == ["random", "night-owl:load_at=0.2"]
    assert found["seeds"] == [7, 8]
    for row in found["rows"]:
        assert row["real"]["score"] == pytest.approx([e["score"] for e in episodes[row["policy"]]], abs=1e-6)
        assert row["real"]["sleeps"] == [e["sleeps"] for e in episodes[row["policy"]]]
    assert "| night-owl:load_at=0.2 |" in args.page.read_text()
    again = fidelity.measured(args, Console(quiet=True))
    assert again["rows"] == found["rows"], "what is recorded is not played again"
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_card_with_notes_has_tables_of_its_own_about_what_its_episodes_keep(
    fidelity: ModuleType, page: ModuleType
) -> None:
    kept = {"score": 0.8, "nights": 2, "naps": 1, "edits": 50, "drift": 0.03, "look_ups": 0.3, "tokens": 2.5}
    real = fidelity.outcome(kept)
    assert real == {
        "score": 0.8, "ppl_ratio": 1.03, "sleeps": 2, "naps": 1, "edits_used": 50, "look_ups": 0.3, "tokens_read": 2.5
    }  # fmt: skip
    found = record_of(tuple(real), SCORES)
    blocks = page.fidelity(found, "notes")
    assert tuple(blocks) == page.of_part("notes") and not set(blocks) & set(page.FIDELITY)
    assert "`tokens_read`" in blocks["quantities of notes"] and "`recall`" not in blocks["quantities of notes"]
    names = ("note-first", "look-ahead:depth=24,rule=note-first", "planner", "maskable-ppo:best.zip")
    assert [name for name in names if fidelity.is_rule(name)] == ["note-first"]


@pytest.fixture(params=[False, True], ids=["dictionary", "flat"])
def policy(
    request: pytest.FixtureRequest, quick_card: Path, tmp_path: Path, benchmark: Callable[..., ModuleType]
) -> str:
    """An untrained policy in a file."""
    spaces = benchmark("sim_players").Spaces(load_card(quick_card))
    kind = "MlpPolicy" if request.param else "MultiInputPolicy"
    env = FlattenLedger(spaces) if request.param else spaces
    MaskablePPO(kind, env, n_steps=8, device="cpu", seed=0).save(tmp_path / "policy.zip")
    return f"maskable-ppo:{tmp_path / 'policy.zip'}"


def test_a_trained_policy_chooses_the_same_in_both_environments(
    policy: str, quick_card: Path, benchmark: Callable[..., ModuleType]
) -> None:
    plays = benchmark("sim_players").simulated(policy, load_card(quick_card))
    player = player_named(policy, SleepEnv(quick_card))
    env = player.wrap(SleepEnv(quick_card, split="validation"))
    real: SleepEnv = env.unwrapped  # type: ignore[assignment]
    observer = Observer(real.card)
    observation, _ = env.reset(seed=0)
    for _ in range(4):
        seen, mask = observer(real.episode), real.action_masks()
        batch = {name: np.stack([part, part]) for name, part in seen.items()}
        chosen, _ = plays.predict(batch, action_masks=np.stack([mask, mask]))
        action, _ = player.scheduler.predict(observation, action_masks=mask, deterministic=True)  # type: ignore[union-attr]
        assert chosen.tolist() == [int(action), int(action)]
        observation, *_ = env.step(int(action))


# ------------------------------------------------------------------- planner


def test_the_planner_is_compared_with_the_best_rule_on_the_same_streams(
    page: ModuleType, benchmark: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    planning = benchmark("sim_planning")
    rules = ("note-first:popular_at=0.2", "notes-only")
    out, on = tmp_path / "sim.json", tmp_path / "sim.md"
    planning.main(planning.Args(rules=rules, futures=1, ticks=2, every=30, streams=3, out=out, page=on))
    found = json.loads(out.read_text())["planner"]
    names = [row["player"] for row in found["rows"]]
    assert names[:2] == list(rules) and names[2].startswith("planner:width=10,draws=1,ticks=2,every=30,rule=note-first")
    assert all(len(row["scores"]) == 3 for row in found["rows"])
    for row, scores in zip(found["rows"], ([0.8, 0.9, 1.0], [0.7, 0.8, 0.9], [0.9, 1.0, 1.1]), strict=True):
        row["scores"] = scores
    lines = page.planner(found).splitlines()[2:5]
    assert [line.split("`")[1] for line in lines] == [names[2], *rules]
    assert "+0.100 [+0.100, +0.100]" in lines[0] and "-0.100 [-0.100, -0.100]" in lines[2]
    assert "sim score" in on.read_text()


# --------------------------------------------------------------------- speed


def test_rates_are_medians_of_rounds_and_ratios_those_within_a_round(speed: ModuleType, page: ModuleType) -> None:
    rows = speed.rows(["real", "sim, 1 process x 64"], [(20.0, 2000.0), (40.0, 2000.0), (25.0, 250_000.0)])
    assert rows[0]["times real"] == {"median": 1.0, "lowest": 1.0, "highest": 1.0}
    assert rows[1]["steps per second"] == {"median": 2000.0, "lowest": 2000.0, "highest": 250_000.0}
    assert rows[1]["times real"] == {"median": 100.0, "lowest": 50.0, "highest": 10_000.0}
    found = {"card": "c", "fit": "f", "machine": "m", "load before": 0.0, "rounds": 3, "rows": rows}
    goal = page.speed(found)["speed goal"].splitlines()[-1]
    assert "| at least 100,000 | sim, 1 process x 64: 2,000 (2,000 to 250,000) | no |" in goal
    real = page.speed(found)["speed"].splitlines()[2]
    assert real == "| real | 25.0 (20.0 to 40.0) | 1.0 (1.0 to 1.0) |"


def test_contestants_are_the_real_environment_and_sims_of_all_sizes(speed: ModuleType) -> None:
    found = speed.contestants(speed.Args("SleepLLM-Mini-v0", envs=(1, 8), processes=3, fit=Path("a")))
    assert [(each.env_id, each.envs, each.processes) for each in found] == [
        ("SleepLLM-Mini-v0", 1, 1),
        ("SleepSim-Mini-v0", 1, 1),
        ("SleepSim-Mini-v0", 8, 1),
        ("SleepSim-Mini-v0", 8, 3),
    ]
    assert found[0].fit is None and found[-1].fit == "a"


@pytest.fixture
def fit(tmp_path: Path) -> Path:
    """A file of a fit that says nothing changes, and that all pass."""
    none = np.zeros((1, 2), np.float32), np.eye(2, dtype=np.float32) * 1e-3
    linear = {name: Linear("constant", *none) for name in (*MARGINS, *DAMAGE)}
    logistic = {name: Logistic("constant", np.array([-5.0], np.float32)) for name in CHANCES}
    about = type("Any", (), {"model": "tiny", "fingerprint": "f", "policy": "p"})
    save_fit(
        tmp_path / "fit.safetensors",
        FittedResponse(linear, logistic),
        card_of("SleepLLM-Mini-v0", [type("One", (), {"about": about})()], []),  # type: ignore[list-item]
    )
    return tmp_path / "fit.safetensors"


def test_every_step_of_every_environment_counts(speed: ModuleType, fit: Path) -> None:
    player = speed.Player(speed.Contestant("", "SleepSim-Mini-v0", 4, fit=str(fit)))
    steps = sum(player.play(0.05) for _ in range(2))
    assert steps == 4 * player._step > 0


@pytest.mark.slow
def test_a_short_run_gets_onto_the_page(speed: ModuleType, fit: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "sim.json", tmp_path / "sim.md"
    speed.main(speed.Args("SleepLLM-Mini-v0", fit, (1, 8), 2, repeats=2, seconds=0.2, out=out, page=page))
    rows = json.loads(out.read_text())["speed"]["rows"]
    assert len(rows) == 4 and all(len(row["rounds"]) == 2 and row["steps per second"]["lowest"] > 0 for row in rows)
    assert "| sim, 2 processes x 8 |" in page.read_text()
