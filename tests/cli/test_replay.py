"""``sleepgym replay``: its statuses, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sleepgym.cli.main import main
from sleepgym.env.sleep_env import SleepEnv
from sleepgym.episode.actions import Action
from sleepgym.record.recording import Recorder


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """A short recording; its facts are written at the third step or later."""
    env = Recorder(SleepEnv("SleepLLM-Mini-v0", episode={"days": 1}))
    env.reset(seed=3)
    while not env.unwrapped.over:  # type: ignore[attr-defined]
        allowed = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        env.step(Action.INJECT if allowed[Action.INJECT] else Action.WAIT)
    out: dict[str, Any] = json.loads(env.recording.model_dump_json())
    return out


@pytest.fixture
def play(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plays documents; gives the status and what was shown."""
    monkeypatch.chdir(tmp_path)

    def run(*documents: Any) -> tuple[int, str]:
        for i, document in enumerate(documents):
            Path(f"{i}.json").write_text(document if isinstance(document, str) else json.dumps(document))
        status = main(["replay", *(f"{i}.json" for i in range(len(documents)))])
        return status, capsys.readouterr().out

    return run


def swapped(values: list[Any], at: int, value: Any) -> list[Any]:
    return [*values[:at], value, *values[at + 1 :]]


def test_a_recording_agrees_exactly(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document)
    assert status == 0
    assert shown == f"0.json: agrees exactly: 12 steps, score {document['score']:.4f}\n"


def test_another_machines_rounding_agrees_too(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document | {"rewards": [reward + 1e-9 for reward in document["rewards"]]})
    assert status == 0
    assert "agrees within 1.0e-09" in shown


def test_another_action_differs_where_it_was_done(document: dict[str, Any], play: Any) -> None:
    at = document["actions"].index(Action.INJECT)
    status, shown = play(document | {"actions": swapped(document["actions"], at, int(Action.WAIT))})
    assert status == 1
    assert f"0.json: differs at step {at} (WAIT at tick {at}): expected a reward of " in shown


def test_another_reward_differs_where_it_was_given(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document | {"rewards": swapped(document["rewards"], 4, 0.987)})
    assert status == 1
    assert "differs at step 4 " in shown
    assert f"expected a reward of 0.987, found {document['rewards'][4]!r}" in shown


def test_another_score_differs_at_the_end(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document | {"score": 0.99})
    assert status == 1
    assert f"differs at the end: expected a score of 0.99, found {document['score']!r}" in shown


def test_an_episode_that_goes_on_after_its_end_differs(document: dict[str, Any], play: Any) -> None:
    status, shown = play(
        document | {"actions": [*document["actions"], 0], "rewards": [*document["rewards"], 1.0]},
        document | {"ended": False},
    )
    assert status == 1
    assert "0.json: differs at step 12: expected WAIT, found that the episode has ended" in shown
    assert "1.json: differs at the end: expected one that has not" in shown


def test_another_model_is_an_error(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document | {"fingerprint": "0" * 64})
    assert status == 2
    assert "expected model 'tiny' with fingerprint 000000000000, as in the recording, found" in shown


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        ({}, "episode.days: expected 1, found 2"),
        ({"episode": {"weeks": 1}}, "key episode.weeks: expected only known keys, found 1"),
    ],
)
def test_another_card_of_that_name_is_an_error(
    document: dict[str, Any], play: Any, overrides: dict[str, Any], found: str
) -> None:
    status, shown = play(document | {"overrides": overrides})
    assert status == 2
    assert "expected a recording with card SleepLLM-Mini-v0 as it is here, found one with another" in shown
    assert found in shown


def test_a_card_of_ones_own_is_played_and_named(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document | {"card_id": "mine.toml"})
    assert status == 0
    assert "0.json: note: card 'mine.toml' is not one of this package" in shown
    assert "agrees exactly" in shown


def test_another_version_is_an_error(document: dict[str, Any], play: Any) -> None:
    status, shown = play(document | {"sleepgym": "0.0.1"})
    assert status == 2
    assert "found one of 0.0.1; play it with the version that it was made with" in shown


def test_what_cannot_be_played_is_said_in_a_line_and_does_not_stop_the_rest(
    document: dict[str, Any], play: Any
) -> None:
    nowhere = document["card"] | {"model": {"name": "no such model/at all"}}
    lost = document | {"card_id": "", "card": nowhere}
    state = document | {"seed": None, "rng": {"bit_generator": "PCG64"}}
    status, shown = play("garbage", lost, state, document | {"actions": [9]}, document)
    lines = shown.splitlines()
    assert status == 2
    assert [line.partition(": ")[0] for line in lines] == [f"{i}.json" for i in range(5)]
    assert all("expected" in line for line in lines[:4]), lines
    assert "agrees" in lines[4]


def test_a_missing_file_and_no_file_are_errors(play: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert play()[0] == 2
    assert main(["replay", "nowhere.json"]) == 2
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_script_reads_a_line_per_file(
    document: dict[str, Any], play: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    play(document, document | {"score": 0.99})
    assert main(["replay", "0.json", "1.json", "--json"]) == 1
    same, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (same["file"], same["agrees"], same["steps"], same["difference"]) == ("0.json", True, 12, "")
    assert not other["agrees"] and "expected a score of 0.99" in other["difference"]
