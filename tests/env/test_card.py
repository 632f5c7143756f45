"""Cards hold every number, and a mistake in one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from sleepgym.consolidation.spec import SleepSpec
from sleepgym.editing.spec import EditSpec
from sleepgym.env.card import CardError, load_card
from sleepgym.env.registration import card_paths

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


def test_an_override_that_is_no_table_is_a_card_error() -> None:
    with pytest.raises(CardError, match="episode"):
        load_card("SleepLLM-Mini-v0", episode=3)  # type: ignore[arg-type]
