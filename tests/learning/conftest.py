"""A card so small that training on it takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleepgym.env.card import load_card
from sleepgym.env.registration import card_paths


@pytest.fixture(scope="session")
def quick_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small card with one day, and with little effort in edits and nights."""
    path = tmp_path_factory.mktemp("cards") / "quick.toml"
    text = card_paths()["SleepLLM-Mini-v0"].read_text(encoding="utf-8")
    fewer = {
        "\nsteps = 12\n": "\nsteps = 2\n",
        "rehearsal_rows = 4": "rehearsal_rows = 1",
        "validation_rows = 16": "validation_rows = 2",
        "perplexity_rows = 16": "perplexity_rows = 2",
        "days = 2": "days = 1",
    }
    for usual, quick in fewer.items():
        assert usual in text
        text = text.replace(usual, quick)
    path.write_text(text, encoding="utf-8")
    assert (load_card(path).sleep.steps, load_card(path).edit.steps, load_card(path).horizon) == (2, 2, 12)
    return path
