"""What is registered, and the pages that list it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.env.observation import LEDGER_FEATURES, STATS_FEATURES
from sleepgym.env.registration import flat_id
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.card import load_card
from sleepgym.files import card_paths

DOCS = Path(__file__).parents[2] / "docs" / "environments"
INDEX = (DOCS / "README.md").read_text(encoding="utf-8")
CARDS = card_paths()
IDS = {*CARDS, *map(flat_id, CARDS)}
FAST = card_paths("fastweights")
"""Cards of another kind, without flat forms: their observations are vectors as they are."""


def leaves(card_id: str) -> dict[str, Any]:
    data = tomllib.loads(CARDS[card_id].read_text(encoding="utf-8"))
    return {f"{section}.{key}": value for section, keys in data.items() for key, value in keys.items()}


def test_every_card_is_registered_with_and_without_vectors_and_nothing_else() -> None:
    assert {env_id for env_id in gym.registry if env_id.startswith("SleepLLM")} == IDS
    assert len(IDS) == 2 * len(CARDS)
    assert {"SleepLLM-Flat-v0", "SleepLLM-Mini-Flat-v0", "SleepLLM-Llama3.1-8B-Flat-v0"} <= IDS
    assert {env_id for env_id in gym.registry if env_id.startswith("FastWeights")} == set(FAST) == {"FastWeights-v0"}
    for card_id in CARDS:
        assert gym.spec(flat_id(card_id)).kwargs == {"card": card_id, "flat": True}


def test_the_index_cuts_the_flat_vector_where_the_features_end() -> None:
    assert f"vector[:-{len(STATS_FEATURES)}].reshape(-1, {len(LEDGER_FEATURES)})" in INDEX


@pytest.mark.parametrize(
    ("card_id", "differs"),
    [
        ("SleepLLM-Night-v0", {"stream.night_ticks", "stream.night_traffic"}),
        ("SleepLLM-Tight-v0", {"budget.edits"}),
        ("SleepLLM-Churn-v0", {"stream.update_share"}),
    ],
)
def test_a_variant_differs_from_the_default_only_where_its_point_is(card_id: str, differs: set[str]) -> None:
    default, variant = leaves("SleepLLM-v0"), leaves(card_id)
    assert default.keys() == variant.keys()
    assert {key for key in default if default[key] != variant[key]} == differs


def test_variants_keep_their_promises() -> None:
    default = load_card("SleepLLM-v0")
    night, tight, churn = (load_card(f"SleepLLM-{name}-v0") for name in ("Night", "Tight", "Churn"))
    assert tight.budget.edits == tuple(edits / 2 for edits in default.budget.edits)
    assert churn.stream.update_share[0] > default.stream.update_share[1]
    assert night.stream.night_traffic < default.stream.night_traffic
    # Room for a night's sleep and a nap, even in the shortest night.
    assert night.stream.night_ticks[0] >= default.stream.night_ticks[1] >= night.ticks.sleep + night.ticks.nap


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_link_of_the_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_importing_sleepgym_registers_every_card_without_loading_torch() -> None:
    code = (
        "import sys, sleepgym, gymnasium; "
        "assert 'torch' not in sys.modules; "
        "sleepgym.register_cards(); "
        "print(*sorted(i for i in gymnasium.registry if i.startswith(('SleepLLM', 'FastWeights'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {*IDS, *FAST}


def test_the_module_prefix_registers_and_makes() -> None:
    env = gym.make("sleepgym:SleepLLM-Mini-v0")
    assert isinstance(env.unwrapped, SleepEnv)
    env.close()
