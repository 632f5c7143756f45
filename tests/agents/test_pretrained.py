"""The policies that ship: each loads, says what it is, and plays."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from sleepgym.evaluation import evaluate, simulate
from sleepgym.schedulers import NeverSleep, NoteFirst
from sleepgym.sim.maker import setting_and_response
from sleepgym.training import EnvSpec, PolicyCard, load_policy

FOLDER = Path(__file__).parents[2] / "agents" / "pretrained"
POLICIES = sorted(FOLDER.glob("*.zip"))
NOTES = sorted((FOLDER / "notes").glob("*.zip"))
"""Those that play the card with notes."""


def test_each_is_of_a_training_seed_of_its_own() -> None:
    seeds = [load_policy(path)[1].seed for path in POLICIES]
    assert len(seeds) >= 3 and seeds == list(range(1, len(seeds) + 1))


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_has_a_card_and_fits_its_environment(path: Path) -> None:
    policy, card = load_policy(path)
    assert (card.algorithm, card.env_id, card.card) == ("MaskablePPO", "SleepSim-v0", "")
    assert card.simulated_score is not None and card.validation_score is None and card.steps > 0
    env = EnvSpec("SleepLLM-v0").make("validation")
    assert (policy.observation_space, policy.action_space) == (env.observation_space, env.action_space)
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_a_policy_was_trained_with_the_defaults_of_the_script_for_longer(
    path: Path, script: Callable[[str], ModuleType]
) -> None:
    usual = PolicyCard(
        algorithm="MaskablePPO", env_id="SleepSim-v0", seed=0, steps=0, arguments=asdict(script("ppo").Args())
    ).arguments
    trained = PolicyCard.read(path).arguments
    # The script could not be given a fit yet, and trained with the one that ships.
    assert trained.keys() == usual.keys() - {"fit"} and usual["fit"] == ""
    assert {name for name in trained if trained[name] != usual[name]} - {"resume"} <= {
        *("seed", "out"),
        *("total_steps", "eval_every"),
    }
    assert trained["total_steps"] == 5_000_000


@pytest.mark.parametrize("path", NOTES, ids=lambda path: path.stem)
def test_a_policy_with_notes_fits_its_environment_and_does_more_there_than_a_rule(path: Path) -> None:
    policy, card = load_policy(path)
    assert (card.algorithm, card.env_id, card.card) == ("MaskablePPO", "SleepSim-Notes-v0", "")
    assert card.simulated_score is not None and card.steps > 0 and path.stat().st_size < 1_000_000
    setting, response = setting_and_response("SleepLLM-Notes-v0", None, {})
    scores = [
        np.mean([episode.score for episode in simulate(setting, response, player, range(2000, 2024))])
        for player in (policy, NoteFirst(popular_at=0.2))
    ]
    assert scores[0] > scores[1]
    env = EnvSpec("SleepLLM-Notes-v0").make("validation")
    assert (policy.observation_space, policy.action_space) == (env.observation_space, env.action_space)


@pytest.mark.parametrize("path", [*POLICIES, *NOTES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_policy_holds_no_bytecode_that_only_one_python_reads(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        data = json.loads(file.read("data"))
    kinds = {name: value[":type:"] for name, value in data.items() if isinstance(value, dict) and ":type:" in value}
    assert "LinearSchedule" in kinds["learning_rate"]
    assert not [name for name, kind in kinds.items() if "'function'" in kind]


@pytest.mark.parametrize("path", [*POLICIES, *NOTES], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_page_beside_them_knows_each_file(path: Path) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    name = path.relative_to(FOLDER).as_posix()
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` ")]
    _, card = load_policy(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in row
    assert f"{card.steps:,}" in row and f"{card.simulated_score:.3f}" in row


@pytest.mark.slow
def test_a_policy_answers_more_than_one_that_never_sleeps() -> None:
    policy, _ = load_policy(POLICIES[0])
    spec = EnvSpec("SleepLLM-v0")
    scores = [evaluate(lambda: spec.make("validation"), who, [1003])[0].score for who in (policy, NeverSleep())]
    assert scores[0] > scores[1]
