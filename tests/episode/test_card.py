"""Cards hold every number, and a mistake in one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.spec import EditError, EditSpec
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.card import CardError, differences, load_card
from sleepgym.files import card_paths

CARDS = card_paths()


@pytest.fixture
def text() -> str:
    return CARDS["SleepLLM-Mini-v0"].read_text(encoding="utf-8")


@pytest.mark.parametrize("card_id", CARDS)
def test_every_shipped_card_is_valid(card_id: str) -> None:
    card = load_card(card_id)
    assert type(card.edit) is EditSpec
    assert type(card.sleep) is SleepSpec
    assert card.horizon == card.episode.days * card.stream.ticks_per_day


def test_a_file_is_loaded_like_an_id(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    assert load_card(tmp_path / "mine.toml") == load_card("SleepLLM-Mini-v0")


def test_overrides_replace_single_keys() -> None:
    card, changed = load_card("SleepLLM-Mini-v0"), load_card("SleepLLM-Mini-v0", episode={"days": 3})
    assert changed.episode.days == 3
    assert changed.episode.max_perplexity_ratio == card.episode.max_perplexity_ratio
    assert changed.sleep == card.sleep


@pytest.mark.parametrize(
    ("old", "new", "key", "found"),
    [
        ("days = 2", "days = 2\nweeks = 1", "episode.weeks", "1"),
        ("days = 2", "", "episode.days", "nothing"),
        ("days = 2", 'days = "2"', "episode.days", "'2'"),
        ("days = 2", "days = 0", "episode.days", "0"),
        ("known_share = 0.2", "known_share = 1.2", "stream.known_share", "1.2"),
        ("arrival_rate = [0.4, 0.6]", "arrival_rate = [0.6, 0.4]", "stream.arrival_rate", "0.6"),
        ("night_ticks = [3, 5]", "night_ticks = [3, 12]", "stream.night_ticks", "12"),
        ("layers = [0]", "layers = []", "edit.layers", "[]"),
        ("layers = [0]", 'layers = ["0"]', "edit.layers.0", "'0'"),
        ("clamp = 1.5", "clmap = 1.5", "edit.clmap", "clmap"),
        ("clamp = 1.5", "", "edit.clamp", "nothing"),
        ("clamp = 1.5", "clamp = -1.5", "edit.clamp", "-1.5"),
        ("scales = [1.0, 0.5, 0.1, 0.0]", "scales = [1.0, 0.5]", "sleep.scales", "0.5"),
        ('offline = ["nap", "sleep"]', 'offline = ["snooze"]', "ticks.offline.0", "snooze"),
        ("[reward]", "[rewards]", "rewards", "served"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_value(
    tmp_path: Path, text: str, old: str, new: str, key: str, found: str
) -> None:
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(CardError) as error:
        load_card(path)
    message = str(error.value)
    assert "broken.toml" in message
    assert f"key {key}:" in message
    assert "expected" in message
    assert found in message


def test_a_missing_card_lists_the_known_ones() -> None:
    with pytest.raises(CardError, match="SleepLLM-v0"):
        load_card("SleepLLM-v99")


def test_text_that_is_not_toml_is_a_card_error(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("days = ", encoding="utf-8")
    with pytest.raises(CardError, match=r"bad\.toml"):
        load_card(tmp_path / "bad.toml")


@pytest.mark.parametrize("card", [None, 3, ["SleepLLM-v0"]])
def test_what_names_no_card_is_a_card_error(card: Any) -> None:
    with pytest.raises(CardError, match=r"SleepLLM-v0.*a TOML file or a Card, found"):
        load_card(card)


@pytest.mark.parametrize("value", [np.int64(2), np.array([2, 3]), {2}], ids=["scalar", "array", "set"])
def test_an_override_that_is_no_plain_value_is_named(value: Any) -> None:
    with pytest.raises(CardError, match=r"key episode\.days: expected numbers, texts and lists .* \.item\(\)"):
        load_card("SleepLLM-Mini-v0", episode={"days": value})


def test_a_card_that_was_read_takes_an_optional_section_too() -> None:
    card = load_card("SleepLLM-Mini-v0")
    changed = load_card(card, parameters={"facts": [4], "sleep": [3]})
    assert changed == load_card("SleepLLM-Mini-v0", parameters={"facts": [4], "sleep": [3]})
    assert differences(card, changed) == [
        "parameters.facts: expected None, found [4]",
        "parameters.sleep: expected None, found [3]",
    ]


def test_layers_that_the_model_does_not_have_are_an_edit_error() -> None:
    with pytest.raises(EditError, match=r"expected layers below \d+ for 'tiny', found \(99,\)"):
        gym.make("sleepgym:SleepLLM-Mini-v0", edit={"layers": [99]})


def test_an_override_that_is_no_table_is_a_card_error() -> None:
    with pytest.raises(CardError, match="episode"):
        load_card("SleepLLM-Mini-v0", episode=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"stream": {"arrival_rate": [0.4, 0.2]}},
            r"key stream\.arrival_rate: expected a range \[lowest, highest\], found \[0\.4, 0\.2\]",
        ),
        ({"stream": {"arrival_rate": [0.4]}}, r"key stream\.arrival_rate\.1: expected a value, found nothing"),
        ({"stream": {"rate": 0.4}}, r"key stream\.rate: expected only known keys, found 0\.4"),
        ({"streem": {"rate": 0.4}}, r"key streem: expected only known keys, found \{'rate': 0\.4\}"),
        ({"stream": 0.4}, r"override of stream: expected a mapping .*, found 0\.4"),
        ({"budget": {"capacity": float("nan")}}, r"key budget\.capacity: expected .*, found nan"),
        ({"sleep": {"steps": "many"}}, r"key sleep\.steps: expected .*, found 'many'"),
    ],
)
def test_a_mistake_in_an_override_is_named_with_file_key_and_value(
    tmp_path: Path, text: str, overrides: dict[str, Any], message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CardError, match=f"^mine\\.toml, {message}"):
        gym.make("sleepgym:SleepLLM-Mini-v0", card=str(path), **overrides)


def test_a_card_of_ones_own_is_made_under_a_shipped_id(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("days = 2", "days = 3"), encoding="utf-8")
    env = gym.make("sleepgym:SleepLLM-v0", card=str(path), split="test").unwrapped
    assert isinstance(env, SleepEnv)
    assert env.card == load_card("SleepLLM-Mini-v0", episode={"days": 3})
    assert env.split == "test"


@pytest.mark.parametrize("pair", [[0.2, 0.3], (0.2, 0.3)], ids=["list", "tuple"])
def test_an_override_by_keyword_is_drawn_from(pair: Any) -> None:
    env = gym.make("sleepgym:SleepLLM-Mini-v0", stream={"arrival_rate": pair}).unwrapped
    assert isinstance(env, SleepEnv)
    env.reset(seed=0)
    assert env.card.stream.arrival_rate == (0.2, 0.3)
    assert 0.2 <= env.episode.stream.rhythm.arrival_rate <= 0.3


def test_a_missing_file_is_a_card_error_through_gymnasium_too() -> None:
    with pytest.raises(CardError, match=r"found 'nowhere\.toml', which cannot be read"):
        gym.make("sleepgym:SleepLLM-v0", card="nowhere.toml")
