"""``sleepgym envs`` lists what gymnasium makes."""

from __future__ import annotations

import json

import gymnasium as gym
import pytest

import sleepgym  # noqa: F401  (registers the environments)
from sleepgym.cli.main import main
from sleepgym.files import card_paths


def test_every_environment_is_listed_with_its_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "--json"]) == 0
    found = {each["id"]: each for each in json.loads(capsys.readouterr().out)}
    assert found.keys() == {*card_paths(), *card_paths("fastweights")}
    for each in found.values():
        assert each["id"] in gym.registry
        assert (each["sim"] in gym.registry) == (each["id"] in card_paths())
    card = gym.make("SleepLLM-Mini-v0").unwrapped.card  # type: ignore[attr-defined]
    mini = found["SleepLLM-Mini-v0"]
    assert mini["days"] * mini["ticks_per_day"] == card.horizon
    assert (mini["capacity"], mini["pending"]) == (card.budget.capacity, card.budget.pending)
    fast = gym.make("FastWeights-v0").unwrapped.card  # type: ignore[attr-defined]
    assert found["FastWeights-v0"]["passes"] == list(fast.passes.choices)
    assert found["FastWeights-v0"]["documents"] == fast.stream.documents


def test_the_table_names_every_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["envs"]) == 0
    shown = capsys.readouterr().out
    assert all(card_id in shown for card_id in (*card_paths(), *card_paths("fastweights")))
